"""What tests of several layers share: a MariaDB, started once and only when a test asks for it.

It comes from a jar; where JOBSERVER_MARIADB_IMAGE names an image and a container engine answers, the tests that take
`databases` use a container of that image instead. The last lines of a run say which it was, and why.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobserver.local.java import find_java
from jobserver.local.layout import archive_cache
from jobserver.local.mariadb import MariaDbServer, unpacked
from jobserver.local.ports import free_ports
from tests.mariadb import Databases, engine_trouble, in_container, of_server

IMAGE = "JOBSERVER_MARIADB_IMAGE"
BUSY = frozenset(
    f"test_{name}"
    for name in (
        "deaths_in_takeovers_on_spark",
        "failover",
        "faults",
        "surviving_jobs",
        "up",
        "up_mysql",
    )
)
"""Files, and folders of files, that start driver after driver, or have clients at work all the time: two of them at once would
starve each other."""

_used: list[str] = []


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole files to each process of a parallel run, and to one of them all in `BUSY`, one after the other.

    Files in a folder that is named as a test is share what it has started: they go to one process, as a file does.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.partition("::")[0])
            unit = file.parent if file.parent.name.startswith("test_") else file
            return "busy" if unit.stem in BUSY else str(unit)

    return ByFile(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of a parallel run hands over what its databases came from."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[IMAGE] = _used


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What such a process has handed over; nothing if it died."""
    _used.extend(getattr(node, "workeroutput", {}).get(IMAGE, ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the databases of this run came from, if it had any."""
    for line in sorted(set(_used)):
        terminalreporter.write_line(line)


def origin() -> tuple[str | None, str]:
    """The image of the container that databases come from, None for the jar; and why, in one line."""
    image = os.environ.get(IMAGE)
    if image is None:
        return None, f"MariaDB: from its jar, as {IMAGE} names no image of a container"
    trouble = engine_trouble()
    if trouble is not None:
        return None, f"MariaDB: from its jar: {trouble}"
    return image, f"MariaDB: a container of {image}"


@pytest.fixture(scope="session")
def mariadb_base() -> Path:
    """The unpacked programs of MariaDB."""
    return unpacked(find_java().command, archive_cache(os.environ) / "mariadb")


@pytest.fixture(scope="session")
def mariadb(mariadb_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDbServer]:
    """One server for all tests that leave it as it is."""
    server = MariaDbServer(tmp_path_factory.mktemp("mariadb"), free_ports(1)[0], mariadb_base)
    server.install()
    server.launch()
    try:
        server.wait_serving()
        yield server
    finally:
        server.stop(grace=0)


@pytest.fixture
def own_mariadb(mariadb_base: Path, tmp_path: Path) -> Iterator[MariaDbServer]:
    """A server that a test may stop, start again and set at will."""
    server = MariaDbServer(tmp_path / "mariadb", free_ports(1)[0], mariadb_base)
    server.install()
    server.launch()
    try:
        server.wait_serving()
        yield server
    finally:
        server.stop(grace=0)


@pytest.fixture(scope="session")
def databases(request: pytest.FixtureRequest) -> Iterator[Databases]:
    """Databases made on demand: from the jar, or of the container that JOBSERVER_MARIADB_IMAGE names."""
    image, why = origin()
    _used.append(why)
    if image is None:
        yield of_server(request.getfixturevalue("mariadb"))
    else:
        with in_container(image) as container:
            yield container


@pytest.fixture(scope="session")
async def kept_database(databases: Databases) -> str:
    """The address of a database with its tables, emptied by those who use it."""
    from jobserver.store.metadata import Metadata

    url = databases.new()
    metadata = await Metadata.open(url, timeout=30)
    await metadata.upgrade()
    await metadata.close()
    return url


@pytest.fixture
async def mariadb_url(databases: Databases, kept_database: str) -> str:
    """The address of a database whose tables are all empty."""
    databases.empty(kept_database)
    return kept_database
