"""Users, their passwords and permissions, as the users file says. Pure but for the time that a hash takes.

```
roles:
  reader: [binaries:read, contexts:read, jobs:read, data:read]
users:
  ann: {password: "scrypt:…", roles: [reader], permissions: [jobs]}
```
A permission is a word of `PERMISSIONS`, or its part before the colon for all of them, or `*`. Who has none may do nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobserver.errors import SettingsRefused

PERMISSIONS = frozenset(
    {
        *("binaries:read", "binaries:upload", "binaries:delete"),
        *("contexts:read", "contexts:start", "contexts:delete", "contexts:reset"),
        *("data:read", "data:upload", "data:delete", "data:reset"),
        *("jobs:read", "jobs:start", "jobs:delete"),
        *("cluster:read", "cluster:move"),
    }
)
"""Those of rest_contract section 8; `cluster` is ours: the picture and the audit, planned moves."""
_WORDS = PERMISSIONS | {each.partition(":")[0] for each in PERMISSIONS} | {"*"}
_COST, _BLOCK, _LANES = 2**14, 8, 1
"""Of scrypt (RFC 7914): 16 MiB and some 40 ms for one hash."""
_LONGEST = 255
_FORM = "scrypt:<cost>:<block>:<lanes>:<salt>:<hash>"


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """A salted scrypt hash. Its text is `scrypt:<cost>:<block>:<lanes>:<salt>:<hash>`, the last two in base64."""

    cost: int
    block: int
    lanes: int
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, password: str, salt: bytes) -> PasswordHash:
        """The hash of a password. Takes some 40 ms."""
        return cls(_COST, _BLOCK, _LANES, salt, _scrypt(password, salt, _COST, _BLOCK, _LANES, 32))

    @classmethod
    def parse(cls, text: object) -> PasswordHash:
        """The hash in a text. Raises ValueError."""
        parts = text.split(":") if isinstance(text, str) else []
        if len(parts) != 6 or parts[0] != "scrypt":
            raise ValueError(f"is not of the form {_FORM}")
        try:
            cost, block, lanes = (int(part) for part in parts[1:4])
            salt, digest = (base64.b64decode(part, validate=True) for part in parts[4:])
        except (ValueError, binascii.Error):
            raise ValueError(f"is not of the form {_FORM}") from None
        if not (2 <= cost <= 2**20 and cost & (cost - 1) == 0 and 1 <= block <= 32 and 1 <= lanes <= 16):
            raise ValueError("asks for a cost that no server would pay")
        if len(salt) < 8 or not 16 <= len(digest) <= 64:
            raise ValueError("has too short a salt, or a hash of no known length")
        return cls(cost, block, lanes, salt, digest)

    def __str__(self) -> str:
        salt, digest = (base64.b64encode(each).decode() for each in (self.salt, self.digest))
        return f"scrypt:{self.cost}:{self.block}:{self.lanes}:{salt}:{digest}"

    def matches(self, password: str) -> bool:
        """Whether it is the hash of this password. Takes some 40 ms, whatever the answer."""
        found = _scrypt(password, self.salt, self.cost, self.block, self.lanes, len(self.digest))
        return hmac.compare_digest(found, self.digest)


def _scrypt(password: str, salt: bytes, cost: int, block: int, lanes: int, size: int) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")
    memory = 128 * block * (cost + lanes + 2) + 2**20
    return hashlib.scrypt(secret, salt=salt, n=cost, r=block, p=lanes, maxmem=memory, dklen=size)


NOBODY = PasswordHash(_COST, _BLOCK, _LANES, b"nobody has this", bytes(32))
"""What the password of an unknown user is compared with, so that its refusal takes as long as any other."""


@dataclass(frozen=True, slots=True)
class User:
    """Who may ask, and for what."""

    name: str
    password: PasswordHash
    permissions: frozenset[str]

    def may(self, permission: str) -> bool:
        """Whether a permission of `PERMISSIONS` is granted: itself, its parent, or everything."""
        return bool(self.permissions & {permission, permission.partition(":")[0], "*"})

    @property
    def caller(self) -> Caller:
        """As handlers know it."""
        return Caller(self.name, "*" in self.permissions)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. `unrestricted`: whoever may do everything, and so may act for others, too."""

    name: str
    unrestricted: bool = False


def users_of(document: Any) -> dict[str, User]:
    """The users by name in a parsed users file. Raises SettingsRefused, which names every fault in a line of its own."""
    faults: list[str] = []
    plain = _mapping(document, "the users file", faults)
    faults += [
        f"{key} is no section of a users file: these are roles and users."
        for key in plain
        if key not in ("roles", "users")
    ]
    roles = {
        str(name): _words(f"roles.{name}", words, faults)
        for name, words in _mapping(plain.get("roles") or {}, "roles", faults).items()
    }
    users = {
        str(name): _user(str(name), _mapping(entry, f"users.{name}", faults), roles, faults)
        for name, entry in _mapping(plain.get("users") or {}, "users", faults).items()
    }
    if not users and not faults:
        faults.append("the users file has no users: nobody could do anything.")
    if faults:
        raise SettingsRefused("\n".join(faults))
    return {name: user for name, user in users.items() if user is not None}


def _user(
    name: str, entry: Mapping[Any, Any], roles: Mapping[str, frozenset[str]], faults: list[str]
) -> User | None:
    where = f"users.{name}"
    if not name or ":" in name or not name.isprintable() or len(name) > _LONGEST:
        faults.append(f"{where}: a name is printable text without a colon, of at most {_LONGEST} characters.")
    faults += [
        f"{where}.{key} is no key of a user: these are password, roles and permissions."
        for key in entry
        if key not in ("password", "roles", "permissions")
    ]
    granted = _words(f"{where}.permissions", entry.get("permissions") or [], faults)
    for role in _texts(f"{where}.roles", entry.get("roles") or [], faults):
        if role not in roles:
            faults.append(f"{where}.roles: there is no role {role!r}.")
        granted |= roles.get(role, frozenset())
    try:
        return User(name, PasswordHash.parse(entry.get("password")), granted)
    except ValueError as error:
        faults.append(f"{where}.password {error}: `jobserver config user {name}` makes one.")
        return None


def _mapping(value: Any, where: str, faults: list[str]) -> Mapping[Any, Any]:
    if isinstance(value, dict):
        return value
    faults.append(f"{where} must be a mapping.")
    return {}


def _texts(where: str, value: Any, faults: list[str]) -> list[str]:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    faults.append(f"{where} must be a list of texts.")
    return []


def _words(where: str, value: Any, faults: list[str]) -> frozenset[str]:
    words = _texts(where, value, faults)
    faults += [
        f"{where}: {word!r} is no permission; these are {', '.join(sorted(_WORDS))}."
        for word in words
        if word not in _WORDS
    ]
    return frozenset(words)
