"""Manifests (pure): what a context's named objects and its jobs' progress are, sealed as one file.

A manifest is full, or a delta that names its predecessor by name and digest. The file is JSON:

    {"format":3,"hmac":"<hex>","sha256":"<hex>","manifest":{…,"names":[…],"objects":[
    {…},
    {…}
    ]}}

The names stand for the lines in their order, so that a reader parses only the lines that it needs, and splits them when it
needs the first: at a takeover they are proven and not taken apart. The
SHA-256 is of the bytes of `{…}`, the HMAC of the format's number and these bytes. The envelope has one possible spelling
only, so a change of any byte of the file is found. It stays the same in every format, so that a manifest of a newer release
is told from a damaged one. Nothing in a manifest is looked at, let alone unpickled, before both fit.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from checkpoint import layout
from checkpoint.errors import Damaged, Foreign, UnknownFormat
from checkpoint.records import (
    INLINE_LIMIT,
    FileEntry,
    Kind,
    NamedObject,
    Records,
    bytes_of,
    object_of,
    text_of,
)

__all__ = [
    "FORMAT",
    "INLINE_LIMIT",
    "READABLE",
    "BaseRef",
    "FileEntry",
    "Kind",
    "Manifest",
    "NamedObject",
    "Progress",
    "decode",
    "digest_of",
    "encode",
]

FORMAT = 3
"""The format that is written. 2 added `origin` and `used` of objects; format 1 is read as if both were empty. 3 puts the objects
last, each on a line of its own, and their names before them."""
READABLE = frozenset({1, 2, 3})
"""The formats that are read."""

_HEAD = re.compile(
    rb'\{"format":([1-9][0-9]{0,8}),"hmac":"([0-9a-f]{64})","sha256":"([0-9a-f]{64})","manifest":'
)
_text_of = json.JSONEncoder(separators=(",", ":")).encode
"""One encoder for all: `json.dumps` makes a new one for each text that is not written as by default."""
_END = b"}\n"
_NAMES = b',"names":['
_LINES_BEGIN = b',"objects":[\n'
_LINES_END = b"\n]}"


@dataclass(frozen=True, slots=True)
class Progress:
    """What a job has saved of itself: `inline` bytes, or a `path` relative to the context's folder, or nothing yet.

    An attempt that begins saves the progress it starts from under its own number; from then on older ones are refused.
    """

    attempt: int
    inline: bytes | None = None
    path: str | None = None
    size: int = 0
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class BaseRef:
    """Another manifest, by name and by the SHA-256 inside it."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is sealed (`full`), or what changed since `base`.

    `removed` names objects, and `forgotten` jobs whose progress is no longer kept; both only in deltas.
    """

    context_id: str
    epoch: int
    seq: int
    base: BaseRef | None
    full: bool
    objects: Mapping[str, NamedObject] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    progress: Mapping[str, Progress] = field(default_factory=dict)
    forgotten: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return layout.manifest_name(self.epoch, self.seq)


def encode(manifest: Manifest, secret: bytes) -> bytes:
    """The bytes to seal; equal manifests give equal bytes."""
    lines = Records.of(manifest.objects).lines
    names = sorted(lines)
    head = _text_of({**_plain(manifest), "names": names})[:-1] + ',"objects":[\n'
    body = head.encode("ascii") + b",\n".join([lines[name] for name in names]) + _LINES_END
    return _envelope(FORMAT, _proof(FORMAT, body, secret), hashlib.sha256(body).hexdigest(), body)


def decode(data: bytes, secret: bytes, name: str) -> Manifest:
    """The manifest sealed under that name. Raises Damaged, Foreign or UnknownFormat."""
    head = _HEAD.match(data)
    if not head or not data.endswith(_END):
        raise Damaged("manifest", name, f"its {len(data)} bytes are no whole manifest")
    number, proof, digest = int(head[1]), head[2].decode(), head[3].decode()
    body = memoryview(data)[head.end() : -len(_END)]  # megabytes, which nobody need copy
    if hashlib.sha256(body).hexdigest() != digest:
        raise Damaged("manifest", name, "its digest does not fit its content")
    if not hmac.compare_digest(proof, _proof(number, body, secret)):
        raise Foreign("manifest", name, "it was not sealed with this cluster's secret")
    if number not in READABLE:
        known = ", ".join(map(str, sorted(READABLE)))
        raise UnknownFormat(f"manifest {name} has format {number}; this release reads {known}")
    manifest = _parsed(data, head.end(), number, name)
    if manifest.name != name:
        raise Damaged("manifest", name, f"it says that it is {manifest.name}")
    return manifest


def digest_of(data: bytes) -> str:
    """The SHA-256 inside encoded bytes, by which a successor names them. Raises ValueError if there is none."""
    head = _HEAD.match(data)
    if not head or not data.endswith(_END):
        raise ValueError("these bytes are no manifest")
    return head[3].decode()


def _envelope(number: int, proof: str, digest: str, body: bytes) -> bytes:
    head = f'{{"format":{number},"hmac":"{proof}","sha256":"{digest}","manifest":'
    return head.encode("ascii") + body + _END


def _proof(number: int, body: bytes | memoryview, secret: bytes) -> str:
    proof = hmac.new(secret, f"manifest {number}\n".encode(), hashlib.sha256)
    proof.update(body)
    return proof.hexdigest()


def _plain(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON's own types, without its objects."""
    return {
        "context_id": manifest.context_id,
        "epoch": manifest.epoch,
        "seq": manifest.seq,
        "base": None if manifest.base is None else [manifest.base.name, manifest.base.digest],
        "full": manifest.full,
        "removed": list(manifest.removed),
        "progress": {job: _plain_progress(manifest.progress[job]) for job in sorted(manifest.progress)},
        "forgotten": list(manifest.forgotten),
    }


def _plain_progress(saved: Progress) -> dict[str, Any]:
    return {
        "attempt": saved.attempt,
        "inline": text_of(saved.inline),
        "path": saved.path,
        "size": saved.size,
        "sha256": saved.sha256,
    }


def _parsed(data: bytes, first: int, number: int, name: str) -> Manifest:
    """The manifest whose body, proven, begins at `first`. Raises Damaged."""
    try:
        if number < 3:
            plain = json.loads(data[first : -len(_END)])
            items = [object_of(item) for item in plain["objects"]]
            return _manifest(plain, {item.name: item for item in items})
        # neither text can be inside of a string of JSON, where each quote has a backslash before it
        names = data.index(_NAMES, first)
        lines = data.index(_LINES_BEGIN, names)
        listed = data[names + len(_NAMES) - 1 : lines]
        objects = _records(data, lines + len(_LINES_BEGIN), listed, name)
        return _manifest(json.loads(data[first:names] + b"}"), objects)
    except (KeyError, TypeError, ValueError) as error:
        raise _wrong(name, error) from error


def _wrong(name: str, error: Exception) -> Damaged:
    """Genuine, yet not as `encode` writes it: a bug in whoever sealed it, which must not pass for good data."""
    return Damaged("manifest", name, f"its content is not as its format has it ({error})")


def _records(data: bytes, first: int, names: bytes, manifest: str) -> Records:
    """The objects of the lines from `first` on, by their names, a list in JSON; raises Damaged when they are asked for."""

    def split() -> Records:
        try:
            if not data.endswith(_LINES_END + _END):
                raise ValueError("the list of its objects has no end")
            text = data[first : -len(_LINES_END + _END)]
            return Records(dict(zip(json.loads(names), text.split(b",\n") if text else [], strict=True)))
        except (TypeError, ValueError) as error:
            raise _wrong(manifest, error) from error

    return Records.later(split, some=True) if names != b"[]" else split()


def _manifest(plain: dict[str, Any], objects: Mapping[str, NamedObject]) -> Manifest:
    manifest = Manifest(
        context_id=plain["context_id"],
        epoch=plain["epoch"],
        seq=plain["seq"],
        base=None if plain["base"] is None else BaseRef(*plain["base"]),
        full=plain["full"],
        objects=objects,
        removed=tuple(plain["removed"]),
        progress={job: _progress(saved) for job, saved in plain["progress"].items()},
        forgotten=tuple(plain["forgotten"]),
    )
    if not manifest.full and manifest.base is None:
        raise ValueError("a delta names no predecessor")
    return manifest


def _progress(plain: dict[str, Any]) -> Progress:
    return Progress(**{**plain, "inline": bytes_of(plain["inline"])})
