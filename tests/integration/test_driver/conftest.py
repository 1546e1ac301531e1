"""The driver process with real Spark. One driver serves most tests; they differ in job ids and names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from driver_client import DriverProcess, Running, eventually, is_running


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("driver")
    process = DriverProcess(folder, host="localhost", kill_grace=3)
    try:
        assert "error" not in process.facts, process.facts
        yield Running(process, folder)
    finally:
        process.stop()
        assert eventually(lambda: not is_running(process.facts.get("jvm_pid", 0) or 0))
