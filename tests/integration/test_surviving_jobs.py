"""Jobs of `examples/` whose driver is killed in the middle, twice: each part is added once, each row is copied once."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_cluster import Live

EXAMPLES = Path(__file__).parents[2] / "examples"
PARTS, ROWS, FILES = 20, 20_000, 16
READ = """
def rows(spark, env, config):
    copied = spark.read.parquet(config["output"])
    return [copied.count(), copied.select("id").distinct().count()]
"""


@pytest.fixture(scope="module")
def live(start_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One server without warm drivers: a killed driver is replaced from the checkpoint."""
    with start_cluster(tmp_path_factory.mktemp("survivors"), servers=1, ha={"standby": "cold"}) as cluster:
        yield Live(cluster)


def test_killed_drivers_cost_no_part_no_row_and_double_none(live: Live, tmp_path: Path) -> None:
    for name in ("add_up", "copy_stream"):
        live.upload((EXAMPLES / f"{name}.py").read_bytes(), name=name)
    source, trace, output = tmp_path / "in", tmp_path / "trace", tmp_path / "out"
    source.mkdir()
    for number in range(FILES):
        lines = [json.dumps({"id": number * 10 + row, "text": "x"}) for row in range(10)]
        (source / f"{number:03}.json").write_text("\n".join(lines))
    context = live.context("survivors")

    def computed() -> list[int]:
        return [int(line) for line in trace.read_text().splitlines()] if trace.exists() else []

    def batches() -> int:
        return len(list((output / "_spark_metadata").glob("[0-9]*")))

    adding = live.start(
        "add_up", "add_up:add_up", context, {"parts": PARTS, "rows": ROWS, "trace": str(trace)}
    )
    live.eventually(computed, lambda seen: len(seen) >= 4)
    copying = live.start(
        "copy_stream", "copy_stream:copy", context, {"input": str(source), "output": str(output)}
    )
    live.eventually(lambda: (len(set(computed())), batches()), lambda seen: seen[0] >= 5 and seen[1] >= 2)
    for _ in range(2):
        before = (len(computed()), batches())
        os.kill(live.driver(context).pid, signal.SIGKILL)
        live.eventually(
            lambda before=before: (len(computed()), batches()),
            lambda seen, before=before: seen[0] > before[0] + 1 or seen[1] > before[1] + 1 or _done(live, adding, copying),
        )  # fmt: skip
    added, copied = live.ended(adding), live.ended(copying)
    assert (added["status"], copied["status"]) == ("FINISHED", "FINISHED"), (added, copied)
    assert added["result"] == sum(range(PARTS * ROWS))
    times = Counter(computed())
    assert sorted(times) == list(range(PARTS))
    assert sum(times.values()) <= PARTS + 2, "each death costs the part that was being computed, at most"
    reader = live.upload(READ, name="reader")
    counted = live.value(reader, "reader:rows", context, {"output": str(output)})
    assert counted == [FILES * 10, FILES * 10]


def _done(live: Live, *jobs: str) -> bool:
    return all(live.job(job)["status"] == "FINISHED" for job in jobs)
