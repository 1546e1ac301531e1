"""What a real server says of a checkpoint store that it can list and not write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from checkpoint import layout
from tests.integration.forked_servers import ForkedServers, ask, until


def test_a_server_says_by_itself_that_its_checkpoint_store_takes_no_data_and_serves_on(
    zookeeper: Any, tmp_path: Path
) -> None:
    store = tmp_path / "checkpoints" / "forked"
    store.mkdir(parents=True)
    (store / layout.PROBES).write_text("no folder can be made here")
    servers = ForkedServers(tmp_path, zookeeper.address)
    try:
        servers.start("s1")
        url = servers.urls["s1"]
        health = until(lambda: (ask(url, "GET", "/healthz") or (0, {}))[1].get("degraded"), "it says so")
        (why,) = health
        assert "takes no data" in why
        assert ask(url, "GET", "/jobs") == (200, [])
    finally:
        servers.close()
