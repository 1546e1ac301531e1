"""The baseline: the same functions in one plain pyspark process, started as everybody starts it.

`Plain` is the parent's side. The child says one line when its first Python job has answered, then runs what it is told:
a line `{"function": ..., "configs": [...]}` is answered by `{"seconds": [...], "results": [...]}`, a line
`{"function": ..., "threads": n, "seconds": s}` by `{"calls": n, "took": s}`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

SETTINGS = {
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "1g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}
"""Equal on both sides, as is the master."""
MASTER = "local[2]"


class Plain:
    """A plain pyspark process. `first_answer`: seconds from its start to the answer of its first Python job."""

    def __init__(self, folder: Path, settings: Mapping[str, str] = SETTINGS) -> None:
        begin = time.perf_counter()
        with (folder / "plain.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.plain", json.dumps(dict(settings))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._read()
        self.first_answer = time.perf_counter() - begin

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        """Its JVM ends with it, by the end of its own input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def run(self, function: str, configs: Sequence[object]) -> tuple[list[float], list[Any]]:
        """Seconds and results of one call for each config, measured inside the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"function": function, "configs": configs}) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        return answer["seconds"], answer["results"]

    def run_threads(self, function: str, threads: int, seconds: float) -> tuple[int, float]:
        """How many calls so many threads made, and the seconds that they took; each calls until the time is over."""
        assert self._process.stdin is not None
        order = {"function": function, "threads": threads, "seconds": seconds}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        return answer["calls"], answer["took"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the plain pyspark process ended; its output is in plain.log")
        answer: dict[str, Any] = json.loads(line)
        return answer


class PlainObjects:
    """Named objects of a process that shares them with nobody: a dictionary."""

    def __init__(self) -> None:
        self._frames: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        """The frame of that name."""
        return self._frames[name]

    def get_or_create(self, name: str, build: Any, **_options: object) -> Any:
        """Builds and caches it."""
        if name not in self._frames:
            self._frames[name] = build().persist()
            self._frames[name].count()
        return self._frames[name]


class PlainEnvironment:
    """As much of a job's environment as the functions use."""

    def __init__(self) -> None:
        self.named_objects = PlainObjects()


def main() -> None:
    """The child. The JVM may print to stdout, so that is taken away from it first."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from pyspark.sql import SparkSession

    from benchmarks import jobs

    builder = SparkSession.builder.master(MASTER).appName("plain")
    for key, value in json.loads(sys.argv[1]).items():
        builder = builder.config(key, value)
    spark, env = builder.getOrCreate(), PlainEnvironment()
    _say(answers, {"first": jobs.python_task(spark, env, {})})
    for line in sys.stdin:
        order = json.loads(line)
        function = getattr(jobs, order["function"])
        if "threads" in order:
            _say(answers, _together(function, spark, env, order["threads"], order["seconds"]))
        else:
            _say(answers, _measured(function, spark, env, order["configs"]))


def _measured(function: Any, spark: Any, env: PlainEnvironment, configs: Sequence[object]) -> dict[str, Any]:
    seconds, results = [], []
    for config in configs:
        begin = time.perf_counter()
        results.append(function(spark, env, config))
        seconds.append(time.perf_counter() - begin)
    return {"seconds": seconds, "results": results}


def _together(
    function: Any, spark: Any, env: PlainEnvironment, threads: int, seconds: float
) -> dict[str, float]:
    begin = time.perf_counter()

    def calls(number: int) -> int:
        count = 0
        while time.perf_counter() - begin < seconds:
            function(spark, env, row_config(number + threads * count))
            count += 1
        return count

    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(calls, range(threads)))
    return {"calls": total, "took": time.perf_counter() - begin}


def row_config(number: int) -> dict[str, int]:
    """Ids all over the rows: a query for each is a new one for Spark."""
    return {"id": number * 7919 % 1_000_000}


def _say(answers: IO[str], message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
