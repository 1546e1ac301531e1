"""The driver's TCP side: accepts, checks the secret, reads frames, writes frames. Knows no request.

One thread accepts, one per connection reads, and one writes what may wait a little (`send_soon`). A peer that does not read
is cut after SEND_TIMEOUT, so that a frozen owner cannot hold up the jobs that report to it.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from jobserver.protocol import PIECE, VERSION, Frames, Message, ProtocolError, frame, proof_fits, recv_frame

PROOF_TIMEOUT = 5.0
SEND_TIMEOUT = 10
KEEPALIVE = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 4}
"""Seconds of silence before the kernel asks, between questions, and how many without an answer end the connection."""
SOON = 0.005
"""Seconds that a message may wait for others, to be sent together with them."""
_LARGEST_PROOF = 4096
"""Bytes that a peer may announce before it has proven the secret."""


class Connection:
    """One peer that knows the secret. Writing is safe from all threads and never raises."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.lock = threading.RLock()
        self.open = True
        self._waiting: deque[bytes] = deque()
        self._expected = False
        self._wanted: SimpleQueue[None] = SimpleQueue()

    def send(self, message: Message) -> bool:
        """Write a message, whole; False if the peer is gone."""
        return self._write(frame(message))

    def send_soon(self, message: Message) -> None:
        """Have a message written by the next `flush`, which comes within SOON. Takes no lock, which a kill could leave held."""
        self._waiting.append(frame(message))
        if not self._expected:  # two threads that both see it wake the thread once too often, and no more
            self._expected = True
            self._wanted.put(None)

    def flush(self) -> bool:
        """Write what waits, in one piece; False if the peer is gone. Not for threads that may be killed: it would be lost."""
        with self.lock:
            data = bytearray()
            while self._waiting:
                data += self._waiting.popleft()
            return self._write(data) if data else self.open

    def flush_late(self) -> None:
        """Writes what nobody else has written within SOON, until the connection ends."""
        while self.open:
            self._wanted.get()
            time.sleep(SOON)
            self._expected = False  # before the look: who waits from now on wakes this thread again
            self.flush()

    def _write(self, data: bytes | bytearray) -> bool:
        with self.lock:
            if not self.open:
                return False
            try:
                self._socket.sendall(data)
                return True
            except OSError:  # gone, or deaf for SEND_TIMEOUT: half a frame may be out, so nothing may follow
                self.close()
                return False

    def received(self) -> Iterator[Message]:
        """Messages as they come, without end. Raises EOFError, OSError, ProtocolError."""
        frames = Frames()
        while data := self._socket.recv(PIECE):
            yield from frames.messages(data)
        raise EOFError

    def let_go(self) -> None:
        """In a forked child: nothing is sent any more, and this copy of the socket is closed."""
        self.lock, self.open = (
            threading.RLock(),
            False,
        )  # a thread that the child does not have may hold the lock
        self._socket.close()

    def close(self) -> None:
        """End it, also for threads that read or write it now."""
        self.open = False
        self._wanted.put(None)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class Listener:
    """Listens from construction on; serves once `serve` is called. `received` runs in the connection's thread."""

    def __init__(self, host: str, secret: str) -> None:
        self._secret = secret
        self._socket = socket.create_server((host, 0))
        self.port: int = self._socket.getsockname()[1]
        self._received: Callable[[Connection, Message], None] = lambda _connection, _message: None
        self._connections: set[Connection] = set()

    @property
    def connected(self) -> bool:
        """Whether any peer that knows the secret is connected."""
        return bool(self._connections)

    def serve(self, received: Callable[[Connection, Message], None]) -> None:
        """Begin to accept."""
        self._received = received
        threading.Thread(target=self._accept, name="accept", daemon=True).start()

    def let_go(self) -> None:
        """In a forked child: give up its copies of all sockets without ending the parent's connections."""
        for connection in list(self._connections):
            connection.let_go()
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:  # out of files, or the peer left while it was accepted: the listener lives on
                if self._socket.fileno() < 0:
                    return
                threading.Event().wait(0.05)
                continue
            threading.Thread(target=self._attend, args=(sock,), name="reader", daemon=True).start()

    def _attend(self, sock: socket.socket) -> None:
        with contextlib.closing(sock), contextlib.suppress(OSError, EOFError, ProtocolError):
            if not _proven(sock, self._secret):
                return
            connection = Connection(sock)
            self._connections.add(connection)
            threading.Thread(target=connection.flush_late, name="late-writer", daemon=True).start()
            try:
                for message in connection.received():
                    self._received(connection, message)
            finally:
                self._connections.discard(connection)
                connection.close()


def _proven(sock: socket.socket, secret: str) -> bool:
    """Challenge the peer; the socket is ready for messages afterwards."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # a warm or hot driver hears nothing for hours: it must notice when the machine of its server is gone
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT, 0))
    nonce = secrets.token_hex(16)
    sock.sendall(frame({"t": "challenge", "version": VERSION, "nonce": nonce}))
    sock.settimeout(PROOF_TIMEOUT)
    answer = recv_frame(sock, _LARGEST_PROOF)
    sock.settimeout(None)
    return answer.get("version") == VERSION and proof_fits(secret, nonce, answer.get("proof"))
