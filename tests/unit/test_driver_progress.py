"""Progress, and `env.commit`: a job that adds parts up is killed at every operation of the store, and adds each part once."""

import itertools

import cloudpickle
import pytest

from checkpoint.contents import Changes
from checkpoint.errors import StaleAttempt, StoreUnavailable
from checkpoint.manifest import Progress
from tests.fakes.files import Fault, FaultyFiles
from tests.fakes.named_objects import Context

PARTS = 4
WHOLE = str(sum(10**part for part in range(PARTS)))
"""The sum in which each part has a digit of its own."""


class Died(BaseException):
    """The process is gone: nothing after this happens."""


class MortalFiles(FaultyFiles):
    """The store as one process sees it that dies at its n-th operation, before or after that has taken effect."""

    def __init__(self, content, dies_at=None, after=False):
        super().__init__()
        self.content = content
        self.left, self.after = dies_at, after

    def _counted(self, operation, *arguments):
        if self.left is not None and self.left <= 0:
            raise Died
        if self.left is not None:
            self.left -= 1
        if self.left == 0 and not self.after:
            raise Died
        answer = getattr(FaultyFiles, operation)(self, *arguments)
        if self.left == 0:
            raise Died
        return answer

    def read(self, path):
        return self._counted("read", path)

    def write_new(self, path, data):
        return self._counted("write_new", path, data)

    def names(self, folder):
        return self._counted("names", folder)

    def remove(self, path):
        return self._counted("remove", path)


def add_up(env, computed):
    """Exactly once, by `env.commit`."""
    for part in range(env.progress.load(0), PARTS):
        computed.append(part)
        env.commit(part + 1, {"sum": lambda part=part: added(env, part), "last": lambda part=part: str(part)})


def add_up_in_two_steps(env, computed):
    """What a job must not do."""
    for part in range(env.progress.load(0), PARTS):
        env.named_objects.update("sum", lambda part=part: added(env, part))
        env.progress.save(part + 1)


def added(env, part):
    return str(int(env.named_objects.get("sum") or 0) + 10**part)


def lives(job, deaths):
    """Runs a job through these deaths, each (operation, after its effect), then to its end.

    Answers the sum, the parts as they were computed, and whether every death came before the job's end.
    """
    content, computed = {}, []
    for epoch, death in enumerate([*deaths, None], start=1):
        files = MortalFiles(content) if death is None else MortalFiles(content, *death)
        try:
            job(Context(None, epoch, files=files).environment(attempt=epoch), computed)
        except Died:
            continue
        if death is not None:
            return None, computed, False
    files = MortalFiles(content)
    return Context(None, len(deaths) + 2, files=files).registry.get("sum", 0), computed, True


def all_deaths():
    return ((operation, after) for operation in itertools.count(1) for after in (False, True))


def test_whatever_operation_a_job_dies_at_each_part_is_added_once_and_one_is_computed_again_at_most():
    died = 0
    for death in all_deaths():
        total, computed, died_in_time = lives(add_up, [death])
        if not died_in_time:
            break
        died += 1
        assert total == WHOLE, death
        assert len(computed) <= PARTS + 1, death
        assert sorted(set(computed)) == list(range(PARTS))
    assert died > 2 * PARTS * 2


def test_dying_twice_changes_nothing():
    for first in itertools.islice(all_deaths(), 0, 40, 3):
        for second in itertools.islice(all_deaths(), 0, None, 3):
            total, computed, died_in_time = lives(add_up, [first, second])
            if not died_in_time:
                break
            assert total == WHOLE, (first, second)
            assert len(computed) <= PARTS + 2


def test_the_same_search_finds_what_two_steps_do_wrong():
    found = set()
    for death in itertools.takewhile(lambda death: lives(add_up_in_two_steps, [death])[2], all_deaths()):
        found.add(lives(add_up_in_two_steps, [death])[0])
    assert len(found) > 1


@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.TORN])
def test_a_commit_whose_outcome_is_unknown_may_be_repeated_by_its_job(fault):
    files = FaultyFiles()
    context = Context(None, files=files)
    env = context.environment()
    env.commit(1, {"sum": lambda: added(env, 0)})
    files.inject(fault, "write_new", "/manifest/", times=1000)
    with pytest.raises(StoreUnavailable):
        env.commit(2, {"sum": lambda: added(env, 1)})
    files.heal()
    assert context.registry.get("sum", 0) == "1"
    env.commit(2, {"sum": lambda: added(env, 1)})
    following = Context(None, 2, files=files)
    assert (following.registry.get("sum", 0), following.environment(attempt=2).progress.load()) == ("11", 2)


def test_an_older_attempt_saves_no_more_once_a_later_one_has_looked(tmp_path):
    context = Context(tmp_path)
    older, newer = context.environment(attempt=1), context.environment(attempt=2)
    assert newer.progress.load("nothing") == "nothing"
    for late in (lambda: older.progress.save(1), lambda: older.commit(1, {"sum": lambda: "1"})):
        with pytest.raises(StaleAttempt):
            late()
    assert context.registry.get("sum", 0) is None
    newer.progress.save({"mine": [1, 2]})
    assert context.environment(attempt=3).progress.load() == {"mine": [1, 2]}


def test_what_an_older_attempt_seals_while_a_later_one_begins_is_what_that_starts_from(tmp_path, monkeypatch):
    context = Context(tmp_path)
    older, newer = context.environment(attempt=1), context.environment(attempt=2)
    older.progress.save("looked at")
    commit = context.journal.commit

    def after_the_older(changes):
        commit(Changes(progress={"job": older.progress.saved("sealed meanwhile")}))
        return commit(changes)

    monkeypatch.setattr(context.journal, "commit", after_the_older)
    assert newer.progress.load() == "sealed meanwhile"
    assert context.journal.progress_of("job").attempt == 2


@pytest.mark.parametrize("value", [None, 0, "x" * 200_000, {"f": len}, [1, (2, 3)]])
def test_any_value_that_can_be_pickled_comes_back(tmp_path, value):
    context = Context(tmp_path)
    context.environment().progress.save(value)
    assert context.environment().progress.load("default") == value


def test_progress_saved_by_the_first_release_is_still_read(tmp_path):
    context = Context(tmp_path)
    saved = Progress(1, inline=cloudpickle.dumps({"done": 3}))
    context.journal.commit(Changes(progress={"job": saved}))
    assert context.environment(attempt=2).progress.load() == {"done": 3}


def test_files_that_an_attempt_may_read_are_not_swept_while_it_runs(tmp_path):
    context = Context(tmp_path)
    env = context.environment(attempt=1)
    env.progress.save("x" * 100_000)
    path = context.journal.progress_of("job").path
    later = context.environment(attempt=2)
    assert len(later.progress.load()) == 100_000
    held = []
    context.journal.sweep = held.append
    context.registry._sweep()
    context.registry.released_by(later.progress._ref)
    context.registry._sweep()
    assert (path in held[0], path in held[1]) == (True, False)
