"""Which of Spark's ways keeps the classes of jars apart."""

from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobserver.driver.jar_sessions import JarSessions
from jobserver.driver.spark import ISOLATED

JARS = [Path("/jars/one.jar"), Path("/jars/two.jar")]


class Compiler:
    """Janino; what was compiled stands in `sources`."""

    sources: list[str]

    def setParentClassLoader(self, loader: Any) -> None:
        self.parent = loader

    def cook(self, text: str) -> None:
        self.sources.append(text)

    def getClassLoader(self) -> Any:
        return SimpleNamespace(loadClass=self._loaded)

    def _loaded(self, name: str) -> Any:
        constructor = SimpleNamespace(newInstance=lambda given: Compiled(name, tuple(given)))
        return SimpleNamespace(getConstructors=lambda: [constructor], getClassLoader=lambda: name)


class Compiled:
    """An object of a compiled class."""

    def __init__(self, name: str, given: tuple[Any, ...]) -> None:
        self.name, self.given = name, given
        self.joined: list[Any] = []

    def join(self, session: Any) -> None:
        self.joined.append(session)


class Session:
    """A Java session of Spark 4."""

    def __init__(self) -> None:
        self.settings: dict[str, str] = {}

    def conf(self) -> Any:
        return SimpleNamespace(set=self.settings.__setitem__)


class OldSession:
    """One of Spark 3.5: it knows no artifacts."""


class Array(list):
    def __init__(self, size: int) -> None:
        super().__init__([None] * size)


class Files(list):
    add = list.append


def spark(session: type) -> tuple[Any, list[str]]:
    compiler = type("SimpleCompiler", (Compiler,), {"sources": []})
    jvm = SimpleNamespace(
        java=SimpleNamespace(
            util=SimpleNamespace(ArrayList=Files),
            lang=SimpleNamespace(Object=object),
        ),
        org=SimpleNamespace(codehaus=SimpleNamespace(janino=SimpleNamespace(SimpleCompiler=compiler))),
    )
    gateway = SimpleNamespace(jvm=jvm, new_array=lambda _, size: Array(size))
    root = SimpleNamespace(_jsparkSession=SimpleNamespace(newSession=session))
    java = SimpleNamespace(scala_context="context")
    context = SimpleNamespace(_jvm=jvm, _gateway=gateway)
    return SimpleNamespace(root=root, context=context, java=java, new_session=session), compiler.sources


def test_on_spark_4_jobs_join_the_session_that_has_the_jars_as_artifacts():
    fake, sources = spark(Session)
    sessions = JarSessions(fake, major=4)
    scope = sessions.knowing("k", JARS)
    assert scope.name == "jobserver.JarScope"
    known, files = scope.given
    assert (known.settings, files) == ({ISOLATED: "true"}, ["/jars/one.jar", "/jars/two.jar"])
    one, another = sessions.of_job(scope), sessions.of_job(scope)
    assert scope.joined == [one.java, another.java]
    assert known is not one.java is not another.java
    assert one.scope is another.scope is scope
    assert len(sources) == 1
    assert "ArtifactManager" in sources[0]


def test_on_spark_3_a_job_gets_a_new_session_and_the_one_scope_of_its_jars():
    fake, sources = spark(OldSession)
    sessions = JarSessions(fake, major=3)
    scope = sessions.knowing("k", JARS)
    assert (scope.name, *scope.given) == (
        "jobserver.JarScope", "context", "k", ["/jars/one.jar", "/jars/two.jar"],
    )  # fmt: skip
    one, another = sessions.of_job(scope), sessions.of_job(scope)
    assert scope.joined == [one.java, another.java]
    assert one.scope is another.scope is scope
    assert one.java is not another.java
    assert len(sources) == 1
    assert "JobArtifactState" in sources[0]


def test_what_uses_a_scope_is_compiled_against_the_one_that_is_in_use():
    fake, sources = spark(Session)
    sessions = JarSessions(fake, major=4)
    calls = sessions.new(sessions.using_scopes("JobCalls"), "session", "scope", "{}", 10)
    assert (calls.name, calls.given) == ("jobserver.JobCalls", ("session", "scope", "{}", 10))
    assert ["class JarScope" in text for text in sources] == [True, False]


@pytest.mark.parametrize("name", ["JobCalls", "PooledSession"])
def test_sources_for_both_name_no_class_that_only_one_spark_or_scala_has(name):
    text = resources.files("jobserver.driver").joinpath("java_source", f"{name}.java").read_text()
    for only_in_one in ("sql.classic", "artifactManager", "JobArtifact", "javaapi", ".tempVariableManager()"):
        assert only_in_one not in text
