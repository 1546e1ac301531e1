"""`jobserver status`: the cluster as any of its servers sees it (GET /cluster)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from jobserver.cli.client import Client
from jobserver.errors import Unavailable

Picture = Mapping[str, Any]


def show(url: str, *, as_json: bool) -> None:
    """Prints the picture. Raises Unavailable."""
    picture = cluster_picture(Client(url))
    if as_json:
        print(json.dumps(picture, indent=2))
        return
    console = Console()
    console.print(servers_table(picture))
    console.print(contexts_table(picture))


def cluster_picture(client: Client) -> dict[str, Any]:
    """The answer of GET /cluster. Raises Unavailable."""
    answer = client.get("/cluster")
    if answer.status != 200 or not isinstance(answer.body, dict):
        raise Unavailable(f"{client.url} answers {answer.status} to GET /cluster: {answer.body}")
    return answer.body


def servers_table(picture: Picture) -> Table:
    """One row for each server."""
    table = Table("server", "url", "pid", "state", "leader", "warm drivers", "hot standbys", title="Servers")
    for server in picture["servers"]:
        leader = "yes" if server["id"] == picture["leader"] else ""
        table.add_row(
            server["id"],
            server["url"],
            _text(server["pid"]),
            _text(server["state"]),
            leader,
            _text(server.get("warm_drivers")),
            _text(server.get("hot_standbys")),
        )
    return table


def contexts_table(picture: Picture) -> Table:
    """One row for each context."""
    table = Table(
        "context", "state", "epoch", "owner", "driver", "standbys", "last failover", title="Contexts"
    )
    for context in picture["contexts"]:
        table.add_row(
            context["name"],
            context["state"],
            _text(context["epoch"]),
            _text(context["owner"]),
            driver_text(context["driver"]),
            ", ".join(f"{each['server']} ({each['mode']})" for each in context["standbys"]) or "-",
            failover_text(context["last_failover"]),
        )
    return table


def driver_text(driver: Picture | None) -> str:
    """`host pid 12 (JVM 13)`, or a dash."""
    if not driver:
        return "-"
    return f"{driver['host']} pid {driver['pid']} (JVM {_text(driver['jvm_pid'])})"


def failover_text(failover: Picture | None) -> str:
    """`adopted in 0.21 s, 2026-01-31T12:00:00Z`, or a dash."""
    if not failover:
        return "-"
    return f"{failover['kind']} in {failover['seconds']:.2f} s, {failover['at']}"


def _text(value: object) -> str:
    return "-" if value is None else str(value)
