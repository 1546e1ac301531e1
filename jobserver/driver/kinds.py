"""The kinds of job: Python code, JVM code, SQL text. Each becomes a `RunnableJob`, which the runner takes through its life.

Made in the job's own thread, so that loading is part of the attempt and can be killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from pyhocon import ConfigFactory

from jobserver.driver.frames import Produced, is_frame, rows_of
from jobserver.driver.jvm_jobs import Jars, JvmCall, JvmJob
from jobserver.driver.loading import DriverBinary, JobLoader, LoadedJob, LoadRefused, error_info
from jobserver.driver.results import to_json
from jobserver.driver.sessions import JobSession
from jobserver.driver.sql_jobs import SqlJob
from jobserver.model import AttemptRef, BinaryType, OutcomeKind, Pool, ResultFormat, SqlQuery
from jobserver.protocol import Message, ProtocolError
from sparkjobserver.api import JobEnvironment


@dataclass(frozen=True, slots=True)
class RunOrder:
    """A `run` request. `awaited`: whether somebody waits for its acceptance."""

    ref: AttemptRef
    main_class: str
    binaries: tuple[DriverBinary, ...]
    config: str
    pool: Pool
    sql: SqlQuery | None = None
    result_format: ResultFormat = ResultFormat.JSON
    awaited: bool = True


class RunnableJob(Protocol):
    """One job, loaded."""

    def validate(self) -> list[str]:
        """What is wrong with its input; empty when it may run. May raise what the author's code raises."""

    def run(self) -> Produced:
        """Do the work. May raise what the author's code raises, and UnusableResult."""


def run_order(message: Message) -> RunOrder:
    """The order in a `run` request. Raises ProtocolError."""
    try:
        binaries = tuple(
            _binary(item["name"], item["type"], item["digest"], item["path"]) for item in message["binaries"]
        )
        sql = message.get("sql")
        return RunOrder(
            attempt_ref(message),
            message["main_class"],
            binaries,
            message["config"],
            Pool(message.get("pool", Pool.INTERACTIVE)),
            None if sql is None else SqlQuery(**sql),
            ResultFormat(message.get("result_format", ResultFormat.JSON)),
            message.get("awaited") is not False,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"a run request lacks or misnames a field: {error!r}") from error


@lru_cache(maxsize=1024)
def _binary(name: str, kind: str, digest: str, path: str | None) -> DriverBinary:
    """Most jobs name one that an earlier job has named."""
    return DriverBinary(name, BinaryType(kind), digest, Path(path) if path else None)


def attempt_ref(message: Message) -> AttemptRef:
    """Job and attempt that a request names. Raises ProtocolError."""
    job_id, number = message.get("job_id"), message.get("attempt")
    if not isinstance(job_id, str) or not isinstance(number, int) or number < 1:
        raise ProtocolError("a request names no job_id and attempt")
    return AttemptRef(job_id, number)


def config_tree(plain: Mapping[str, Any]) -> Any:
    """A configuration in which `get("a.b")` works."""
    return ConfigFactory.from_dict(plain)


class JobKinds:
    """From an order to a job that can be run. `session` makes the job's own, of a Java session if one is given."""

    def __init__(self, loader: JobLoader, jars: Jars, result_limit: int) -> None:
        self._loader = loader
        self._jars = jars
        self._result_limit = result_limit

    def job(
        self,
        order: RunOrder,
        session: Callable[..., JobSession],
        environment: Callable[[], JobEnvironment],
    ) -> RunnableJob:
        """The job. Raises LoadRefused."""
        if order.sql is not None:
            return SqlJob(session(), order.sql, order.result_format, self._result_limit)
        if any(binary.type is BinaryType.JAR for binary in order.binaries):
            java_session = self._jars.session(order.binaries)
            call = JvmCall(order.main_class, order.config, self._result_limit)
            return JvmJob(self._jars, session(java_session.java), java_session.scope, call)
        loaded = self._loader.load(order.main_class, order.binaries)
        config = config_tree(json.loads(order.config))
        results = ResultRules(order.result_format, self._result_limit)
        return PythonJob(loaded, session(), environment(), config, results)


@dataclass(frozen=True, slots=True)
class ResultRules:
    """The format of a result that is a DataFrame; how many bytes of JSON a result may have."""

    form: ResultFormat
    limit: int


class PythonJob:
    """A class with `run_job`, or a function."""

    def __init__(
        self, loaded: LoadedJob, session: Any, env: JobEnvironment, config: Any, results: ResultRules
    ) -> None:
        self._session = session
        self._env = env
        self._data = config
        self._results = results
        self._is_function = loaded.is_function
        self._target: Any = loaded.target if loaded.is_function else _constructed(loaded.target)

    def validate(self) -> list[str]:
        """See RunnableJob. What `validate` of a class answers becomes the data of its `run_job`."""
        if self._is_function or not hasattr(self._target, "validate"):
            return []
        data = self._target.validate(self._session, self._env, self._data)
        problems = problems_in(data)
        self._data = data
        return problems

    def run(self) -> Produced:
        """See RunnableJob. A DataFrame stands for all its rows."""
        call = self._target if self._is_function else self._target.run_job
        value = call(self._session, self._env, self._data)
        if is_frame(value):
            return rows_of(value, self._results.form, self._results.limit)
        return to_json(value, self._results.limit)


def problems_in(data: Any) -> list[str]:
    """The texts if `validate` answered problems. By shape, since a bundle may bring its own copy of the API."""
    items = data if isinstance(data, (list, tuple)) else [data]
    if not items or type(items[0]).__name__ != "ValidationProblem":
        return []
    return [str(getattr(item, "problem", item)) for item in items]


def _constructed(target: Callable[..., Any]) -> Any:
    try:
        return target()
    except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        # the author's constructor may raise anything; a kill is none of these and passes
        info = error_info(error)
        message = (
            f"constructing {getattr(target, '__name__', target)} failed: {info.error_class}: {info.message}"
        )
        raise LoadRefused(OutcomeKind.LOADING_FAILED, message, info.error_class, info.stack) from error
