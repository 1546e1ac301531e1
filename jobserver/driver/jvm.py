"""Starts the driver's JVM, and ties its life to this process in both directions."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobserver.driver.optimizer import Optimizer

START_LIMIT = 120.0
"""Seconds after which a JVM that has not opened its gateway counts as failed."""

_POLL = 0.005
_LOOK = 0.05
"""Seconds between two looks for the compiler's threads."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class JvmFailed(Exception):
    """The JVM did not start; the text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Jvm:
    """A started JVM. Its stdin is a pipe that we hold: it ends when we do."""

    process: subprocess.Popen[bytes]
    info_file: Path
    log: Path
    optimizer: Optimizer

    def gateway(self) -> tuple[int, str]:
        """Port and secret of its Py4J gateway, once it is open. Raises JvmFailed."""
        limit = time.monotonic() + START_LIMIT
        look = 0.0
        while not self.info_file.exists():
            if time.monotonic() >= look:
                self.optimizer.look()
                look = time.monotonic() + _LOOK
            if self.process.poll() is not None:
                raise JvmFailed(f"the JVM ended with {self.process.returncode}: {_end_of(self.log)}")
            if time.monotonic() > limit:
                raise JvmFailed(f"the JVM opened no gateway within {START_LIMIT:g} s: {_end_of(self.log)}")
            time.sleep(_POLL)
        data = self.info_file.read_bytes()  # SparkSubmit moves it here when it is complete
        self.info_file.unlink()
        port, length = struct.unpack_from(">ii", data)
        return port, data[8 : 8 + length].decode()

    def watch(self, ended: Callable[[int], None]) -> None:
        """Call `ended` with the exit code, from a thread of its own, when the JVM is gone."""
        threading.Thread(target=lambda: ended(self.process.wait()), name="jvm-watch", daemon=True).start()

    def end(self, patience: float) -> None:
        """Let it end by closing its stdin; kill it after `patience` seconds."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_jvm(command: Sequence[str], env: dict[str, str], folder: Path, *, optimizer_yields: bool) -> Jvm:
    """Start it with its output in `folder`/jvm.log. The kernel kills it if this process dies without ending it."""
    info_file = folder / f"gateway-{os.getpid()}"
    log = folder / "jvm.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            cwd=folder,
            env={**env, "_PYSPARK_DRIVER_CONN_INFO_PATH": str(info_file)},
            preexec_fn=_die_with_parent,
        )
    return Jvm(process, info_file, log, Optimizer(process.pid, yields=optimizer_yields))


def _die_with_parent() -> None:
    """Runs in the child before exec: also a frozen JVM, deaf to its closed stdin, must not survive us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_of(log: Path) -> str:
    with contextlib.suppress(OSError):
        return log.read_text(errors="replace")[-2000:].strip()
    return "(no log)"
