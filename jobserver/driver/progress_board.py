"""What is known of an attempt's progress: its own reports, and Spark's counts of its job groups."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from jobserver.driver.jobthreads import RunningAttempt
from jobserver.driver.spark import Spark
from jobserver.progress import Counts, JobProgress, StageProgress

LOOKED_AT = 16
"""Spark jobs whose stages are asked for at one look, the newest first; each costs some calls to the JVM."""


class ProgressBoard:
    """Of one attempt. `report` is called from the job's threads, and takes no lock: a report is one assignment."""

    def __init__(self, attempt: int) -> None:
        self._reported: tuple[float | None, str] = (None, "")
        self._shown = JobProgress(attempt)
        self._looking = threading.Lock()
        self._done: dict[int, tuple[Counts, Counts]] = {}

    def report(self, fraction: float | None, message: str) -> None:
        """What the job says of itself."""
        self._reported = (fraction, message)

    def look(self, spark: Spark, attempt: RunningAttempt) -> JobProgress:
        """The picture of now, with a new number if it differs from the last. Costs calls to the JVM once the job used Spark."""
        with self._looking:
            fraction, message = self._reported
            seen = replace(self._shown, fraction=fraction, message=message)
            if attempt.jvm_threads:
                seen = self._counted(seen, spark.context.statusTracker(), attempt)
            if seen != self._shown:
                self._shown = replace(seen, seq=seen.seq + 1)
            return self._shown

    def _counted(self, seen: JobProgress, tracker: Any, attempt: RunningAttempt) -> JobProgress:
        ids = sorted({job for group in list(attempt.groups) for job in tracker.getJobIdsForGroup(group)})
        active: list[StageProgress] = []
        running = 0
        parts: list[tuple[Counts, Counts]] = [self._done[job] for job in ids if job in self._done]
        for job in [job for job in ids if job not in self._done][-LOOKED_AT:]:
            info = tracker.getJobInfo(job)
            if info is None:
                continue
            stages, tasks, at_work = _stages(tracker, info.stageIds)
            if info.status == "RUNNING":
                running += 1
                active.extend(at_work)
            else:
                self._done[job] = (stages, tasks)
            parts.append((stages, tasks))
        return replace(
            seen,
            jobs=Counts(len(ids), len(ids) - running, running),
            stages=_sum([stages for stages, _ in parts]),
            tasks=_sum([tasks for _, tasks in parts]),
            active_stages=tuple(active),
        )


def _stages(tracker: Any, ids: Any) -> tuple[Counts, Counts, list[StageProgress]]:
    """Counts of stages and of tasks, and the stages at work. Stages that never ran (their output was there) do not count."""
    known = [info for info in (tracker.getStageInfo(stage) for stage in ids) if info is not None]
    each = [
        Counts(info.numTasks, info.numCompletedTasks, info.numActiveTasks, info.numFailedTasks)
        for info in known
    ]
    at_work = [
        StageProgress(info.stageId, info.name, tasks)
        for info, tasks in zip(known, each, strict=True)
        if tasks.active
    ]
    done = sum(1 for tasks in each if tasks.done >= tasks.total)
    return Counts(len(each), done, len(at_work)), _sum(each), at_work


def _sum(counts: list[Counts]) -> Counts:
    return Counts(
        sum(each.total for each in counts),
        sum(each.done for each in counts),
        sum(each.active for each in counts),
        sum(each.failed for each in counts),
    )
