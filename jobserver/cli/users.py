"""`jobserver config user | check-users`: entries of a users file."""

from __future__ import annotations

import getpass
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from jobserver.errors import BadRequest
from jobserver.users import PasswordHash, users_of

SALT = 16
"""Bytes of a password's salt."""


def entry(name: str, permissions: Sequence[str], roles: Sequence[str]) -> str:
    """Lines for the section `users`. Raises BadRequest, SettingsRefused."""
    password = _password(name)
    if not password:
        raise BadRequest("the password is empty")
    fields: dict[str, object] = {"password": str(PasswordHash.of(password, secrets.token_bytes(SALT)))}
    if roles:
        fields["roles"] = list(roles)
    if permissions:
        fields["permissions"] = list(permissions)
    users_of(
        {"users": {name: fields}, "roles": {role: [] for role in roles}}
    )  # refuses what no server would take
    text = yaml.safe_dump({name: fields}, sort_keys=False, allow_unicode=True, width=1000)
    return "".join(f"  {line}\n" for line in text.splitlines())


def check(file: Path) -> str:
    """What is in a users file. Raises SettingsRefused."""
    from jobserver.api.principals import read_users

    return f"{file} is good: {len(read_users(file))} users."


def _password(name: str) -> str:
    if sys.stdin.isatty():
        first = getpass.getpass(f"Password of {name}: ")
        if getpass.getpass("Again: ") != first:
            raise BadRequest("the two passwords differ")
        return first
    return sys.stdin.readline().rstrip("\r\n")
