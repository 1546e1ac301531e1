"""The message protocol between the owner of a context and its driver: framing, proof of the secret, message names.

One TCP connection; each frame is a 4-byte big-endian length and a JSON object in UTF-8.

1. The driver opens: ``{"t": "challenge", "version": 1, "nonce": "<hex>"}``.
2. The other side answers: ``{"t": "proof", "version": 1, "proof": HMAC-SHA256(secret, nonce)}`` and the driver
   closes the connection if it does not fit.
3. Requests carry a number: ``{"t": <request>, "n": 7, ...}``; each is answered once, in any order, by
   ``{"t": "reply", "n": 7, "ok": true, ...}`` or ``{"t": "reply", "n": 7, "ok": false, "refused": "<code>", "message": "..."}``.
4. Events come from the driver unasked, on the connection that adopted or activated it:
   ``{"t": "event", "e": <event>, ...}``.

Requests (`Request`) and what they carry:

=========  =====================================================================================================
hello      nothing; names no epoch. Answer: ``driver_id``, ``nonce`` (for adopt), ``context_id`` or null,
           ``has_owner`` (another connection that owns it is open and was heard within 3 s),
           ``jvm_pid``, ``application_id``, ``ui_url``
adopt      ``epoch``, ``token``, ``nonce`` of the last hello. Refused: ``stale-epoch`` (not above the one it has),
           ``stale-nonce``, ``unbound``. Answer: ``jobs``: list of ``{"job_id", "attempt", "outcome": null | {...}}``:
           the running ones and those that ended and were not acknowledged. The older connection is closed.
activate   ``context`` (``id``, ``name``, ``settings``), ``epoch``, ``token``, ``base`` (name of the pinned manifest),
           ``cluster`` and ``checkpoint_root``; binds an unbound driver and makes this connection its owner's.
           Answer: ``application_id``, ``ui_url``, ``jvm_pid``. Refused: ``bound``, ``stale-epoch``, ``failed``
warm       nothing. Answer, once its warm-up is over: ``warm``; false where an activation ended that before, and in
           a driver that is not to wait
bind       as activate, without epoch, token: makes an unbound driver a hot standby of the context (it follows manifests)
run        ``job_id``, ``attempt``, ``main_class``, ``binaries`` (``[{"name","type","digest","path"}]``, paths readable by
           the driver, null: read it from the checkpoint store by the digest), ``config`` (JSON text), ``pool`` (of
           `model.Pool`), ``sql`` (null, or the fields of `model.SqlQuery`; then there are no binaries),
           ``result_format`` (of `model.ResultFormat`, for a result that is a DataFrame), ``awaited``: false where nobody
           waits for ``accepted``; then it and the answer may come some milliseconds late, so that of a quick job they
           come together with ``finished``. Answer: at once. Running the same (job_id, attempt) twice is refused
           ``duplicate``; a lower attempt than one seen is ``stale-attempt``
kill       ``job_id``, ``attempt``; answers at once, the outcome ``killed`` follows as an event
ack        ``job_id``, ``attempt``, ``ended``: the outcome is committed, forget it; and what the job has saved, if that has
           ended (true where the field is absent: owners of older releases). No reply is sent
look       ``job_id``, ``attempt``. Answer: ``progress``: fields of `progress.JobProgress`, null when it does not run
tails      ``job_id``. Answer: ``tails``: list of ``{"attempt","offset","data"}`` (base64): output not in the store yet
objects    nothing. Answer: ``objects``: list of ``{"name","kind","version",...}``
object     ``name``, ``do`` (a value of `ObjectDeed`), ``seconds`` (how long a refresh is waited for), ``version`` (to revert
           to). Answer: ``object``, or null once it is destroyed. Refused: ``no-object``, ``cannot``
flush      ``seconds``: wait so long until every update is sealed. Answer: ``sealed``: whether all are
ping       nothing. Answer: ``epoch`` it is bound to, ``owner_lost`` (it had an owner, and that connection has ended),
           ``jvm_silence`` in seconds, ``running`` jobs, ``abandoned`` ones, ``store_trouble``: how often
           the checkpoint store was in which `checkpoint.errors.Trouble`
shutdown   ``reason``; the driver answers, ends its JVM and itself
=========  =====================================================================================================

Events (`Event`): ``accepted`` (job_id, attempt: code loaded and `validate` passed), ``finished`` (job_id, attempt,
``kind`` of `OutcomeKind`, ``result`` JSON text or null, ``error`` or null), ``progress`` (job_id, attempt, fraction or null,
message), ``superseded`` (epoch: a higher marker was seen, nothing is acknowledged any more).

Knows nothing of sockets beyond `read_frame`, `recv_frame` and `frame`; both the server (asyncio) and the driver (threads) use it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import signal
import socket
import struct
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from jobserver.model import AttemptOutcome, ErrorInfo, OutcomeKind

VERSION = 1
MAX_FRAME = 256 * 1024 * 1024
"""Largest frame in bytes; a longer one is a broken peer."""

HURRY = signal.SIGURG
"""The signal by which a server says, where there is no connection yet, that a context waits for a driver that it has started
ahead of need. Whoever does not know it ignores it."""

Message = dict[str, Any]
_LENGTH = struct.Struct(">I")
PIECE = 64 * 1024
"""Bytes that are read at once: most pieces hold whole messages."""


class Request(StrEnum):
    """Names of the requests an owner (or would-be owner) sends."""

    HELLO = "hello"
    ADOPT = "adopt"
    ACTIVATE = "activate"
    WARM = "warm"
    BIND = "bind"
    FILL = "fill"
    RUN = "run"
    KILL = "kill"
    ACK = "ack"
    OBJECTS = "objects"
    LOOK = "look"
    TAILS = "tails"
    OBJECT = "object"
    FLUSH = "flush"
    PING = "ping"
    SHUTDOWN = "shutdown"


class Event(StrEnum):
    """Names of the events a driver sends."""

    ACCEPTED = "accepted"
    FINISHED = "finished"
    PROGRESS = "progress"
    SUPERSEDED = "superseded"


class Refused(StrEnum):
    """Codes of refusals."""

    STALE_EPOCH = "stale-epoch"
    STALE_NONCE = "stale-nonce"
    STALE_ATTEMPT = "stale-attempt"
    DUPLICATE = "duplicate"
    UNBOUND = "unbound"
    BOUND = "bound"
    NOT_OWNER = "not-owner"
    FAILED = "failed"
    NO_OBJECT = "no-object"
    CANNOT = "cannot"
    UNKNOWN = "unknown-request"


class ProtocolError(Exception):
    """The peer sent something that is no frame of this protocol."""


_encode = json.JSONEncoder(separators=(",", ":")).encode
"""One encoder for all messages: `json.dumps` makes a new one for each that is not written as by default."""


def frame(message: Message) -> bytes:
    """The bytes of one message, length first. ASCII-escaped, so that lone surrogates of job results survive."""
    body = _encode(message).encode()
    if len(body) > MAX_FRAME:
        raise ProtocolError(f"a message of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes | bytearray) -> Message:
    """The message in a frame's body. Raises ProtocolError."""
    try:
        message = json.loads(body.decode())
    except ValueError as error:
        raise ProtocolError(f"a frame holds no JSON: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("t"), str):
        raise ProtocolError("a frame holds no object with a type 't'")
    return message


def body_length(header: bytes | bytearray) -> int:
    """The length a frame's header announces. Raises ProtocolError when over MAX_FRAME."""
    (length,) = _LENGTH.unpack(header)
    if length > MAX_FRAME:
        raise ProtocolError(f"a frame of {length} bytes is announced; the limit is {MAX_FRAME}")
    return int(length)


class Frames:
    """Bytes as they arrive, in pieces of any size, to whole messages: many may come in one piece, one in many."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def messages(self, data: bytes) -> Iterator[Message]:
        """Those that are whole now; to be taken before the next piece is given. Raises ProtocolError."""
        rest = self._rest
        rest += data
        while len(rest) >= _LENGTH.size:
            end = _LENGTH.size + body_length(rest[: _LENGTH.size])
            if len(rest) < end:
                return
            body = rest[_LENGTH.size : end]
            del rest[:end]
            yield decode(body)


async def read_frame(reader: asyncio.StreamReader) -> Message:
    """The next message. Raises asyncio.IncompleteReadError at EOF and ProtocolError."""
    header = await reader.readexactly(_LENGTH.size)
    return decode(await reader.readexactly(body_length(header)))


def recv_frame(connection: socket.socket, limit: int = MAX_FRAME) -> Message:
    """The next message from a blocking socket, of at most `limit` bytes. Raises EOFError at its end and ProtocolError."""
    length = body_length(_recv_exactly(connection, _LENGTH.size))
    if length > limit:
        raise ProtocolError(f"a frame of {length} bytes is announced; the limit is {limit}")
    return decode(_recv_exactly(connection, length))


def _recv_exactly(connection: socket.socket, count: int) -> bytes:
    buffer = bytearray(count)
    view = memoryview(buffer)
    got = 0
    while got < count:
        size = connection.recv_into(view[got:])
        if size == 0:
            raise EOFError
        got += size
    return bytes(buffer)


def proof_of(secret: str, nonce: str) -> str:
    """What a peer that knows the secret answers to a challenge."""
    return hmac.new(secret.encode(), nonce.encode(), hashlib.sha256).hexdigest()


def proof_fits(secret: str, nonce: str, proof: object) -> bool:
    """Whether `proof` was made with the secret; compared in constant time."""
    return isinstance(proof, str) and hmac.compare_digest(proof_of(secret, nonce), proof)


def outcome_message(outcome: AttemptOutcome) -> Message:
    """The fields of an outcome, as `finished` events and adopt's answer carry them."""
    error = outcome.error
    return {
        "job_id": outcome.job_id,
        "attempt": outcome.attempt,
        "kind": outcome.kind.value,
        "result": outcome.result,
        "error": None
        if error is None
        else {"message": error.message, "error_class": error.error_class, "stack": error.stack},
    }


def outcome_of(message: Message) -> AttemptOutcome:
    """The outcome in a message made by `outcome_message`. Raises ProtocolError."""
    try:
        error = message["error"]
        return AttemptOutcome(
            job_id=message["job_id"],
            attempt=message["attempt"],
            kind=OutcomeKind(message["kind"]),
            result=message["result"],
            error=None if error is None else ErrorInfo(**error),
        )
    except (KeyError, TypeError, ValueError) as broken:
        raise ProtocolError(f"an outcome lacks or misnames a field: {broken}") from broken
