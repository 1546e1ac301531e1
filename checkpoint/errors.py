"""Every error of the checkpoint layer, as one tree.

CheckpointError                   whose fault          what to do
├── StoreUnavailable              the store            repeat later; if it was a write, its outcome is unknown
├── Corrupt                       the store's disks    it says itself that all copies are broken: proof of damage
├── Missing                       the caller           the file is not there (proof of damage only if a manifest names it)
├── AlreadyExists                 a race               the name is taken by a durable file; read it to learn whose
├── Superseded                    a higher epoch       acknowledge nothing; hold until adopted, or end
├── StaleAttempt                  a newer attempt      the attempt of the job is over, its saves do not count
├── UnknownFormat                 a newer release      refuse to load: falling back would lose what it sealed
└── Damaged                       disk, or a stranger  report it; never load it as if it were good
    └── Foreign                   a stranger           intact, but sealed with another secret or for another context
"""

from __future__ import annotations

from enum import StrEnum


class CheckpointError(Exception):
    """Root of the tree; the text is one sentence for people."""


class Trouble(StrEnum):
    """Why a store does not do what it is asked."""

    AWAY = "away"  # nobody answers in time, no NameNode is active, or no DataNode lives
    FULL = "full"  # no room: disk or quota
    SAFE_MODE = "safe mode"  # HDFS takes no writes for now
    REFUSED = "refused"  # permissions, proof of who we are
    OTHER = "other"


class StoreUnavailable(CheckpointError):
    """The store did not do what it was asked, for now. Never proof of damage; of a write, the outcome is unknown.

    `kind` is the store's own name for it, where it has one.
    """

    def __init__(self, text: str, trouble: Trouble = Trouble.OTHER, kind: str = "") -> None:
        super().__init__(text)
        self.trouble = trouble
        self.kind = kind


class Corrupt(CheckpointError):
    """The store knows that it has lost the file's content: every copy of a part of it is broken."""


class Missing(CheckpointError):
    """No file has that path."""


class AlreadyExists(CheckpointError):
    """A file has that name already, and it is durable."""


class Superseded(CheckpointError):
    """A higher marker (or a foreign manifest) of `epoch` exists, so this writer may acknowledge nothing."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"epoch {epoch} has begun: nothing of an older one is acknowledged any more")
        self.epoch = epoch


class StaleAttempt(CheckpointError):
    """Progress was saved by an attempt of a job that a later attempt has replaced."""

    def __init__(self, job_id: str, attempt: int, current: int) -> None:
        super().__init__(f"attempt {attempt} of job {job_id} is over: attempt {current} has begun")
        self.job_id = job_id
        self.attempt = attempt
        self.current = current


class UnknownFormat(CheckpointError):
    """A genuine manifest was sealed by a release whose format this one does not know."""


class Damaged(CheckpointError):
    """Proof of damage. `what` is "manifest" or the name of an object, `manifest` the manifest that is or names it."""

    def __init__(self, what: str, manifest: str, why: str) -> None:
        super().__init__(f"{what} is damaged (manifest {manifest}): {why}")
        self.what = what
        self.manifest = manifest
        self.why = why


class Foreign(Damaged):
    """Intact, but not sealed by this cluster for this context."""
