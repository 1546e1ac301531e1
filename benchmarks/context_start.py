"""From nothing to the first Python job's answer: a cold context, one from the warm pool, and a plain pyspark process."""

from __future__ import annotations

from benchmarks.cluster import BenchCluster, cluster
from benchmarks.measure import Against, Effort, Goal, Section, Series
from benchmarks.plain import Plain

FIRST = "python_task"


def run(effort: Effort) -> Section:
    """The three in turns; before each, nothing else is being started or rehearses."""
    plain = Series("plain pyspark, first Python job answered")
    cold_made = Series("cold context, created")
    cold = Series(
        "cold context, first Python job answered", goals=(Goal(0.5, 0.4, Against.RATIO),), baseline=plain
    )
    warm_made = Series("context from the pool, created", goals=(Goal(0.5, 0.3),), baseline=plain)
    warm = Series("context from the pool, first Python job answered", baseline=plain)
    with cluster(1) as bench:
        for number in range(effort.rounds_of(3)):
            _until_quiet(bench)
            with Plain(bench.folder) as process:
                plain.values.append(process.first_answer)
            _until_quiet(bench)
            # a setting that the pool's drivers were not started with
            _start(bench, f"cold{number}", {"spark.bench.cold": "yes"}, cold_made, cold)
            _until_quiet(bench)
            _start(bench, f"warm{number}", {}, warm_made, warm)
    return Section(
        "Start of a context",
        "Seconds from POST /contexts (or from the start of the process) on, in turns. The first Python job needs Python "
        "workers; the spare settings of the cold context keep it from the pool.",
        [plain, cold_made, cold, warm_made, warm],
    )


def _until_quiet(bench: BenchCluster) -> None:
    bench.wait_warm(0)
    bench.wait_rehearsed()


def _start(bench: BenchCluster, name: str, settings: dict[str, str], made: Series, answered: Series) -> None:
    with answered.timed():
        with made.timed():
            bench.create_context(name, settings)
        bench.run(name, FIRST, {})
    bench.delete_context(name)
