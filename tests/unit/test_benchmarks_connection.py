"""The connection that benchmarks measure with."""

import socket
import threading

import pytest

from benchmarks.cluster import Refused, job_request, job_result
from benchmarks.connection import Connection, http_request


def _answering(chunks):
    """The URL of a server that sends these chunks after the first bytes it gets, and closes; and what it got."""
    listener, got = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        peer, _ = listener.accept()
        with peer, listener:
            got.append(peer.recv(65536))
            for chunk in chunks:
                peer.sendall(chunk)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", got


def test_an_answer_in_pieces_is_put_together():
    url, got = _answering([b"HTTP/1.1 200 OK\r\nContent-", b"Length: 5\r\n\r\nab", b"cde"])
    assert Connection(url).ask(b"GET / HTTP/1.1\r\n\r\n") == (200, b"abcde")
    assert got == [b"GET / HTTP/1.1\r\n\r\n"]


def test_a_server_that_goes_away_in_an_answer_is_no_answer():
    url, _ = _answering([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"])
    with pytest.raises(EOFError):
        Connection(url).ask(b"x")


def test_a_connection_that_the_server_ended_while_it_was_idle_is_opened_again():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(f"http://127.0.0.1:{listener.getsockname()[1]}")
        listener.accept()[0].close()

        def serve():
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")

        threading.Thread(target=serve, daemon=True).start()
        assert connection.ask(b"x") == (200, b"a")
        connection.close()


def test_a_request_carries_its_length_and_headers():
    sent = http_request("POST", "/jobs", b"{}", Idempotency_Key="k1")
    assert sent == b"POST /jobs HTTP/1.1\r\nHost: bench\r\nContent-Length: 2\r\nIdempotency-Key: k1\r\n\r\n{}"


def test_a_job_request_names_the_function_in_the_uploaded_file():
    line = job_request("ctx", "point", {"id": 3}).split(b"\r\n")[0]
    assert b"mainClass=bench_jobs%3Apoint&context=ctx&sync=true" in line


@pytest.mark.parametrize(
    "answer",
    [(503, b"later"), (200, b'{"jobId":"1","status":"ERROR","result":{"message":"no"}}'), (200, b"{}")],
)
def test_what_is_no_result_is_refused(answer):
    with pytest.raises(Refused, match=str(answer[0])):
        job_result(answer)


def test_the_result_is_what_the_job_returned():
    assert job_result((200, b'{"jobId":"1","result":[1,2]}')) == [1, 2]
