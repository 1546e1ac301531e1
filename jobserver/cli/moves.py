"""`jobserver switchover | drain | undrain`: planned moves, asked for through any server."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from rich.console import Console

from jobserver.cli.client import Answer, Client
from jobserver.cli.status import cluster_picture
from jobserver.errors import BadRequest, JobServerError, MoveRefused
from jobserver.settings.units import seconds_of

LOOK = 0.5
"""Seconds between two looks at a draining server."""
READY = 120.0
"""Seconds beyond the grace that a move may take: a driver has to start where the context goes."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a move: a sentence for people, a value for programs."""

    sentence: str
    value: Mapping[str, Any]


def switchover(url: str, context: str, to: str | None, grace: str, *, keep_driver: bool) -> Done:
    """Moves a context. Raises BadRequest, MoveRefused, Unavailable."""
    query = {"grace": grace, "keep-driver": str(keep_driver).lower()} | ({"to": to} if to else {})
    answer = Client(url).post(
        f"/contexts/{quote(context, safe='')}/switchover", query=query, timeout=_seconds(grace) + READY
    )
    moved = _good(answer, 200)
    return Done(
        f"Context {moved['context']} went from {moved['from']} to {moved['to']} in {moved['seconds']:.1f} s; "
        f"its epoch is {moved['epoch']}.",
        moved,
    )


def drain(url: str, server: str, grace: str, *, keep_drivers: bool, wait: bool) -> Done:
    """Has a server give its contexts away; with `wait`, returns when it has none. Raises as `switchover`."""
    client = Client(url)
    query = {"grace": grace, "keep-drivers": str(keep_drivers).lower()}
    _good(client.post(f"/cluster/{quote(server, safe='')}/drain", query=query), 202)
    if not wait:
        sentence = f"Server {server} drains; `jobserver status` shows how far it is."
        return Done(sentence, {"server": server, "state": "draining"})
    with Console(stderr=True).status(f"{server} drains") as line:
        while (left := _left(client, server)) != 0:
            line.update(f"{server} drains: {left} contexts left")
            time.sleep(LOOK)
    sentence = f"Server {server} is drained: it owns nothing and is given nothing. Stop it, or undrain it."
    return Done(sentence, {"server": server, "state": "drained"})


def undrain(url: str, server: str) -> Done:
    """Has a server take contexts again. Raises as `switchover`."""
    _good(Client(url).post(f"/cluster/{quote(server, safe='')}/undrain"), 200)
    return Done(f"Server {server} takes contexts again.", {"server": server, "state": "alive"})


def _left(client: Client, server: str) -> int:
    """Contexts that the server still owns. Raises MoveRefused when it drains no more, or is gone."""
    found = [each for each in cluster_picture(client)["servers"] if each["id"] == server]
    if not found:
        raise MoveRefused(f"Server {server} is gone; its contexts are taken over by the others.")
    if found[0]["state"] == "drained":
        return 0
    return max(1, int(found[0]["contexts"]))


def _good(answer: Answer, status: int) -> Any:
    if answer.status == status:
        return answer.body
    body = answer.body
    result = body.get("result", body) if isinstance(body, dict) else body
    message = result.get("message", result) if isinstance(result, dict) else result
    refused: type[JobServerError] = MoveRefused if answer.status == 409 else BadRequest
    raise refused(f"Refused ({answer.status}): {message}")


def _seconds(grace: str) -> float:
    try:
        return seconds_of(grace)
    except ValueError as error:
        raise BadRequest(f"--grace must be {error}, not '{grace}'.") from error
