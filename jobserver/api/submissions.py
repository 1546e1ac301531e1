"""One POST /jobs to a Submission (rest_contract 5.5). Pure: query, parsed body and key in, value or refusal out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jobserver.api.bodies import refuse
from jobserver.api.code_names import check_names, name_list
from jobserver.api.limits import ApiLimits
from jobserver.api.names import check_text
from jobserver.api.parameters import Flag, Query, Whole, Word, in_range
from jobserver.api.statements import LIMIT, QUERY, SQL, SQL_CLASS, sql_query
from jobserver.callback_rules import check_url
from jobserver.contexts.launch_spec import PROXY_USER
from jobserver.errors import BadRequest
from jobserver.model import OnFailover, Pool, ResultFormat
from jobserver.proxy_users import ProxyUsers, asked_in, proxy_user, stored_name
from jobserver.service import Submission, context_settings
from jobserver.users import Caller

_MAX_CLASS = 255
_MAX_PRIORITY = 1_000_000

APP_NAME = Word("appName", "Upload to run; the older pair with classPath.")
CLASS_PATH = Word("classPath", "Main class that goes with appName.")
CP = Word(
    "cp",
    "Uploads, or addresses (http, ftp, file), to load, separated by commas. In the body: a list or such a text.",
)
MAIN_CLASS = Word("mainClass", "`package.module.Class` or `package.module:function` in one of them.")
CONTEXT = Word("context", "Name of a running context; without it the job gets one of its own.")
SYNC = Flag("sync", "Answer with the job's value instead of at its acceptance.")
TIMEOUT = Whole("timeout", "Seconds to wait for acceptance or value; the job goes on after it.", lowest=1)
ATTEMPTS = Whole("maxAttempts", "How often the job may be started, counting after failovers.", 1, 100)
ON_FAILOVER = Word("onFailover", "What becomes of the job when its driver dies.", tuple(OnFailover))
PRIORITY = Whole("priority", "Among waiting jobs the highest starts first.", -_MAX_PRIORITY, _MAX_PRIORITY)
POOL = Word("pool", "Fair pool of the job's Spark work; interactive if absent.", tuple(Pool))
TIME_LIMIT = Whole("timeoutRun", "Seconds that one attempt may run; then the job is ended.", 1, 30 * 86_400)
CONFIG = Word("config", "Name of a saved configuration (PUT /configs/<name>) to lay under the body.")
CALLBACK = Word(
    "callbackUrl", "http or https address that is told of the job's end, with its id and outcome."
)
FOR_USER = Word(
    PROXY_USER,
    "User for whom Spark works in the job's own context, where access.proxy_users of the settings allows it.",
)
PARAMETERS = (
    *(APP_NAME, CLASS_PATH, CP, MAIN_CLASS, SQL, LIMIT, QUERY, CONTEXT, SYNC, TIMEOUT),
    *(ATTEMPTS, ON_FAILOVER, PRIORITY, POOL, TIME_LIMIT, CONFIG, CALLBACK, FOR_USER),
)
"""What POST /jobs reads of its query."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How the client waits: for acceptance or for the end, and for how many seconds."""

    sync: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Asker:
    """Who submits, the key under which a repetition is recognised, and the format of results that are DataFrames."""

    principal: str
    idempotency_key: str | None = None
    request_digest: str | None = None
    result_format: ResultFormat = ResultFormat.JSON


def waiting(query: Query, limits: ApiLimits) -> Waiting:
    """`sync` and `timeout`; these are read before the body, like every typed parameter."""
    sync = SYNC.read(query)
    seconds = TIMEOUT.read(query)
    return Waiting(sync, limits.default_wait if seconds is None else min(float(seconds), limits.max_wait))


def submission(
    query: Query, config: Mapping[str, Any], wait: Waiting, asker: Asker, limits: ApiLimits
) -> Submission:
    """The whole of a submission. Raises BadConfig, BadRequest and the refusals of 1.5."""
    sql = sql_query(query, config, limits)
    main_class, binaries = (SQL_CLASS, ()) if sql is not None else _code(query, config, limits)
    extras = _block(config)
    return Submission(
        main_class=check_text("the main class", main_class, _MAX_CLASS),
        binaries=binaries,
        config=config,
        context=CONTEXT.read(query),
        sync=wait.sync,
        wait_seconds=wait.seconds,
        max_attempts=_whole(query, ATTEMPTS, extras, "max-attempts", 3),
        on_failover=_on_failover(query, extras),
        priority=_whole(query, PRIORITY, extras, "priority", 0),
        pool=_pool(query, extras),
        time_limit=_time_limit(query, extras),
        sql=sql,
        result_format=asker.result_format,
        callback_url=_callback(query, limits),
        principal=asker.principal,
        idempotency_key=asker.idempotency_key,
        request_digest=asker.request_digest,
    )


def _callback(query: Query, limits: ApiLimits) -> str | None:
    url = CALLBACK.read(query)
    return None if url is None else check_url(url, private=limits.private_callbacks)


def request_digest(method: str, path: str, query: str, body: bytes) -> str:
    """SHA-256 (hex) of what makes a request the same request: each part is preceded by its length."""
    digest = hashlib.sha256()
    for part in (method.encode(), path.encode("utf-8", "replace"), query.encode("utf-8", "replace"), body):
        digest.update(f"{len(part)}:".encode())
        digest.update(part)
    return digest.hexdigest()


def for_user(asked: Submission, query: Query, caller: Caller, rule: ProxyUsers) -> Submission:
    """The submission with the stored name of its context, or with the proxy user of its own one. Raises BadRequest."""
    named = FOR_USER.read(query)
    if asked.context is None:
        settings = context_settings(asked.config)
        user = proxy_user(rule, caller, asked_in(settings) or named)
        return asked if user is None else replace(asked, proxy_user=user)
    if named is not None and rule is not ProxyUsers.CALLER:
        proxy_user(rule, caller, named)
        raise BadRequest(
            f"{PROXY_USER} is for the context that a job gets of its own; {asked.context} has the user it was made with"
        )
    stored = stored_name(rule, caller, asked.context)
    return asked if stored == asked.context else replace(asked, context=stored)


def _code(query: Query, config: Mapping[str, Any], limits: ApiLimits) -> tuple[str, tuple[str, ...]]:
    """Main class and names to load: the legacy pair wins over `cp`, the query over the body."""
    app = APP_NAME.read(query)
    if app:
        main_class = CLASS_PATH.read(query)
        if not main_class:
            refuse("classPath parameter is missing!")
        names = (*name_list("dependent-jar-uris", config.get("dependent-jar-uris")), app)
        return main_class, check_names(names, limits.max_binaries)
    names = name_list("cp", CP.read(query)) or name_list("cp", config.get("cp"))
    if not names:
        refuse("To start the job appName or cp parameters should be configured!")
    main_class = MAIN_CLASS.read(query) or config.get("mainClass")
    if not main_class:
        refuse("mainClass parameter is missing!")
    if not isinstance(main_class, str):
        refuse("mainClass must be a text")
    return main_class, check_names(names, limits.max_binaries)


def _block(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Our own settings of a job, in the block `jobserver` of its configuration."""
    block = config.get("jobserver")
    if block is None:
        return {}
    if not isinstance(block, dict):
        refuse("jobserver must be an object")
    return block


def _whole(query: Query, parameter: Whole, extras: Mapping[str, Any], key: str, default: int) -> int:
    """A number of the query, or of the block, or the default; both have the bounds of the parameter."""
    given = parameter.read(query)
    if given is not None:
        return given
    value = extras.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(f"jobserver.{key} must be a whole number")
    return in_range(f"jobserver.{key}", value, parameter.lowest, parameter.highest)


def _on_failover(query: Query, extras: Mapping[str, Any]) -> str:
    given = ON_FAILOVER.read(query) or extras.get("on-failover") or OnFailover.RERUN.value
    if not isinstance(given, str) or given not in ON_FAILOVER.choices:
        raise BadRequest("jobserver.on-failover must be rerun or fail")
    return given


def _pool(query: Query, extras: Mapping[str, Any]) -> Pool:
    given = POOL.read(query) or extras.get("pool") or Pool.INTERACTIVE
    if not isinstance(given, str) or given not in POOL.choices:
        raise BadRequest("jobserver.pool must be interactive or batch or background")
    return Pool(given)


def _time_limit(query: Query, extras: Mapping[str, Any]) -> float | None:
    seconds = _whole(query, TIME_LIMIT, extras, "timeout-run", 0)
    return float(seconds) if seconds else None
