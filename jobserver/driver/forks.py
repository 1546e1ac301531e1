"""What becomes of a process that a job forks: it may compute (multiprocessing does), but nothing of the driver is its own.

A child has copies of the driver's sockets. It must not answer for the job, nor shut a connection to the JVM that the parent
uses, nor keep a connection open whose end tells the owner that the driver is dead. Spark cannot be used in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NoReturn

_child = False


def in_child() -> bool:
    """Whether this process is not the driver but was forked from it."""
    return _child


def leave() -> NoReturn:
    """End a child, whatever it holds of the driver's; the parent alone reports how the job ended."""
    os._exit(0)


def install(gateway_client: Any, let_go: Callable[[], None]) -> None:
    """From now on a forked child is cut off: from the JVM, and by `let_go` from everything else."""
    _spare_connections_of_lost_threads()

    def cut_off() -> None:
        global _child
        _child = True
        gateway_client._get_connection = _no_spark_here
        let_go()

    os.register_at_fork(after_in_child=cut_off)


def _no_spark_here() -> NoReturn:
    raise RuntimeError("Spark cannot be used in a process that a job has forked")


def _spare_connections_of_lost_threads() -> None:
    """In a child all other threads are gone, and Py4J would shut their connections: for the parent's threads, too."""
    from py4j.clientserver import ThreadLocalConnectionFinalizer

    driver, plain = os.getpid(), ThreadLocalConnectionFinalizer.__del__

    def finalize(finalizer: Any) -> None:
        if os.getpid() == driver:
            plain(finalizer)

    ThreadLocalConnectionFinalizer.__del__ = finalize
