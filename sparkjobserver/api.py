"""The interface between a Python job and the server (names as in Spark Job Server's Python API).

A job is a class with `validate` and `run_job` (inheriting from `SparkJob` is optional), or a function
``f(spark, env, config)``. Here are only shapes and plain values; the driver brings the behaviour. No Spark is imported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class ValidationProblem:
    """One reason why `validate` refuses a configuration."""

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def __repr__(self) -> str:
        return f"ValidationProblem({self.problem!r})"


def build_problems(problems: Iterable[str]) -> list[ValidationProblem]:
    """A ValidationProblem for each text, to be returned from `validate`."""
    return [ValidationProblem(problem) for problem in problems]


class ObjectDamaged(Exception):
    """The stored data of a named object is proven to be damaged; other objects are not touched by it."""


class NamedObjects(ABC):
    """DataFrames, RDDs, broadcasts and plain values that the jobs of a context share, and that survive failover.

    Handed-out plain values are shared between jobs: do not change them, use `update`.
    """

    @abstractmethod
    def get_or_create(
        self,
        name: str,
        build: Callable[[], Any],
        *,
        timeout: float = 60.0,
        storage_level: str = "MEMORY_AND_DISK",
        force_computation: bool = True,
        durability: str = "sync",
        strategy: str = "auto",
    ) -> Any:
        """The object of that name; `build()` makes it if there is none.

        Concurrent callers share one build; who waits for another's build does so for at most `timeout` seconds and
        then gets a TimeoutError, while the build goes on. A failing build fails all who wait for it and leaves nothing.

        `storage_level`: name of a `pyspark.StorageLevel`, or "NONE". `force_computation`: compute and cache it now.
        `durability`: "sync" returns once it would survive the loss of this driver, "async" at once.
        `strategy`: "materialize" writes the data; "recipe" remembers this job and runs it again when the object is needed
        after the driver's loss (made again, not equal); "source" remembers a plain read of files and reads them again;
        "none" keeps nothing; "auto" means "source" for a plain read of files that all machines share, else "materialize".
        """

    @abstractmethod
    def get(self, name: str, timeout: float = 60.0) -> Any:
        """The object of that name, or None. Waits up to `timeout` seconds while it is being built."""

    @abstractmethod
    def update(
        self,
        name: str,
        build: Callable[[], Any],
        *,
        timeout: float = 60.0,
        storage_level: str = "MEMORY_AND_DISK",
        force_computation: bool = True,
        durability: str = "sync",
        strategy: str = "auto",
    ) -> Any:
        """Replace the object by what `build()` returns, or create it; readers see the old or the new one, whole.

        A failing build leaves the old one. `timeout` bounds the wait for another update of the same name.
        """

    @abstractmethod
    def forget(self, name: str) -> None:
        """Remove the name; cached data stays with those who use it. No error if there is none."""

    @abstractmethod
    def destroy(self, name: str) -> None:
        """Remove the name and free what it has cached. No error if there is none."""

    @abstractmethod
    def names(self) -> list[str]:
        """All names, sorted."""

    def get_or_else_create(self, name: str, build: Callable[[], Any], **options: Any) -> Any:
        """Old name of `get_or_create`."""
        return self.get_or_create(name, build, **options)

    def get_names(self) -> list[str]:
        """Old name of `names`."""
        return self.names()


class Progress(ABC):
    """What a running job tells about itself, and what it wants to find again when it must run again."""

    @abstractmethod
    def report(self, fraction: float | None, message: str = "") -> None:
        """Show how far the job is (0 to 1, or None if unknown) to those who watch it. Cheap; nothing is stored."""

    @abstractmethod
    def save(self, value: Any) -> None:
        """Keep a value that can be pickled, or a DataFrame, for later attempts of this job; durable when this returns."""

    @abstractmethod
    def load(self, default: Any = None) -> Any:
        """What this job saved last, in this attempt or an earlier one; `default` if nothing."""


class Streams(ABC):
    """Streaming queries that go on from where they were when their job runs again."""

    @abstractmethod
    def checkpoint(self, name: str) -> str:
        """See `JobEnvironment.streaming_checkpoint`."""

    @abstractmethod
    def run(self, name: str, start: Callable[[str], Any]) -> Any:
        """See `JobEnvironment.run_stream`."""


class JobEnvironment:
    """What a job knows of itself and its context.

    `context_config` is the context's settings as a tree with dotted `get`. `attempt` counts the executions of this job
    and `epoch` the owners of its context: both only grow, and can fence effects of the job's own. The driver passes
    `sealer`, which carries out `commit`.
    """

    def __init__(
        self,
        job_id: str,
        named_objects: NamedObjects | None,
        context_config: Any,
        *,
        attempt: int = 1,
        epoch: int = 0,
        progress: Progress | None = None,
        sealer: Callable[[Any, Mapping[str, Callable[[], Any]]], None] | None = None,
        data_files: Callable[[str], str] | None = None,
        streams: Streams | None = None,
    ) -> None:
        self.job_id = job_id
        self.named_objects = named_objects
        self.context_config = context_config
        self.attempt = attempt
        self.epoch = epoch
        self.progress = progress
        self._sealer = sealer
        self._data_files = data_files
        self._streams = streams

    @property
    def jobId(self) -> str:
        """Old name of `job_id`."""
        return self.job_id

    @property
    def namedObjects(self) -> NamedObjects | None:
        """Old name of `named_objects`."""
        return self.named_objects

    @property
    def contextConfig(self) -> Any:
        """Old name of `context_config`."""
        return self.context_config

    def data_file(self, path: str) -> str:
        """A path on this machine for a file of POST /data, whichever server took it: give what the upload answered.

        Raises FileNotFoundError. Spark reads the answered path itself; this is for code that opens files.
        """
        if self._data_files is None:
            raise RuntimeError("data files are found only by a job that runs on the server")
        return self._data_files(path)

    def getDataFile(self, path: str) -> str:
        """Old name of `data_file`."""
        return self.data_file(path)

    def report(self, fraction: float | None, message: str = "") -> None:
        """Show how far the job is: the same as `progress.report`."""
        if self.progress is not None:
            self.progress.report(fraction, message)

    def commit(self, progress: Any, updates: Mapping[str, Callable[[], Any]] | None = None) -> None:
        """Save the job's progress and update named objects in one step: after a failure, all of it happened or nothing."""
        if self._sealer is None:
            raise RuntimeError("commit works only in a job that runs on the server")
        self._sealer(progress, updates or {})

    def streaming_checkpoint(self, name: str) -> str:
        """The `checkpointLocation` for a streaming query of that name: one of the context's, whichever job runs it."""
        return self._needed_streams().checkpoint(name)

    def run_stream(self, name: str, start: Callable[[str], Any]) -> Any:
        """Start a streaming query and wait for its end; answers the query.

        `start(location)` starts it with that `checkpointLocation`. When Spark says that another query still writes
        there, which after a failover is the older driver's, it is started again until that one must have ended.
        """
        return self._needed_streams().run(name, start)

    def _needed_streams(self) -> Streams:
        if self._streams is None:
            raise RuntimeError("streaming works only in a job that runs on the server")
        return self._streams


class SparkJob(ABC):
    """Base class for jobs; any class with these methods and a constructor without arguments will do."""

    @abstractmethod
    def validate(self, context: SparkSession, runtime: JobEnvironment, config: Any) -> Any:
        """Check the configuration: a list of ValidationProblem refuses it, anything else becomes `data` of `run_job`."""

    @abstractmethod
    def run_job(self, context: SparkSession, runtime: JobEnvironment, data: Any) -> Any:
        """Do the work; what is returned becomes the job's result as JSON."""
