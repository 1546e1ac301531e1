"""JVM jobs: classes of uploaded jars with ``runJob(SparkSession, Map)``, and optionally `validate` with the same parameters.

Each job runs in a session of its own that knows the classes of its jars (jar_sessions.py), so two versions of a class live side
by side, and a job's views end with it. The job's thread in the JVM is the one that belongs to its thread here, so a kill
interrupts it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError

from jobserver.driver.jar_sessions import JarSessions, JavaSession
from jobserver.driver.loading import DriverBinary, LoadRefused, Stored, nothing_stored, read_binary
from jobserver.driver.sessions import JobSession
from jobserver.driver.spark import Spark
from jobserver.driver.waits import SlicedLock
from jobserver.model import BinaryType, ErrorInfo, OutcomeKind

log = logging.getLogger(__name__)

SHARED_VIEWS = 64
"""Named DataFrames that every JVM job finds without naming them; with more, only those of `named-objects`."""
_SIGNATURE = "runJob(org.apache.spark.sql.SparkSession, java.util.Map)"
_VALUE = '{"value":'

FindFrame = Callable[[str], tuple[str, Any] | None]


class JobFailed(Exception):
    """What a job threw in the JVM."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True, slots=True)
class JvmCall:
    """What is called: class, configuration as JSON text, and the largest result in characters."""

    main_class: str
    config: str
    result_limit: int


class Jars:
    """The jars that this driver has seen. `find`: a DataFrame by its name in lower case.

    `names`: all named objects, in order, and whether each is had without running a recipe.
    """

    def __init__(
        self,
        spark: Spark,
        folder: Path,
        names: Callable[[], Mapping[str, bool]],
        find: FindFrame,
        stored: Stored = nothing_stored,
    ) -> None:
        self._spark = spark
        self._stored = stored
        self._folder = folder
        self._names = names
        self._find = find
        self._lock = SlicedLock()
        self._sessions = JarSessions(spark)
        self._known: dict[tuple[str, ...], Any] = {}
        self._views: dict[str, str] = {}
        self._calls: Any = None

    def session(self, binaries: Sequence[DriverBinary]) -> JavaSession:
        """A session in which the classes of these jars are known. Raises LoadRefused."""
        if any(binary.type is not BinaryType.JAR for binary in binaries):
            raise LoadRefused(OutcomeKind.WRONG_TYPE, "one job cannot be made of jars and Python packages")
        key = tuple(binary.digest for binary in binaries)
        with self._lock:
            if key not in self._known:
                self._known[key] = self._made_known(key, binaries)
        return self._sessions.of_job(self._known[key])

    def calls(self, session: JobSession, scope: Any, call: JvmCall) -> Any:
        """A JobCalls object (java_source/JobCalls.java) for one job."""
        with self._lock:
            if self._calls is None:
                self._calls = self._sessions.using_scopes("JobCalls")
        return self._sessions.new(self._calls, session._jsparkSession, scope, call.config, call.result_limit)

    def share_views(self, wanted: Iterable[str]) -> None:
        """Named DataFrames as global temporary views: ``global_temp.<name>``.

        One that cannot be had fails only jobs that name it. Raises what asking for such a one raises.
        """
        known, asked = self._names(), set(wanted)
        few = len(known) <= SHARED_VIEWS
        for name, ready in known.items():
            if name in asked or (few and ready):
                self._share(name, needed=name in asked)
        for gone in set(self._views) - set(known):
            self._drop(gone)

    def _share(self, name: str, *, needed: bool) -> None:
        try:
            found = self._find(name.lower())
            if found is not None and self._views.get(name) != found[0]:
                found[1]._jdf.createOrReplaceGlobalTempView(f"`{name.replace('`', '``')}`")
                self._views[name] = found[0]
        except Exception as error:
            # damage, a store that is away, a busy build, Spark's own failures: they have no common class
            if needed:
                raise
            log.warning("named object %r is no view for JVM jobs at this moment: %s", name, error)
            self._drop(name)

    def _drop(self, name: str) -> None:
        """An older version must not pass for the one that cannot be had."""
        if self._views.pop(name, None) is not None:
            self._spark.root.catalog.dropGlobalTempView(name)

    def _made_known(self, key: tuple[str, ...], binaries: Sequence[DriverBinary]) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True)
        paths = [self._folder / f"{binary.digest}.jar" for binary in binaries]
        for binary, path in zip(binaries, paths, strict=True):
            path.write_bytes(read_binary(binary, self._stored))
        try:
            return self._sessions.knowing(sha256("-".join(key).encode()).hexdigest(), paths)
        except Py4JError as error:
            names = ", ".join(binary.name for binary in binaries)
            message = f"not all of {names} are jars that can be loaded: {error}"
            raise LoadRefused(OutcomeKind.LOADING_FAILED, message) from error


class JvmJob:
    """See kinds.RunnableJob. Its class is loaded when this is made. Raises LoadRefused."""

    def __init__(self, jars: Jars, session: JobSession, scope: Any, call: JvmCall) -> None:
        wanted = json.loads(call.config).get("named-objects")
        names = wanted if isinstance(wanted, list) else []
        jars.share_views([name for name in names if isinstance(name, str)])
        self._calls = jars.calls(session, scope, call)
        answer = json.loads(self._calls.load(call.main_class))
        if answer.get("missing") == "class":
            raise LoadRefused(
                OutcomeKind.NOT_FOUND, f"there is no class {call.main_class} in the jars of the job"
            )
        if answer.get("missing"):
            raise LoadRefused(
                OutcomeKind.LOADING_FAILED,
                f"{call.main_class} has no public method {_SIGNATURE}: it is no job",
            )
        if "error" in answer:
            error = _error(answer["error"])
            message = f"loading {call.main_class} failed: {error.error_class}: {error.message}"
            raise LoadRefused(OutcomeKind.LOADING_FAILED, message, error.error_class, error.stack)

    def validate(self) -> list[str]:
        """The text or texts of what is wrong; none for null."""
        value = json.loads(_value(self._calls.validate()))
        if value is None:
            return []
        return [str(text) for text in value] if isinstance(value, list) else [str(value)]

    def run(self) -> str:
        """See RunnableJob. Raises JobFailed."""
        return _value(self._calls.run())


def _value(answer: str) -> str:
    """The JSON text of the value in an answer. Raises JobFailed."""
    if answer.startswith(_VALUE):
        return answer[len(_VALUE) : -1]
    raise JobFailed(_error(json.loads(answer)["error"]))


def _error(told: dict[str, str]) -> ErrorInfo:
    return ErrorInfo(told["message"], told["class"], told["stack"])
