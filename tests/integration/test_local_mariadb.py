"""The MariaDB that comes from its jar, beside others of its kind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jobserver.local.mariadb import MariaDbServer


def test_several_can_be_installed_at_once(mariadb_base: Path, tmp_path: Path) -> None:
    servers = [MariaDbServer(tmp_path / str(number), 1, mariadb_base) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(MariaDbServer.install, servers))
    assert all((server.directory / "data" / "mysql").is_dir() for server in servers)
