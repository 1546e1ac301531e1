"""The bodies of rest_contract 1.2, and the only place where an error becomes an answer. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobserver.api.rejections import MalformedUrl, Rejected
from jobserver.api.routes import Route
from jobserver.errors import (
    ContextInitFailed,
    DriverFailed,
    JobLoadingFailed,
    JobServerError,
    NotAcceptable,
    QueueFull,
    TimedOut,
    ValidationFailed,
)
from jobserver.model import ErrorInfo

JSON = "application/json"
TEXT = "text/plain; charset=UTF-8"


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Answer:
    """A response before it meets HTTP."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Streamed:
    """A response whose body is made piece by piece; `length` in bytes where it is known before.

    A `lasting` one may go on for hours and be taken up again elsewhere: a server that leaves does not wait for it.
    """

    status: int
    chunks: AsyncGenerator[bytes, None]
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    lasting: bool = False


def dumps(value: Any) -> str:
    """Compact JSON, non-ASCII as it is."""
    return _ENCODER.encode(value)


def encoded(text: str) -> bytes:
    """UTF-8; half surrogates, which a broken header can bring in, become `?` rather than a failure."""
    return text.encode("utf-8", "replace")


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Any JSON value."""
    return Answer(status, encoded(dumps(value)), JSON, headers or {})


def text_answer(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Plain text, as the framework of existing servers sends it."""
    return Answer(status, encoded(text), TEXT, headers or {})


def ok(result: str | None = None, status: int = 200) -> Answer:
    """`OK()` and `OK(msg)` of the contract."""
    return json_answer({"status": "SUCCESS"} | ({} if result is None else {"result": result}), status)


def failed(status: int, message: str, title: str = "ERROR", retry_after: float | None = None) -> Answer:
    """`ERR(msg)`: the result is one sentence."""
    headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
    return json_answer({"status": title, "result": message}, status, headers)


def exception(status: int, title: str, error: ErrorInfo, extra: Mapping[str, Any] | None = None) -> Answer:
    """`EXC(title)`: the result is message, class and stack of an error. `extra` keys come after it."""
    return json_answer({"status": title, "result": error_value(error), **(extra or {})}, status)


def error_value(error: ErrorInfo) -> dict[str, str]:
    """An error as `result` holds it."""
    return {"message": error.message, "errorClass": error.error_class, "stack": error.stack}


def validation_failed(message: str) -> Answer:
    """A job's `validate` returned problems; the wording is what JVM clients match on."""
    if not message.startswith(("One(", "Many(")):
        message = f"One(SparkJobInvalid({message}))"
    return exception(400, "VALIDATION FAILED", ErrorInfo(message, "java.lang.Throwable"))


def internal_error() -> Answer:
    """Something nobody foresaw: no class, no stack, no sentence of ours."""
    return text_answer("There was an internal server error.", 500)


_TITLES = {Route.POST_CONTEXT: "CONTEXT INIT ERROR", Route.DELETE_CONTEXT: "CONTEXT DELETE ERROR"}


def error_answer(error: JobServerError, route: Route | None = None) -> Answer:
    """The answer to a request that ended in this error, on this route (None: before one was found)."""
    status = error.http_status
    match error:
        case Rejected():
            return text_answer(error.message, status, error.headers)
        case QueueFull():
            return failed(status, error.message, "NO SLOTS AVAILABLE", error.retry_after)
        case MalformedUrl():
            step = "CONTEXT INIT ERROR" if route is Route.POST_CONTEXT else "JOB LOADING FAILED"
            info = ErrorInfo(error.message, "java.net.MalformedURLException")
            return exception(status, f"{step}: Malformed URL", info)
        case JobLoadingFailed():
            return exception(
                status, "JOB LOADING FAILED", ErrorInfo(error.message, error.error_class, error.stack)
            )
        case ValidationFailed():
            return validation_failed(error.message)
        case TimedOut():
            info = ErrorInfo(error.message, "akka.pattern.AskTimeoutException")
            extra = {} if error.job_id is None else {"jobId": error.job_id}
            return exception(status, "ERROR", info, extra)
        case NotAcceptable():
            extra = {} if error.job_id is None else {"jobId": error.job_id}
            return json_answer({"status": "ERROR", "result": error.message, **extra}, status)
        case ContextInitFailed() | DriverFailed():
            title = _TITLES.get(route, "ERROR") if route else "ERROR"
            return exception(status, title, ErrorInfo(error.message, "java.lang.RuntimeException"))
        case _:
            return failed(status, error.message, retry_after=error.retry_after)
