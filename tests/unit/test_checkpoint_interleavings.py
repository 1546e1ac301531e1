"""Every interleaving of owners that begin epochs and commit: nothing acknowledged is lost, nothing superseded is seen.

The same exploration, with one rule of `checkpoint.fence` switched off, must find damage: so each rule is needed, and
the exploration is able to see it.
"""

from __future__ import annotations

import contextlib

import pytest

from checkpoint import layout
from checkpoint.epoch import begin_epoch
from checkpoint.errors import CheckpointError, Missing
from checkpoint.manifest import Kind, NamedObject
from checkpoint.sealing import TRIES
from checkpoint.writer import Changes, CheckpointWriter
from tests.fakes.interleavings import Actor, Event, Exploration, SteppedFiles, Tell

CONTEXT, SECRET = "c", b"s"


def commit(writer: CheckpointWriter, name: str) -> bool:
    """Commit one object of that name; whether it was acknowledged."""
    item = NamedObject(name, Kind.VALUE, "v", "materialize", "sync", inline=b"x")
    try:
        writer.commit(Changes(put=[item]))
    except CheckpointError:
        return False
    return True


def restoring(epoch: int, commits: int) -> Actor:
    """An owner that begins its epoch, opens its gate, and commits objects named `<epoch>:<number>`."""

    def run(files: SteppedFiles, tell: Tell) -> None:
        try:
            base = begin_epoch(files, CONTEXT, epoch, f"t{epoch}", SECRET)
        except CheckpointError:
            return
        tell("damage" if base.damaged else "gate", epoch, frozenset(base.objects))
        writer = CheckpointWriter(files, CONTEXT, epoch, f"t{epoch}", base, SECRET)
        for number in range(commits):
            done = commit(writer, f"{epoch}:{number}")
            tell("ack" if done else "refused", epoch, frozenset([f"{epoch}:{number}"]))

    return run


def adopted(first: int, second: int) -> Actor:
    """A driver that begins as `first`, commits, is adopted as `second`, and commits again."""

    def run(files: SteppedFiles, tell: Tell) -> None:
        try:
            base = begin_epoch(files, CONTEXT, first, f"t{first}", SECRET)
        except CheckpointError:
            return
        tell("gate", first, frozenset(base.objects))
        writer = CheckpointWriter(files, CONTEXT, first, f"t{first}", base, SECRET)
        if commit(writer, f"{first}:0"):
            tell("ack", first, frozenset([f"{first}:0"]))
        writer.readopt(second, f"t{second}")
        before = frozenset(writer.objects())
        if commit(writer, f"{second}:0"):
            tell("gate", second, before)  # what its readers saw is confirmed by its first seal
            tell("ack", second, frozenset([f"{second}:0"]))

    return run


def sweeping(*epochs: int) -> Actor:
    """A driver that begins as the first epoch and is adopted as the others; in each it updates one object, and sweeps."""

    def run(files: SteppedFiles, tell: Tell) -> None:
        try:
            base = begin_epoch(files, CONTEXT, epochs[0], f"t{epochs[0]}", SECRET)
        except CheckpointError:
            return
        tell("gate", epochs[0], frozenset(base.objects))
        writer = CheckpointWriter(files, CONTEXT, epochs[0], f"t{epochs[0]}", base, SECRET)
        for epoch in epochs:
            if epoch != epochs[0]:
                writer.readopt(epoch, f"t{epoch}")
            version = writer.next_version()
            path = layout.object_path("1:o", version)
            item = NamedObject("1:o", Kind.DATAFRAME, version, "materialize", "sync", path=path)
            try:
                files.write_new(data_path(item), b"data")
                writer.commit(Changes(put=[item]))
            except CheckpointError:
                continue
            tell("ack", epoch, frozenset(["1:o"]))
            with contextlib.suppress(CheckpointError):
                writer.sweep({version})

    return run


def data_path(item: NamedObject) -> str:
    return layout.in_context(CONTEXT, f"{item.path}/part-0")


def reading(epoch: int) -> Actor:
    """An owner that begins its epoch and reads what its base names, as a restored driver does."""

    def run(files: SteppedFiles, tell: Tell) -> None:
        try:
            base = begin_epoch(files, CONTEXT, epoch, f"t{epoch}", SECRET)
        except CheckpointError:
            return
        tell("damage" if base.damaged else "gate", epoch, frozenset(base.objects))
        for item in base.objects.values():
            try:
                files.read(data_path(item))
            except Missing:
                tell("damage", epoch, frozenset([item.name]))
            except CheckpointError:
                return
            tell("read", epoch, frozenset([item.name]))

    return run


class SweepsWhatWasNotAcknowledged(SteppedFiles):
    """Whoever sweeps takes the newest data, too: as if nothing of a manifest without acknowledgement had to stay."""

    def remove(self, path: str) -> None:
        super().remove(layout.objects_folder(CONTEXT) if "/objects/" in path else path)


def epoch_of(name: str) -> int:
    return int(name.split(":")[0])


def fault_in(story: tuple[Event, ...]) -> str | None:
    """The first promise that a story breaks."""
    for index, (what, epoch, names) in enumerate(story):
        if what == "damage":
            return f"epoch {epoch} found damage that nobody did"
        went_on = any(then == "ack" and after == epoch for then, after, _ in story[index:])
        for later, base in ((after, held) for then, after, held in story if then == "gate" and after > epoch):
            if what == "ack" and not names <= base:
                return f"{set(names)} was acknowledged and is not in the base of epoch {later}"
            if what == "refused" and went_on and names <= base:
                return f"{set(names)} was refused, its writer went on without it, and epoch {later} sees it"
            if what == "gate" and {name for name in base if epoch_of(name) < epoch} != names:
                return f"epoch {later} sees other writes from before epoch {epoch} than that epoch itself"
    return None


def explored(exploration: Exploration) -> str | None:
    """The first fault in any reachable state."""
    return next((fault for story in exploration.stories() if (fault := fault_in(story))), None)


def is_marker(path: str) -> bool:
    return path.startswith(layout.marker_folder(CONTEXT))


def is_pin(path: str) -> bool:
    return path.endswith(f"-{layout.pair(0, 0)[: layout.WIDTH]}.json")


class Lying(SteppedFiles):
    """Remembers its owner's last marker and last write, so that a rule can be skipped without touching the product."""

    own = ""
    last = ""

    def write_new(self, path: str, data: bytes) -> None:
        if is_marker(path):
            self.own = path.split("/")[-1]
        self.last = path
        super().write_new(path, data)


class NoMarkersReadAfterASeal(Lying):
    def names(self, folder: str) -> list[str]:
        if is_marker(folder + "/") and not is_pin(self.last):
            return [self.own]
        return super().names(folder)


class NoMarkersReadAfterThePin(Lying):
    def names(self, folder: str) -> list[str]:
        if is_marker(folder + "/") and is_pin(self.last):
            return [self.own]
        return super().names(folder)


class NoPin(Lying):
    def write_new(self, path: str, data: bytes) -> None:
        if not is_pin(path) or path == layout.manifest_path(CONTEXT, layout.manifest_name(1, 0)):
            super().write_new(path, data)


class MarkerAfterTheList(Lying):
    waiting = ""

    def write_new(self, path: str, data: bytes) -> None:
        if is_marker(path):
            self.waiting = self.own = path.split("/")[-1]
        else:
            super().write_new(path, data)

    def names(self, folder: str) -> list[str]:
        found = super().names(folder)
        if self.waiting:
            self.waiting = ""
            super().write_new(layout.marker_folder(CONTEXT) + "/" + self.own, b"")
        return found


class AdoptedWithoutLookingForOthers(Lying):
    begun = 0

    def write_new(self, path: str, data: bytes) -> None:
        self.begun += is_marker(path)
        super().write_new(path, data)

    def names(self, folder: str) -> list[str]:
        if self.begun == 2 and not is_marker(folder + "/"):
            return []
        return super().names(folder)


THREE_OWNERS = (restoring(1, 2), restoring(2, 1), restoring(3, 1))
LATE_SEAL = (restoring(1, 1), restoring(2, 0), restoring(3, 0))
ADOPTED = (adopted(1, 3), restoring(2, 1), restoring(4, 0))


def test_no_order_of_three_owners_loses_an_acknowledged_commit_or_shows_a_superseded_one() -> None:
    exploration = Exploration((restoring(1, 3), restoring(2, 3), restoring(3, 2)))
    assert explored(exploration) is None
    assert exploration.states > 10_000


def test_nor_does_one_in_which_writes_lose_their_replies_or_arrive_late() -> None:
    exploration = Exploration((restoring(1, 2), restoring(2, 1), restoring(3, 0)), faults=1)
    assert explored(exploration) is None
    assert exploration.states > 10_000


def test_nor_one_in_which_a_seal_fails_for_good_and_arrives_when_its_writer_has_gone_on() -> None:
    exploration = Exploration((restoring(1, 2), restoring(2, 0)), faults=TRIES)
    assert explored(exploration) is None
    refused = {event for story in exploration.stories() for event in story if event[0] == "refused"}
    assert ("refused", 1, frozenset(["1:0"])) in refused


def test_no_order_of_an_adopted_driver_and_two_restoring_owners_breaks_a_promise() -> None:
    exploration = Exploration(ADOPTED, faults=1)
    assert explored(exploration) is None
    assert exploration.states > 10_000


def test_no_order_of_a_sweeping_driver_and_a_new_owner_takes_data_that_the_new_base_names() -> None:
    exploration = Exploration((sweeping(1, 2, 3), reading(4)), faults=1)
    stories = list(exploration.stories())
    assert next((fault for story in stories if (fault := fault_in(story))), None) is None
    assert any(what == "read" for story in stories for what, _, _ in story)
    assert exploration.states > 1_000


def test_and_it_is_noticed_when_a_sweep_takes_more_than_it_may() -> None:
    exploration = Exploration((sweeping(1, 2, 3), reading(4)), SweepsWhatWasNotAcknowledged)
    assert explored(exploration) is not None


def test_all_three_can_succeed_one_after_the_other() -> None:
    acknowledged = [
        sum(what == "ack" for what, _, _ in story) for story in Exploration(THREE_OWNERS).stories()
    ]
    assert max(acknowledged) == 4


@pytest.mark.parametrize(
    ("rule_off", "actors", "found"),
    [
        (NoMarkersReadAfterASeal, THREE_OWNERS, "is not in the base"),
        (NoMarkersReadAfterThePin, LATE_SEAL, "sees other writes"),
        (NoPin, LATE_SEAL, "sees other writes"),
        (MarkerAfterTheList, THREE_OWNERS, "is not in the base"),
        (AdoptedWithoutLookingForOthers, ADOPTED, "is not in the base"),
    ],
)
def test_without_this_rule_the_exploration_finds_damage(
    rule_off: type[SteppedFiles], actors: tuple[Actor, ...], found: str
) -> None:
    assert explored(Exploration(actors)) is None
    faults = {fault_in(story) for story in Exploration(actors, rule_off).stories()}
    assert any(found in fault for fault in faults if fault)


def test_a_refused_write_that_comes_back_would_be_seen() -> None:
    story = (
        ("gate", 1, frozenset[str]()),
        ("refused", 1, frozenset(["1:0"])),
        ("ack", 1, frozenset(["1:1"])),
        ("gate", 2, frozenset(["1:0", "1:1"])),
    )
    assert "went on without it" in (fault_in(story) or "")
