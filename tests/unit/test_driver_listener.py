"""The driver's sockets."""

import socket
import threading

import pytest

from jobserver.driver.listener import Connection, Listener
from jobserver.protocol import VERSION, Frames, frame, proof_of, recv_frame


def test_a_connection_whose_other_machine_is_gone_ends_although_nobody_says_a_word():
    """A warm or hot driver would otherwise wait for ever: nobody pings it all the time, and it never writes."""
    listener = Listener("127.0.0.1", "secret")
    heard = threading.Event()
    listener.serve(lambda connection, message: heard.set())
    with socket.create_connection(("127.0.0.1", listener.port), 5) as peer:
        nonce = recv_frame(peer, 4096)["nonce"]
        peer.sendall(frame({"t": "proof", "version": VERSION, "proof": proof_of("secret", nonce)}))
        peer.sendall(frame({"t": "ping", "n": 1}))
        assert heard.wait(20)
        (connection,) = listener._connections
        mine = connection._socket
        assert mine.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle = mine.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        tries = mine.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
        assert idle + tries * mine.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) <= 60


@pytest.fixture
def ends():
    """A connection and the socket of its peer."""
    mine, peer = socket.socketpair()
    peer.settimeout(10)
    with mine, peer:
        connection = Connection(mine)
        yield connection, peer
        connection.close()


def test_what_may_wait_comes_in_one_piece_with_what_ends_the_wait(ends):
    connection, peer = ends
    for name in ("a", "b", "c"):
        connection.send_soon({"t": name})
    assert connection.flush()
    assert [message["t"] for message in Frames().messages(peer.recv(4096))] == ["a", "b", "c"]


def test_what_may_wait_comes_although_nothing_follows(ends):
    connection, peer = ends
    writer = threading.Thread(target=connection.flush_late, daemon=True)
    writer.start()
    for name in ("a", "b"):  # twice, so that the wait began anew
        connection.send_soon({"t": name})
        assert recv_frame(peer) == {"t": name}
    connection.close()
    writer.join(10)
    assert not writer.is_alive()


def test_what_does_not_wait_takes_nothing_along(ends):
    """It may come from a thread that is killed in the middle of it."""
    connection, peer = ends
    connection.send_soon({"t": "waits"})
    connection.send({"t": "now"})
    assert [message["t"] for message in Frames().messages(peer.recv(4096))] == ["now"]


def test_nothing_is_written_to_a_peer_that_is_gone(ends):
    connection, peer = ends
    peer.close()
    connection.send_soon({"t": "a"})
    while connection.send({"t": "b"}):
        pass
    connection.send_soon({"t": "c"})
    assert not connection.flush()
