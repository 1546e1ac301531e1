"""Events of jobs: the same ids from any server, none lost and none twice wherever a stream is taken up again."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobserver.history import JobMove
from jobserver.job_events import EventId, events_after, newest_id
from jobserver.model import JobRecord, JobSpec, JobState
from jobserver.progress import Counts, JobProgress, StageProgress, progress_fields, progress_of

AT = datetime(2024, 5, 29, 12, 0, 0, tzinfo=UTC)
STORY = [
    (0, JobState.QUEUED),
    (1, JobState.RUNNING),
    (1, JobState.RESTARTING),
    (2, JobState.RUNNING),
    (2, JobState.FINISHED),
]


def moves(count):
    return [JobMove(attempt, state, AT, "s1", 1, None) for attempt, state in STORY[:count]]


def job(count):
    attempt, state = STORY[count - 1]
    return JobRecord("j", "c", "ctx", JobSpec("m.C", ()), state, AT, attempt=attempt)


def told(count, progress=None, last=None):
    return events_after(last, moves(count), job(count), progress)


def test_every_state_is_told_once_in_its_order():
    events = told(5)
    assert [(event.data["attempt"], event.data["state"]) for event in events] == [
        (attempt, state.value) for attempt, state in STORY
    ]
    assert [str(event.id) for event in events] == ["0.0.0", "1.1.0", "1.2.0", "2.1.0", "2.3.0"]
    assert events[0].data["at"] == "2024-05-29T12:00:00.000Z"


@given(st.lists(st.integers(1, 5), min_size=1), st.integers(0, 3))
def test_a_client_that_is_cut_off_anywhere_sees_each_event_once(looks, every):
    seen, last = [], None
    for count in sorted([*looks, 5]):
        state = job(count)
        progress = JobProgress(state.attempt, seq=every) if state.state is JobState.RUNNING else None
        for event in told(count, progress, last):
            seen.append(event)
            last = event.id
    assert [event.data["state"] for event in seen if event.kind == "state"] == [s.value for _, s in STORY]
    ids = [event.id for event in seen]
    assert ids == sorted(set(ids))


def test_only_the_newest_progress_of_the_running_attempt_is_told():
    now = JobProgress(2, seq=7, fraction=0.5, message="half")
    assert [str(event.id) for event in told(4, now)][-1] == "2.1.7"
    assert told(4, now)[-1].data["fraction"] == 0.5
    assert told(4, now, EventId(2, 1, 7)) == []
    assert [event.kind for event in told(4, JobProgress(1, seq=9))] == ["state"] * 4, "of an older attempt"
    assert [event.kind for event in told(5, now)] == ["state"] * 5, "of a job that has ended"
    assert newest_id(job(4), now) == EventId(2, 1, 7)
    assert newest_id(job(5), now) == newest_id(job(5), None) == EventId(2, 3)


def test_a_state_that_is_not_on_record_is_told_from_the_job_itself():
    events = events_after(None, [], job(3), None)
    assert [(event.data["state"], event.data["attempt"]) for event in events] == [("RESTARTING", 1)]


@pytest.mark.parametrize("text", ["", "1", "1.2", "1.4.0", "a.b.c", "-1.1.1", "1.1.1.1", "1" * 20 + ".1.1"])
def test_what_is_no_id_is_not_taken_for_one(text):
    assert EventId.parse(text) is None


def test_an_id_is_read_as_it_was_written():
    assert EventId.parse(str(EventId(3, 1, 42))) == EventId(3, 1, 42)


def test_a_progress_comes_through_json_as_it_was():
    progress = JobProgress(
        3, 4, 0.5, "m", Counts(1, 2, 3, 4), Counts(5), Counts(6), (StageProgress(7, "map", Counts(8)),)
    )
    assert progress_of(progress_fields(progress)) == progress
