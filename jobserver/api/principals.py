"""Who sends a request, and whether it may: HTTP Basic against a users file, or everybody as `anonymous` without one.

A password is hashed in a thread, and a few at a time, so guessing delays nobody who was admitted before. What was right is
remembered under a digest of name and password: a wrong password is never taken for a remembered one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import yaml

from jobserver.api.rejections import not_allowed, not_authenticated
from jobserver.errors import SettingsRefused
from jobserver.users import NOBODY, Caller, User, users_of

log = logging.getLogger(__name__)

ANONYMOUS = Caller("anonymous", unrestricted=True)
LOOK_EVERY = 2.0
"""Seconds between two looks whether the users file has changed."""
HASHES_AT_ONCE = 2
REMEMBERED = 10_000
"""Credentials that are remembered at most; then all are checked anew."""


class Principals(Protocol):
    """Who asks."""

    async def admit(self, headers: Mapping[str, str], permission: str | None) -> Caller:
        """Who sends these headers and has this permission (None: nobody needs one). Raises Rejected."""


class Everybody:
    """No authentication: the contract's default."""

    async def admit(self, headers: Mapping[str, str], permission: str | None) -> Caller:
        """See Principals."""
        return ANONYMOUS


class UsersFile:
    """Users of a file, which is read again when it has changed. Raises SettingsRefused when it cannot be used at first."""

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._now = now
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, str] = {}
        self._hashing = asyncio.Semaphore(HASHES_AT_ONCE)
        self._seen = self._mark()
        self._looked = now()
        self._users = read_users(path)

    async def admit(self, headers: Mapping[str, str], permission: str | None) -> Caller:
        """See Principals."""
        if permission is None:
            return ANONYMOUS
        given = headers.get("Authorization")
        if given is None:
            raise not_authenticated(supplied=False)
        user = await self._user(given)
        if user is None:
            raise not_authenticated(supplied=True)
        if not user.may(permission):
            raise not_allowed()
        return user.caller

    async def _user(self, header: str) -> User | None:
        self._look()
        found = credentials(header)
        if found is None:
            return None
        name, password = found
        digest = hashlib.blake2b(
            f"{name}:{password}".encode("utf-8", "surrogatepass"), key=self._key
        ).digest()
        user = self._users.get(name)
        if user is not None and digest in self._right:
            return user
        async with self._hashing:
            known = NOBODY if user is None else user.password
            right = await asyncio.to_thread(known.matches, password)
        # the file may have changed meanwhile: what was checked is what counts
        if user is None or not right or self._users.get(name) is not user:
            return None
        if len(self._right) >= REMEMBERED:
            self._right.clear()
        self._right[digest] = name
        return user

    def _look(self) -> None:
        if self._now() - self._looked < LOOK_EVERY:
            return
        self._looked = self._now()
        mark = self._mark()
        if mark == self._seen:
            return
        self._seen = mark
        try:
            self._users = read_users(self._path)
        except SettingsRefused as error:
            log.error("the users file %s cannot be used, its older users stay: %s", self._path, error.message)
            return
        self._right.clear()
        log.info("the users file %s was read again: %d users", self._path, len(self._users))

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def read_users(path: Path) -> dict[str, User]:
    """The users in a file. Raises SettingsRefused."""
    try:
        return users_of(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsRefused(f"access.users_file: {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise SettingsRefused(f"access.users_file: {path} is no YAML: {error}") from error


def credentials(header: str) -> tuple[str, str] | None:
    """Name and password of an `Authorization: Basic …`; None when it is none (RFC 7617)."""
    scheme, _, encoded = header.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    name, colon, password = text.partition(":")
    return (name, password) if colon else None
