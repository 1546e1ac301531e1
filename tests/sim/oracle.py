"""What was acknowledged, by whom and to whom; every contradiction to it is a broken promise. Knows no server and no driver."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from jobserver.driver.binding import Binding
from jobserver.model import AttemptRef, JobRecord, JobState, OnFailover

Values = tuple[str, ...]


class Oracle:
    """`broken` collects one sentence for each broken promise."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self.broken: list[str] = []
        self.acknowledgements = 0
        self.answers: dict[str, JobRecord] = {}
        self.accepted: dict[str, str] = {}
        self.kills: set[str] = set()
        self._values: dict[tuple[str, str], dict[int, Values]] = defaultdict(dict)
        self._begun: dict[AttemptRef, str] = {}
        self._executions: Counter[str] = Counter()
        self._saved: Counter[str] = Counter()
        self._epochs: Counter[str] = Counter()
        self._told: dict[tuple[str, int], str] = {}
        self._keys: dict[str, set[str]] = defaultdict(set)

    def breach(self, sentence: str) -> None:
        """A promise is broken. Said once, however often it is seen."""
        if sentence not in self.broken:
            self._say("CHECKER", sentence)
            self.broken.append(sentence)

    # Named values: each is a list that only grows, so that one history holds them all

    def acknowledged(self, context_id: str, name: str, values: Values, epoch: int) -> None:
        """A synchronous update returned: from now on it is part of every later value."""
        self._say("driver", f"update {len(values)} of {name} is acknowledged in epoch {epoch}: {values[-1]}")
        self.acknowledgements += 1
        for later, known in self._values[context_id, name].items():
            if later <= epoch:
                self._contains(values, known, f"an update of {name} returned without an acknowledged one")
            elif known[: len(values)] != values:
                self.breach(f"epoch {epoch} acknowledged {values[-1]} of {name}, and epoch {later} lacks it")
        self._values[context_id, name][epoch] = values

    def restored(self, context_id: str, all_values: Mapping[str, Values], epoch: int) -> None:
        """A new driver begins with these values: what older epochs acknowledged is in them, and all of it stays."""
        names = {name for context, name in self._values if context == context_id} | set(all_values)
        for name in sorted(names):
            values, known = all_values.get(name, ()), self._values[context_id, name]
            for older, theirs in known.items():
                if older < epoch:
                    self._contains(values, theirs, f"epoch {epoch} begins without an update of {name}")
            known[epoch] = max(values, known.get(epoch, ()), key=len)

    def count(self, context_id: str, name: str) -> int:
        """How many updates whoever asks now must see."""
        return len(self._newest(context_id, name))

    def _newest(self, context_id: str, name: str) -> Values:
        known = self._values[context_id, name]
        return known[max(known)] if known else ()

    def finished(self, job: JobRecord) -> None:
        """A result was accepted: what it says that it wrote is there, and it read no older state than was there before."""
        result = json.loads(job.result or "null")
        if not isinstance(result, dict):
            return
        name = result["name"]
        if "entry" in result:
            known = self._newest(job.context_id, name)
            if known[result["count"] - 1 : result["count"]] != (result["entry"],):
                self.breach(f"job {job.id} finished with {result}, and {name} is {', '.join(known)}")
            if not result["entry"].startswith((f"{job.id}/{job.attempt}", f"{job.id}/once")):
                self.breach(f"attempt {job.attempt} of job {job.id} was given the result {result['entry']}")
        elif result["read"] < result["least"]:
            self.breach(
                f"job {job.id} read {result['read']} entries of {name} after {result['least']} were written"
            )

    def last_value(self, context_id: str, name: str, values: Values) -> None:
        """What is there after healing."""
        self._contains(values, self._newest(context_id, name), f"{name} has lost an update")
        counts = Counter(entry for entry in values)
        for entry, count in counts.items():
            if count > 1:
                self.breach(f"{name} holds {entry} {count} times")

    def _contains(self, values: Values, known: Values, what: str) -> None:
        if values[: len(known)] != known:
            missing = [entry for entry in known if entry not in values] or ["(the order)"]
            self.breach(f"{what}: {', '.join(missing)}")

    # Attempts and epochs

    def begun(self, ref: AttemptRef, driver: str) -> None:
        """A driver runs an attempt: nobody ever did or will again."""
        self._say(driver, f"runs attempt {ref.attempt} of job {ref.job_id}")
        before = self._begun.get(ref)
        self._begun[ref] = driver
        self._executions[ref.job_id] += 1
        if before is not None:
            self.breach(f"attempt {ref.attempt} of job {ref.job_id} ran in {before} and in {driver}")

    def saved(self, ref: AttemptRef, step: int | dict[str, Any]) -> None:
        """An attempt's save of its progress returned: later attempts begin at that step, or have its result."""
        if isinstance(step, int):
            self._saved[ref.job_id] = max(self._saved[ref.job_id], step)

    def resumed(self, ref: AttemptRef, step: int) -> None:
        """An attempt begins at this step."""
        if step < self._saved[ref.job_id]:
            self.breach(
                f"attempt {ref.attempt} of job {ref.job_id} begins at step {step}, and {self._saved[ref.job_id]} was saved"
            )

    def executions(self, job_id: str) -> int:
        return self._executions[job_id]

    def told(self, driver: str, binding: Binding) -> None:
        """A driver took an epoch: no other driver of the context ever does."""
        context = binding.context.id if binding.context else "?"
        if binding.epoch <= self._epochs[driver]:
            self.breach(f"{driver} went from epoch {self._epochs[driver]} to {binding.epoch}")
        self._epochs[driver] = binding.epoch
        before = self._told.setdefault((context, binding.epoch), driver)
        if before != driver:
            self.breach(f"epoch {binding.epoch} of {context} was taken by {before} and by {driver}")

    # Clients

    def acceptance(self, key: str, job_id: str) -> None:
        """A client was told the id of its job."""
        self.accepted[job_id] = key
        self._keys[key].add(job_id)
        if len(self._keys[key]) > 1:
            self.breach(f"key {key} got the jobs {', '.join(sorted(self._keys[key]))}")

    def answer(self, job: JobRecord) -> None:
        """A client was shown the job; what is final stays."""
        before = self.answers.get(job.id)
        if before is not None and before.state.final and _shown(before) != _shown(job):
            self.breach(f"job {job.id} was shown as {_shown(before)} and later as {_shown(job)}")
        self.answers[job.id] = job

    def check_jobs(self, jobs: Mapping[str, JobRecord]) -> None:
        """After healing: every accepted job is final, as it was shown, within its attempts."""
        for job_id in self.accepted:
            job = jobs.get(job_id)
            if job is None:
                self.breach(f"job {job_id} was accepted and is gone")
                continue
            if not job.state.final:
                self.breach(f"job {job_id} ({job.spec.main_class}) is still {job.state}")
            if job_id in self.answers:
                self.answer(job)
        for job in jobs.values():
            self._check_attempts(job)
            if job.state is JobState.KILLED and job.id not in self.kills:
                self.breach(f"job {job.id} was KILLED, and nobody asked for it")

    def _check_attempts(self, job: JobRecord) -> None:
        if self.executions(job.id) > job.spec.max_attempts:
            self.breach(
                f"job {job.id} ran {self.executions(job.id)} times; max_attempts is {job.spec.max_attempts}"
            )
        if job.attempt > job.spec.max_attempts:
            self.breach(f"job {job.id} is in attempt {job.attempt}; max_attempts is {job.spec.max_attempts}")
        if self.executions(job.id) > 1 and job.spec.on_failover is OnFailover.FAIL:
            self.breach(f"job {job.id} ran {self.executions(job.id)} times; its on_failover is fail")


def _shown(job: JobRecord) -> str:
    return f"{job.state} {job.result if job.state is JobState.FINISHED else job.error and job.error.message}"
