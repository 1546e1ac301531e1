"""One POST /jobs to a Submission (rest_contract 5.5). Pure: query, parsed body and key in, value or refusal out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobserver.api.bodies import refuse
from jobserver.api.code_names import check_uploaded, name_list
from jobserver.api.limits import ApiLimits
from jobserver.api.names import check_text
from jobserver.api.parameters import Query, bounded, flag, in_range, integer
from jobserver.errors import BadRequest
from jobserver.model import OnFailover
from jobserver.service import Submission

_MAX_CLASS = 1_000
_ON_FAILOVER = frozenset(choice.value for choice in OnFailover)
_MAX_PRIORITY = 1_000_000
_NOT_SERVED = {
    "callbackUrl": "callbackUrl is not supported: ask GET /jobs/<id>, or wait with sync=true",
    "spark.proxy.user": "spark.proxy.user is not supported: jobs run as the user of the server",
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """How the client waits: for acceptance or for the end, and for how many seconds."""

    sync: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Asker:
    """Who submits, and the key under which a repetition is recognised."""

    principal: str
    idempotency_key: str | None = None
    request_digest: str | None = None


def waiting(query: Query, limits: ApiLimits) -> Waiting:
    """`sync` and `timeout`; these are read before the body, like every typed parameter."""
    sync = flag(query, "sync", default=False)
    seconds = integer(query, "timeout")
    if seconds is None:
        return Waiting(sync, limits.default_wait)
    if seconds < 1:
        raise BadRequest(f"timeout must be 1 second or more, not {seconds}")
    return Waiting(sync, min(float(seconds), limits.max_wait))


def submission(
    query: Query, config: Mapping[str, Any], wait: Waiting, asker: Asker, limits: ApiLimits
) -> Submission:
    """The whole of a submission. Raises BadConfig, BadRequest and the refusals of 1.5."""
    _refuse_unserved(query)
    main_class, binaries = _code(query, config, limits)
    extras = _block(config)
    return Submission(
        main_class=check_text("the main class", main_class, _MAX_CLASS),
        binaries=binaries,
        config=config,
        context=query.get("context") or None,
        sync=wait.sync,
        wait_seconds=wait.seconds,
        max_attempts=_attempts(query, extras, limits),
        on_failover=_on_failover(query, extras),
        priority=_priority(query, extras),
        principal=asker.principal,
        idempotency_key=asker.idempotency_key,
        request_digest=asker.request_digest,
    )


def request_digest(method: str, path: str, query: str, body: bytes) -> str:
    """SHA-256 (hex) of what makes a request the same request: each part is preceded by its length."""
    digest = hashlib.sha256()
    for part in (method.encode(), path.encode("utf-8", "replace"), query.encode("utf-8", "replace"), body):
        digest.update(f"{len(part)}:".encode())
        digest.update(part)
    return digest.hexdigest()


def _refuse_unserved(query: Query) -> None:
    """Parameters of existing servers that would silently do nothing here."""
    for name, sentence in _NOT_SERVED.items():
        if query.get(name):
            raise BadRequest(sentence)


def _code(query: Query, config: Mapping[str, Any], limits: ApiLimits) -> tuple[str, tuple[str, ...]]:
    """Main class and names to load: the legacy pair wins over `cp`, the query over the body."""
    app = query.get("appName")
    if app:
        main_class = query.get("classPath")
        if not main_class:
            refuse("classPath parameter is missing!")
        names = (*name_list("dependent-jar-uris", config.get("dependent-jar-uris")), app)
        return main_class, check_uploaded(names, limits.max_binaries)
    names = name_list("cp", query.get("cp")) or name_list("cp", config.get("cp"))
    if not names:
        refuse("To start the job appName or cp parameters should be configured!")
    main_class = query.get("mainClass") or config.get("mainClass")
    if not main_class:
        refuse("mainClass parameter is missing!")
    if not isinstance(main_class, str):
        refuse("mainClass must be a text")
    return main_class, check_uploaded(names, limits.max_binaries)


def _block(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Our own settings of a job, in the block `jobserver` of its configuration."""
    block = config.get("jobserver")
    if block is None:
        return {}
    if not isinstance(block, dict):
        refuse("jobserver must be an object")
    return block


def _attempts(query: Query, extras: Mapping[str, Any], limits: ApiLimits) -> int:
    given = bounded(query, "maxAttempts", 1, limits.max_attempts)
    return given if given is not None else _whole(extras, "max-attempts", 3, 1, limits.max_attempts)


def _priority(query: Query, extras: Mapping[str, Any]) -> int:
    given = bounded(query, "priority", -_MAX_PRIORITY, _MAX_PRIORITY)
    return given if given is not None else _whole(extras, "priority", 0, -_MAX_PRIORITY, _MAX_PRIORITY)


def _whole(extras: Mapping[str, Any], key: str, default: int, lowest: int, highest: int) -> int:
    value = extras.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(f"jobserver.{key} must be a whole number")
    return in_range(f"jobserver.{key}", value, lowest, highest)


def _on_failover(query: Query, extras: Mapping[str, Any]) -> str:
    given = query.get("onFailover") or extras.get("on-failover") or OnFailover.RERUN.value
    if not isinstance(given, str) or given not in _ON_FAILOVER:
        raise BadRequest("onFailover must be rerun or fail")
    return given
