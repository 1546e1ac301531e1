"""Sessions in which the classes of some jars are known, on the driver and on executors, apart from those of other jars.

Each set of jars has one class loader, and one state of Spark's by which executors have one for it, too: jobs of the same jars
share them, so the code that Spark makes of their queries is compiled once. Spark 4 keeps jars as artifacts of a session, with
which the sessions of jobs are joined; Spark 3.5 in a state which holds for what a thread submits. `java_source/JarScope*.java`
make one thing of both; they and the classes that use them are compiled in the driver's JVM by the compiler that Spark brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobserver.driver import java_classes
from jobserver.driver.spark import ISOLATED, MAJOR, Spark


@dataclass(frozen=True, slots=True)
class JavaSession:
    """A job's own session, and the JarScope of the jars that it knows."""

    java: Any
    scope: Any


class JarSessions:
    """Makes them. Not for several threads at once but for `of_job`."""

    def __init__(self, spark: Spark, major: int = MAJOR) -> None:
        self._spark = spark
        self._artifacts = major >= 4
        self._scopes: Any = None
        self._begun: list[Any] = []
        """Their jars are among what all tasks fetch, so also the session of a set that cannot be loaded must stay."""

    def knowing(self, key: str, paths: Sequence[Path]) -> Any:
        """The JarScope of these jars, of which nobody else has the key. Raises Py4JError: a file is no jar."""
        scopes = self._scope_class()
        files = self._spark.context._jvm.java.util.ArrayList()
        for path in paths:
            files.add(str(path))
        if not self._artifacts:
            return self.new(scopes, self._spark.java.scala_context, key, files)
        session = self._spark.root._jsparkSession.newSession()
        session.conf().set(ISOLATED, "true")
        self._begun.append(session)
        return self.new(scopes, session, files)

    def of_job(self, scope: Any) -> JavaSession:
        """A session for one job."""
        session = self._spark.new_session()
        scope.join(session)
        return JavaSession(session, scope)

    def using_scopes(self, name: str) -> Any:
        """The class in a file of `java_source` which uses JarScope."""
        return java_classes.compiled(self._spark.context, name, self._scope_class().getClassLoader())

    def new(self, java_class: Any, *given: Any) -> Any:
        """An object of a compiled class, which has one constructor."""
        return java_classes.new(self._spark.context, java_class, *given)

    def _scope_class(self) -> Any:
        if self._scopes is None:
            name = "JarScopeSpark4" if self._artifacts else "JarScopeSpark3"
            self._scopes = java_classes.compiled(self._spark.context, name)
        return self._scopes
