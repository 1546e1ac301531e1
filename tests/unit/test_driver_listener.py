"""The driver's sockets."""

import socket
import threading

from jobserver.driver.listener import Listener
from jobserver.protocol import VERSION, frame, proof_of, recv_frame


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
