"""Every error the product raises on purpose, as one tree.

JobServerError                      http  whose fault    retry helps
├── CallerError                                caller
│   ├── BadRequest                  400   the request    no
│   │   ├── BadConfig               400   body is no HOCON object, or a needed key is missing
│   │   ├── BadBinary               400   bytes are not of the type that was named
│   │   ├── ContextExists           400   a living context has that name
│   │   ├── InvalidJobType          400   the binary's kind does not run in this context
│   │   ├── JobLoadingFailed        400   code was found and could not be loaded
│   │   └── ValidationFailed        400   the job's own `validate` refused
│   ├── BinaryInUse                 403   delete of a binary that a running job uses
│   ├── NotFound                    404   nothing has that name or id
│   ├── NotAcceptable               406   what was asked for exists, but not in a form that the client takes
│   ├── ContextStopping             409   the context is on its way out
│   ├── ObjectRefused               409   a named object is not what the request needs, or its refresh failed
│   ├── MoveRefused                 409   a planned move cannot be made now; nothing has changed
│   ├── UnsupportedBinaryType       415   content type is missing or unknown
│   └── KeyReused                   422   same Idempotency-Key, another request
├── Unavailable                     503   dependency     yes, after `retry_after` seconds
│   ├── QueueFull                   503   all slots and the queue behind them are taken
│   ├── Outdated                    503   a submission's binary was replaced meanwhile; the server tries again by itself
│   ├── StoreUnavailable            503   SQL does not answer
│   ├── CoordinationUnavailable     503   ZooKeeper does not answer
│   └── OwnerUnavailable            503   nobody owns the context yet (a failover is under way)
├── OutcomeUnknown                  503   the write may or may not have happened: read back, or repeat with the key
├── Superseded                      503   a higher epoch or attempt exists: this process may not acknowledge
├── TimedOut                        500   the wait the client asked for is over; the work goes on
├── ContextInitFailed               500   the driver could not be started
├── DriverFailed                    500   the driver refused or broke the protocol
├── WrongSchema                           the operator   no: run `jobserver db upgrade`; met at start only
├── SettingsRefused                       the operator   no: the settings file is wrong; met at start only
└── LocalPartFailed                       this machine   a part of a local cluster could not be found, started or stopped

Answers are made from these in `jobserver/api/envelopes.py` alone.
"""

from __future__ import annotations


class JobServerError(Exception):
    """Root. `message` is one sentence for the caller: what was wrong, what was expected, what to do."""

    http_status = 500
    retry_after: float | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class CallerError(JobServerError):
    """The request cannot be served as it is; repeating it does not help."""

    http_status = 400


class BadRequest(CallerError):
    """A parameter, path or body is not what the route takes."""


class BadConfig(BadRequest):
    """The posted configuration cannot be used."""


class BadBinary(BadRequest):
    """The uploaded bytes are not of the declared type."""


class ContextExists(BadRequest):
    """A context of that name is not in a final state."""


class InvalidJobType(BadRequest):
    """The kind of binary does not fit the context."""


class JobLoadingFailed(BadRequest):
    """The job's code was found, and importing or constructing it failed."""

    def __init__(self, message: str, error_class: str = "", stack: str = "") -> None:
        super().__init__(message)
        self.error_class = error_class
        self.stack = stack


class ValidationFailed(BadRequest):
    """The job's `validate` returned problems."""


class BinaryInUse(CallerError):
    """A job that has not ended uses the binary."""

    http_status = 403


class NotFound(CallerError):
    """No such thing."""

    http_status = 404


class NotAcceptable(CallerError):
    """It cannot be had in a form that the client accepts; `job_id` (if any) is that of the job whose result it is."""

    http_status = 406

    def __init__(self, message: str, job_id: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class ContextStopping(CallerError):
    """The context is being stopped."""

    http_status = 409


class ObjectRefused(CallerError):
    """What was asked of a named object cannot be done to this one; the sentence says why and what can."""

    http_status = 409


class MoveRefused(CallerError):
    """A switchover or drain cannot be carried out now; the context goes on where it is."""

    http_status = 409


class UnsupportedBinaryType(CallerError):
    """The Content-Type of an upload names no kind of binary."""

    http_status = 415


class KeyReused(CallerError):
    """The Idempotency-Key was used for a different request."""

    http_status = 422


class Unavailable(JobServerError):
    """Something that this needs is away for now; the same request may succeed later."""

    http_status = 503
    retry_after = 1.0


class QueueFull(Unavailable):
    """Slots and queue of the context are taken."""


class Outdated(Unavailable):
    """The binary that a job was to be accepted with is not the latest of its name any more."""


class StoreUnavailable(Unavailable):
    """The metadata store did not answer in time."""


class CoordinationUnavailable(Unavailable):
    """ZooKeeper did not answer in time."""


class OwnerUnavailable(Unavailable):
    """The context has no owner at this moment, or the owner could not be reached."""


class OutcomeUnknown(JobServerError):
    """A write was sent and its reply was lost. Never treated as done or as not done."""

    http_status = 503
    retry_after = 1.0


class Superseded(JobServerError):
    """A guarded write met a higher epoch or attempt."""

    http_status = 503
    retry_after = 0.2


class TimedOut(JobServerError):
    """The wait is over; `job_id` (if any) goes on and can be asked for."""

    def __init__(self, message: str, job_id: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class ContextInitFailed(JobServerError):
    """Starting or restoring the driver of a context failed for good."""


class DriverFailed(JobServerError):
    """The driver answered a request with a refusal, or vanished while it was asked."""


class WrongSchema(JobServerError):
    """The metadata store's schema is older or later than the one of this release."""


class SettingsRefused(JobServerError):
    """Settings that cannot be used; `message` has one line per fault."""


class LocalPartFailed(JobServerError):
    """Java, ZooKeeper, a port, a directory or a server of a local cluster is not what it must be."""
