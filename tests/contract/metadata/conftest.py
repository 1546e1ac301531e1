"""The stores that keep the promises: SQL, and the one in memory that the simulation uses.

Every test has two servers on one store (`store` and `other`); what must hold between servers is tried through both.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobserver.store.metadata import Metadata
from tests.fakes.database import FakeStore
from tests.fakes.metadata import FakeMetadata

Store = Metadata | FakeMetadata


@pytest.fixture(params=["memory", "sqlite", "mariadb"])
def servers(request: pytest.FixtureRequest) -> tuple[Store, Store]:
    """Two servers on one empty store of each kind."""
    servers: tuple[Store, Store] = request.getfixturevalue(f"{request.param}_servers")
    return servers


@pytest.fixture
def store(servers: tuple[Store, Store]) -> Store:
    return servers[0]


@pytest.fixture
def other(servers: tuple[Store, Store]) -> Store:
    return servers[1]


@pytest.fixture
def memory_servers() -> tuple[Store, Store]:
    store = FakeStore()
    return FakeMetadata(store, server="s1"), FakeMetadata(store, server="s2")


@pytest.fixture(scope="session")
async def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables and nothing in them; copied, as migrations take longer than a test."""
    path = tmp_path_factory.mktemp("metadata") / "empty.db"
    metadata = await Metadata.open(f"sqlite:///{path}", timeout=5)
    await metadata.upgrade()
    await metadata.close()
    return path


@pytest.fixture
async def sqlite_servers(empty_file: Path, tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    path = tmp_path / "metadata.db"
    shutil.copy(empty_file, path)
    one = await Metadata.open(f"sqlite:///{path}", timeout=5, synchronous="NORMAL", server="s1")
    two = await Metadata.open(f"sqlite+aiosqlite:///{path}", timeout=5, synchronous="NORMAL", server="s2")
    yield one, two
    await one.close()
    await two.close()


@pytest.fixture
async def mariadb_servers(mariadb_url: str) -> AsyncIterator[tuple[Store, Store]]:
    one = await Metadata.open(mariadb_url, timeout=20, server="s1")
    two = await Metadata.open(mariadb_url, timeout=20, server="s2")
    yield one, two
    await one.close()
    await two.close()
