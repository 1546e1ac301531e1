"""Requests of the protocol: checks their fields and their right, calls the driver, answers once."""

from __future__ import annotations

import base64
import logging
import secrets
import threading
from collections.abc import Callable
from typing import Any

from jobserver.driver.attempts import AttemptRefused
from jobserver.driver.binding import BindingRefused, ContextRef, Role
from jobserver.driver.driver import Driver
from jobserver.driver.keeper import Keeper
from jobserver.driver.kinds import attempt_ref, run_order
from jobserver.driver.listener import Connection
from jobserver.driver.object_orders import ObjectOrderRefused
from jobserver.model import ObjectDeed, ObjectOrder
from jobserver.protocol import Message, ProtocolError, Refused, Request

log = logging.getLogger(__name__)

Answer = dict[str, Any] | None
"""Fields of a good reply; None when the reply was sent already, or none is due."""

_SLOW = frozenset({Request.ACTIVATE, Request.WARM, Request.BIND, Request.FILL, Request.OBJECT, Request.FLUSH})


class NotOwner(Exception):
    """The request is the owner's only."""


class Commands:
    """`received` is called for each message, in its connection's thread. `end` begins the end of the process."""

    def __init__(
        self, driver: Driver, end: Callable[[str], None], jvm_pid: int, jvm_silence: Callable[[], float]
    ) -> None:
        self._driver = driver
        self._end = end
        self._jvm_pid = jvm_pid
        self._jvm_silence = jvm_silence
        self._nonce = ""
        self._looks = Keeper("look", 1)
        self._handlers: dict[str, Callable[[Connection, Message], Answer]] = {
            Request.HELLO: self._hello,
            Request.ADOPT: self._adopt,
            Request.RUN: self._run,
            Request.KILL: self._kill,
            Request.ACK: self._ack,
            Request.OBJECTS: self._objects,
            Request.LOOK: self._look,
            Request.TAILS: self._tails,
            Request.OBJECT: self._object,
            Request.FLUSH: self._flush,
            Request.PING: self._ping,
            Request.SHUTDOWN: self._shutdown,
            Request.ACTIVATE: self._activate,
            Request.WARM: self._warm,
            Request.BIND: self._bind,
            Request.FILL: self._fill,
        }

    def received(self, connection: Connection, message: Message) -> None:
        """Handle one message; slow ones in a thread of their own, so that pings behind them are answered."""
        self._driver.heard(connection)
        if message["t"] in _SLOW:
            work = threading.Thread(
                target=self._handle, args=(connection, message), name=f"request-{message['t']}", daemon=True
            )
            work.start()
        elif message["t"] == Request.LOOK:  # it may wait for the JVM
            self._looks.submit(lambda: self._handle(connection, message))
        else:
            self._handle(connection, message)

    def _handle(self, connection: Connection, message: Message) -> None:
        handler = self._handlers.get(message["t"])
        try:
            if handler is None:
                text = f"this driver knows no request {message['t']!r}"
                self._refuse(connection, message, Refused.UNKNOWN, text)
                return
            answer = handler(connection, message)
        except (AttemptRefused, BindingRefused, ObjectOrderRefused) as refused:
            self._refuse(connection, message, refused.code, str(refused))
        except NotOwner:
            self._refuse(connection, message, Refused.NOT_OWNER, "another connection is the owner's")
        except (ProtocolError, KeyError, TypeError, ValueError) as error:
            self._refuse(connection, message, Refused.FAILED, f"the request cannot be used: {error!r}")
        except Exception as error:
            # a bug here must be an answer, or the owner would wait for ever; it is logged with its stack
            log.exception("request %s failed", message["t"])
            self._refuse(connection, message, Refused.FAILED, f"the driver failed: {error!r}")
        else:
            if answer is not None:
                _reply(connection, message, answer)

    def _refuse(self, connection: Connection, message: Message, code: Refused, text: str) -> None:
        connection.send(
            {"t": "reply", "n": message.get("n"), "ok": False, "refused": code.value, "message": text}
        )

    def _facts(self) -> dict[str, Any]:
        spark = self._driver.spark
        return {"application_id": spark.application_id, "ui_url": spark.ui_url, "jvm_pid": self._jvm_pid}

    def _owner_only(self, connection: Connection) -> None:
        if not self._driver.is_owner(connection):
            raise NotOwner

    def _hello(self, connection: Connection, message: Message) -> Answer:
        driver, self._nonce = self._driver, secrets.token_hex(16)
        context = driver.binding.context
        return {
            "driver_id": driver.config.driver_id,
            "nonce": self._nonce,
            "context_id": None if context is None else context.id,
            "role": driver.binding.role.value,
            "epoch": driver.binding.epoch,
            "has_owner": driver.has_owner,
            **self._facts(),
        }

    def _adopt(self, connection: Connection, message: Message) -> Answer:
        driver = self._driver

        def reply() -> None:
            _reply(connection, message, {"jobs": driver.attempts.listing()})

        epoch, token = int(message["epoch"]), str(message["token"])
        driver.adopt(connection, epoch, token, str(message["nonce"]), self._nonce, reply)
        self._nonce = ""  # used: a repetition of this adopt is stale
        return None

    def _activate(self, connection: Connection, message: Message) -> Answer:
        def reply() -> None:
            _reply(connection, message, self._facts())

        context, epoch, token = _context(message), int(message["epoch"]), str(message["token"])
        self._driver.activate(connection, context, epoch, token, message.get("base"), reply)
        return None

    def _warm(self, connection: Connection, message: Message) -> Answer:
        return {"warm": self._driver.rehearsal.wait_warm()}

    def _bind(self, connection: Connection, message: Message) -> Answer:
        self._driver.bind(_context(message))
        return {**self._facts(), "rehearsing": self._driver.rehearsal.going_on}

    def _fill(self, connection: Connection, message: Message) -> Answer:
        self._driver.fill()
        return {}

    def _run(self, connection: Connection, message: Message) -> Answer:
        """An attempt that began under an owner is in the list that the next owner's `adopt` is answered."""
        order = run_order(message)
        with self._driver.commanded_by(connection) as allowed:
            if not allowed:
                raise NotOwner
            self._driver.runner.start(order)
        if order.awaited:
            return {}
        connection.send_soon(_good(message, {}))
        return None

    def _kill(self, connection: Connection, message: Message) -> Answer:
        self._owner_only(connection)
        return {"running": self._driver.runner.kill(attempt_ref(message))}

    def _ack(self, connection: Connection, message: Message) -> Answer:
        if self._driver.is_owner(connection):  # no reply is due, so a stranger's is passed over
            self._driver.acknowledged(attempt_ref(message), ended=message.get("ended", True))
        return None

    def _look(self, connection: Connection, message: Message) -> Answer:
        self._owner_only(connection)
        return {"progress": self._driver.look(attempt_ref(message))}

    def _tails(self, connection: Connection, message: Message) -> Answer:
        self._owner_only(connection)
        tails = self._driver.logs.tails(str(message["job_id"]))
        return {
            "tails": [
                {"attempt": tail.attempt, "offset": tail.offset, "data": base64.b64encode(tail.data).decode()}
                for tail in tails
            ]
        }

    def _objects(self, connection: Connection, message: Message) -> Answer:
        self._owner_only(connection)
        return {"objects": self._driver.objects()}

    def _object(self, connection: Connection, message: Message) -> Answer:
        self._owner_only(connection)
        order = ObjectOrder(
            str(message["name"]),
            ObjectDeed(message["do"]),
            float(message["seconds"]),
            str(message.get("version") or ""),
        )
        return {"object": self._driver.object(order)}

    def _flush(self, connection: Connection, message: Message) -> Answer:
        self._owner_only(connection)
        return {"sealed": self._driver.flush(float(message["seconds"]))}

    def _ping(self, connection: Connection, message: Message) -> Answer:
        return {
            "epoch": self._driver.binding.epoch,
            "owner_lost": self._driver.owner_lost,
            "jvm_silence": self._jvm_silence(),
            "running": len(self._driver.runner.running),
            "abandoned": self._driver.killer.abandoned,
            "standby": self._driver.standby_progress(),
            "store_trouble": self._driver.store_trouble.plain(),
            "data": self._driver.data(),
        }

    def _shutdown(self, connection: Connection, message: Message) -> Answer:
        active = self._driver.binding.role is Role.ACTIVE
        if active and self._driver.has_owner and not self._driver.is_owner(connection):
            raise NotOwner
        _reply(connection, message, {})
        self._end(str(message.get("reason") or "asked to shut down"))
        return None


def _reply(connection: Connection, message: Message, fields: dict[str, Any]) -> None:
    connection.send(_good(message, fields))


def _good(message: Message, fields: dict[str, Any]) -> Message:
    return {"t": "reply", "n": message.get("n"), "ok": True, **fields}


def _context(message: Message) -> ContextRef:
    plain = message["context"]
    return ContextRef(str(plain["id"]), str(plain["name"]), dict(plain.get("settings") or {}))
