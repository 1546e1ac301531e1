"""How a driver starts and ends by itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from driver_client import DriverProcess


def test_a_driver_that_cannot_start_says_why(tmp_path: Path) -> None:
    process = DriverProcess(tmp_path, java={"executable": "/nowhere/java"})
    assert process.facts == {"error": "there is no Java at '/nowhere/java'"}
    assert process.process.wait(10) == 1


def test_a_driver_ends_at_once_when_its_jvm_does_and_says_so_by_its_code(tmp_path: Path) -> None:
    process = DriverProcess(tmp_path)
    try:
        os.kill(process.facts["jvm_pid"], signal.SIGKILL)
        assert process.process.wait(5) == 70
    finally:
        process.stop()
