"""Adds up twenty parts, and loses none and counts none twice, however often its driver dies. Upload it as `add_up`.

    mainClass=add_up:add_up   parts = 20, rows = 100000, trace = a file that notes each computation (optional)

What is done and the sum itself are sealed in one step, `env.commit`. A job that runs again begins behind the last part
that was sealed, so at most the one that was being computed is computed again.
"""

from pathlib import Path

TOTAL = "add_up total"


def add_up(spark, env, config):
    """The sum of all parts."""
    parts = config.get("parts", 20)
    for part in range(env.progress.load(0), parts):
        amount = computed(spark, part, config)
        env.commit(part + 1, {TOTAL: lambda: (env.named_objects.get(TOTAL) or 0) + amount})  # noqa: B023
        env.progress.report((part + 1) / parts, f"part {part + 1} of {parts}")
    return env.named_objects.get(TOTAL)


def computed(spark, part, config):
    """One part: the sum of its numbers."""
    rows = config.get("rows", 100_000)
    if trace := config.get("trace", None):
        with Path(trace).open("a") as file:
            file.write(f"{part}\n")
    return spark.range(part * rows, (part + 1) * rows).groupBy().sum("id").first()[0]
