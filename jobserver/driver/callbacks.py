"""Python that Spark calls from the JVM works for the job that gave it: `foreachBatch`, listeners of streaming queries.

Py4j serves such calls in threads of its own. Here they are given the attempt that handed the object over, for the time of
the call: its output, its named objects, and its kill. The server for these calls is nobody's, so it outlives the job for
which it was started.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from pyspark import java_gateway

from jobserver.driver.jobthreads import Killed, RunningAttempt, current, set_entered, work_done, work_for
from jobserver.driver.keeper import Keeper
from jobserver.driver.spark import Spark, jvm_side

_OF_A_QUERY = "stream execution thread"
"""How the name of a thread begins that Spark has for one streaming query alone."""


def install(spark: Spark) -> None:
    """For all objects that are handed to the JVM from now on."""
    _start_server_for_nobody()
    _give_calls_to_attempts(spark)


def _start_server_for_nobody() -> None:
    starter, plain = Keeper("callbacks", 1), java_gateway.ensure_callback_server_started

    def ensure_callback_server_started(gateway: Any) -> None:
        starter.submit(lambda: plain(gateway)).result()

    java_gateway.ensure_callback_server_started = ensure_callback_server_started


def _give_calls_to_attempts(spark: Spark) -> None:
    handed = spark.context._gateway.gateway_property.pool  # py4j's: what the JVM may call, by id
    plain = handed.put

    def put(target: Any, *args: Any, **kwargs: Any) -> Any:
        attempt = current()
        return plain(target if attempt is None else _OfAttempt(target, attempt, spark), *args, **kwargs)

    handed.put = put


class _OfAttempt:
    """What an attempt handed to the JVM: calls of its methods are the attempt's work."""

    def __init__(self, target: Any, attempt: RunningAttempt, spark: Spark) -> None:
        self._target = target
        self._attempt = attempt
        self._spark = spark

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._called(lambda: found(*args, **kwargs))

    def _called(self, call: Callable[[], Any]) -> Any:
        """In py4j's thread, or within a call of Spark's in the attempt's own. Raises RuntimeError once it was killed."""
        attempt = self._attempt
        if attempt.killing:
            raise RuntimeError("the job that gave Spark this function was killed")
        if attempt.ended or current() is attempt:  # of a query that outlives its job, it is nobody's
            return call()
        ident = threading.get_ident()
        java_thread, connection = jvm_side(self._spark)
        if java_thread.getName().startswith(_OF_A_QUERY):
            group = self._spark.context.getLocalProperty("spark.jobGroup.id")
            if group not in attempt.groups:  # a kill must find what the function runs
                attempt.groups.append(group)
        else:
            java_thread = None  # such as that of Spark's listeners, which all jobs share: interrupted, it would stop Spark
        attempt.jvm_threads[ident] = (java_thread, connection)
        try:
            work_for(attempt)
            set_entered(attempt)  # Spark's thread keeps the properties that Spark gave it
            return None if attempt.killing else call()
        finally:
            work_done()
            if attempt.killing:
                _leave_for_good(connection)
            attempt.jvm_threads.pop(ident, None)


def _leave_for_good(connection: Any) -> None:
    """A `Killed` may still be on its way to this thread: it serves nobody any more, and the JVM learns that at once."""
    with contextlib.suppress(OSError, AttributeError):
        connection.socket.shutdown(socket.SHUT_RDWR)
    raise Killed
