"""Streaming jobs: a rival that still writes is waited out, other failures are told at once."""

import pytest

from jobserver.driver.jobthreads import RunningAttempt
from jobserver.driver.streaming import StreamingJobs, is_concurrent_writer, run_to_end
from jobserver.model import AttemptRef

RIVAL = RuntimeError(
    "[CONCURRENT_STREAM_LOG_UPDATE] Concurrent update to the log. Multiple streaming jobs detected"
)


class Query:
    """Ends as the next of `outcomes` says: an error, or well (None); each run takes `seconds`."""

    def __init__(self, outcomes, seconds=1.0):
        self.outcomes, self.seconds, self.now, self.starts = list(outcomes), seconds, 0.0, []

    def start(self, path):
        self.starts.append((self.now, path))
        return self

    def awaitTermination(self):
        self.now += self.seconds
        error = self.outcomes.pop(0)
        if error:
            raise error

    def sleep(self, seconds):
        self.now += seconds

    def run(self, patience=10.0):
        return run_to_end(self.start, "there", patience, lambda: self.now, self.sleep)


def test_a_query_is_started_again_while_an_older_driver_writes_its_state():
    query = Query([RIVAL, RIVAL, None])
    assert query.run() is query
    assert query.starts == [(0.0, "there"), (2.0, "there"), (4.0, "there")]


def test_a_rival_that_does_not_end_is_told_after_the_patience():
    query = Query([RIVAL] * 20)
    with pytest.raises(RuntimeError, match="CONCURRENT"):
        query.run(patience=10.0)
    assert query.now == 13.0


def test_a_rival_after_a_long_good_run_is_another_matter():
    query = Query([RIVAL] * 20, seconds=50.0)
    query.outcomes = [RIVAL, RIVAL, None]
    assert query.run(patience=10.0) is query


def test_any_other_failure_is_told_at_once():
    query = Query([ValueError("bad row"), None])
    with pytest.raises(ValueError, match="bad row"):
        query.run()
    assert not is_concurrent_writer(ValueError("bad row"))


def test_where_nothing_is_kept_a_streaming_checkpoint_is_refused():
    jobs = StreamingJobs(60.0)
    attempt = RunningAttempt(AttemptRef("j", 1), "g", "batch")
    with pytest.raises(RuntimeError, match="no checkpoint"):
        jobs.of(attempt, None).checkpoint("copy")
    assert not jobs.any


def test_the_queries_of_a_job_are_stopped_with_it():
    class Session:
        streams = None
        active = property(lambda self: [self])
        stopped = 0

        def stop(self):
            Session.stopped += 1

    session = Session()
    session.streams = session
    jobs = StreamingJobs(60.0)
    attempt = RunningAttempt(AttemptRef("j", 1), "g", "batch", session=session)
    for _ in range(2):
        jobs.joined(attempt)
    assert jobs.any
    for leave in attempt.leaving:
        leave()
    assert (Session.stopped, jobs.any) == (1, False)
