"""Refusals that only the HTTP side knows: the plain-text answers of rest_contract 1.5, and URLs no job can load.

They belong to the tree of `jobserver.errors` and become answers in `envelopes` like every other error.
"""

from __future__ import annotations

from collections.abc import Mapping

from jobserver.errors import BadRequest, CallerError


class Rejected(CallerError):
    """Refused before any handler: answered as `text/plain` with this status, text and headers."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.http_status = status
        self.headers = dict(headers or {})


class MalformedUrl(BadRequest):
    """A class path entry is a URL of a kind that no existing server loads (contract 4.3 and 5.5)."""


class InvalidKey(BadRequest):
    """The Idempotency-Key is not printable text of 1 to 255 characters."""


_CHALLENGE = {"WWW-Authenticate": 'Basic realm="Sparkjobserver Private",charset=UTF-8'}


def not_authenticated(*, supplied: bool) -> Rejected:
    """No credentials came, or wrong ones."""
    text = (
        "The supplied authentication is invalid"
        if supplied
        else "The resource requires authentication, which was not supplied with the request"
    )
    return Rejected(401, text, _CHALLENGE)


def not_allowed() -> Rejected:
    """Who asks is known, and lacks the permission."""
    return Rejected(403, "The supplied authentication is not authorized to access this resource")


def no_route() -> Rejected:
    """Nothing is served under this path."""
    return Rejected(404, "The requested resource could not be found.")


def wrong_method(methods: str) -> Rejected:
    """The path's first part is known, the method is not one of its methods (a comma list)."""
    return Rejected(405, f"HTTP method not allowed, supported methods: {methods}", {"Allow": methods})


def unknown_method() -> Rejected:
    """`_method` names no HTTP method."""
    return Rejected(
        501,
        "The server either does not recognize the request method, or it lacks the ability to fulfill the request.",
    )


def malformed(parameter: str, sentence: str) -> Rejected:
    """A typed query parameter cannot be read."""
    return Rejected(400, f"The query parameter '{parameter}' was malformed:\n{sentence}")


def missing(parameter: str) -> Rejected:
    """A required query parameter is absent (404 in the contract, not 400)."""
    return Rejected(404, f"Request is missing required query parameter '{parameter}'")


def too_large(size: int, limit: int) -> Rejected:
    """The body is over the limit; `size` is what was announced or has arrived."""
    return Rejected(
        413,
        "The request content was malformed:\nEntityStreamSizeException: "
        f"incoming entity size ({size}) exceeded size limit ({limit} bytes)!",
    )


def too_slow(seconds: float) -> Rejected:
    """The body did not arrive in time."""
    return Rejected(408, f"The request body did not arrive within {seconds:g} seconds.")


def broken_body() -> Rejected:
    """The body's encoding or length contradicts its headers."""
    return Rejected(400, "The request content was malformed:\nthe body does not match its headers")
