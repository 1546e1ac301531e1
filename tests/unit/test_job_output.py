"""Output of jobs: segments in a store, what the driver still holds, and ranges of the whole."""

import logging
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from py4j import protocol
from py4j.java_gateway import GatewayParameters, JavaGateway

from checkpoint.errors import AlreadyExists, StoreUnavailable
from checkpoint.segments import Segment, put_segment, read_range, segments
from jobserver.api.job_views import wanted_range
from jobserver.driver.job_log import GAP, JobLog, JobLogs, worth_telling
from jobserver.errors import BadRequest
from jobserver.job_output import Tail, parts
from jobserver.model import AttemptRef
from tests.fakes.files import Fault, FaultyFiles

REF = AttemptRef("j", 1)


def stored(files, folder, *pieces):
    start = 0
    for piece in pieces:
        put_segment(files, folder, start, piece)
        start += len(piece)
    return segments(files, folder)


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=5), st.integers(0, 50), st.integers(0, 50))
def test_any_range_of_a_stream_is_the_range_of_its_bytes(pieces, start, end):
    files = FaultyFiles()
    known = stored(files, "f", *pieces)
    assert b"".join(read_range(files, "f", known, start, end)) == b"".join(pieces)[start:end]


def test_a_segment_that_is_written_again_changes_nothing_and_another_is_refused():
    files = FaultyFiles()
    put_segment(files, "f", 0, b"one")
    put_segment(files, "f", 0, b"one")
    with pytest.raises(AlreadyExists):
        put_segment(files, "f", 0, b"two")
    assert segments(files, "f") == [Segment(0, 3)]
    assert segments(files, "nothing") == []


def test_what_was_stored_since_the_driver_was_asked_is_not_told_twice():
    tail = Tail(1, 4, b"456789")
    for end in (4, 7, 9):
        whole = parts({1: [Segment(0, end)]}, [tail])
        assert [(part.start, part.end) for part in whole] == [(0, end), (end, 10)]
        assert whole[1].data == b"456789"[end - 4 :]
    assert len(parts({1: [Segment(0, 10)]}, [tail])) == 1, "all of it is stored by now"


def test_attempts_follow_each_other_and_one_may_be_only_with_the_driver():
    whole = parts({1: [Segment(0, 3)]}, [Tail(2, 0, b"xy")])
    assert [(part.attempt, part.start, part.end) for part in whole] == [(1, 0, 3), (2, 3, 5)]
    assert parts({}, []) == []


def test_a_log_keeps_its_beginning_and_says_where_it_was_cut():
    log = JobLog(REF, 10, lambda _log: None)
    for _ in range(5):
        log.write(b"12345678")
    assert log.tail().data == b"1234567812\n... what comes here is over the limit of 10 bytes\n"


def test_a_log_is_due_when_it_is_large_or_old_or_has_ended():
    log = JobLog(REF, 10**6, lambda _log: None)
    begun = log._last
    assert log.due(begun + 100) is None, "nothing was written"
    log.write(b"x")
    assert log.due(begun + 0.5) is None
    assert log.due(begun + 1.0) is not None
    log.stored(1, begun + 1.0)
    log.write(b"y" * 65_536)
    assert log.due(begun + 1.1) is not None
    log.stored(65_536, begun + 1.1)
    log.write(b"z")
    log.ended = True
    assert log.due(begun + 1.1).offset == 65_537


def test_what_py4j_tells_of_its_connections_to_a_dead_jvm_is_no_output_of_a_job():
    told = []
    handler = logging.Handler()
    handler.emit = told.append
    root = logging.getLogger()
    usual = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        with socket.create_server(("127.0.0.1", 0)) as dying:
            threading.Thread(target=accept_and_close, args=[dying, 2], daemon=True).start()
            bridge = JavaGateway(gateway_parameters=GatewayParameters(port=dying.getsockname()[1]))
            assert bridge._gateway_client.send_command("c\n") == protocol.ERROR
        logging.info("a job's own")
    finally:
        root.removeHandler(handler)
        root.setLevel(usual)
    assert {one.name for one in told if not worth_telling(one)} == {"py4j.java_gateway", "root"}
    told.append(
        logging.LogRecord("odd", logging.INFO, None, 1, "of no file", None, None)
    )  # as logging itself allows
    assert [one.getMessage() for one in told if worth_telling(one)] == [
        "Exception while sending command.",
        "a job's own",
        "of no file",
    ]


def accept_and_close(server, times):
    for _ in range(times):
        connection, _ = server.accept()
        connection.recv(100)
        connection.close()


def test_what_an_attempt_wrote_is_stored_when_it_has_ended_also_after_trouble():
    files = FaultyFiles()
    trouble = [StoreUnavailable("away")]

    def opened():
        if trouble:
            raise trouble.pop()
        return files

    logs = JobLogs(opened, 1000)
    log = logs.begin(REF)
    log.write(b"hello")
    logs.end(log)
    assert logs.flush(30)
    assert files.read("logs/j/000000000001/000000000000000") == b"hello"
    assert logs.tails("j") == []


def test_a_segment_whose_reply_was_lost_is_repeated_as_it_was_and_nothing_is_lost():
    files = FaultyFiles()
    files.inject(Fault.LOST_REPLY, "write_new", "logs/j")
    logs = JobLogs(lambda: files, 1000)
    log = JobLog(REF, 1000, lambda _log: None)
    log.write(b"one")
    log.ended = True
    with pytest.raises(StoreUnavailable):
        logs._write(log)
    log.write(b" and two")
    logs._write(log)
    logs._write(log)
    folder = "logs/j/000000000001"
    known = segments(files, folder)
    assert known == [Segment(0, 3), Segment(3, 11)]
    assert b"".join(read_range(files, folder, known, 0, 11)) == b"one and two"


def test_what_the_store_does_not_take_is_bounded_over_all_jobs_and_a_line_tells_of_the_gap():
    files, trouble = FaultyFiles(), [True]

    def opened():
        if trouble:
            raise StoreUnavailable("away")
        return files

    logs = JobLogs(opened, 1000, backlog=10)
    first, second = logs.begin(REF), logs.begin(AttemptRef("k", 1))
    first.write(b"12345678")
    for _ in range(3):
        second.write(b"12345678")
    assert first.tail().data == b"12345678"
    assert second.tail().data == GAP
    trouble.clear()
    assert logs.flush(30)
    third = logs.begin(AttemptRef("l", 1))
    third.write(b"12345678")
    assert third.tail().data == b"12345678", "there is room again"


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None),
        ("bytes=0-4", (0, 5)),
        ("bytes=5-", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=4-100", (4, 10)),
        ("bytes=0-1,3-4", None),
        ("lines=1-2", None),
    ],
)
def test_ranges_of_a_header(header, wanted):
    assert wanted_range(header, 10) == wanted


@pytest.mark.parametrize("header", ["bytes=", "bytes=-", "bytes=a-b", "bytes=5-2"])
def test_a_range_that_makes_no_sense_is_refused(header):
    with pytest.raises(BadRequest):
        wanted_range(header, 10)
