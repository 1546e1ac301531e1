"""What becomes of a process that a job forks: it may compute (multiprocessing does), but nothing of the driver is its own.

A child has copies of the driver's sockets. It must not answer for the job, nor shut a connection to the JVM that the parent
uses, nor keep a connection open whose end tells the owner that the driver is dead. Spark cannot be used in it.

Nor may it hang. Only the thread that forked goes on in it, so whatever lock another thread held at that moment is held for
ever: those that a child takes without its author's knowing are made anew. And the driver's way to take SIGTERM is not the
child's: a pool that ends its workers by that signal would wait for them for ever.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from jobserver.driver import output

_child = False
_parents_streams: list[Any] = []
"""In a child: streams whose locks another thread may have held, kept so that what is in them is never written twice."""


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
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _forget_java_objects()
        _parents_streams.extend((sys.stdout, sys.stderr))
        output.keep_open()
        gateway_client._get_connection = _no_spark_here
        let_go()

        signal.pthread_sigmask(signal.SIG_SETMASK, masks.old)

    masks = threading.local()

    def hold_signals() -> None:
        # what is sent to the child before it has its own way to take signals must wait, not be lost
        masks.old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def let_signals_through() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.old)

    os.register_at_fork(before=hold_signals, after_in_parent=let_signals_through, after_in_child=cut_off)


def _forget_java_objects() -> None:
    """Py4J keeps a list of what to release in the JVM under one lock, which the garbage collector takes at any time."""
    from py4j.finalizer import ThreadSafeFinalizer

    ThreadSafeFinalizer.lock = threading.RLock()
    ThreadSafeFinalizer.finalizers = {}


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
