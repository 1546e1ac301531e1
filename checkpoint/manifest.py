"""Manifests (pure): what a context's named objects and its jobs' progress are, sealed as one file.

A manifest is full, or a delta that names its predecessor by name and digest. The file is JSON:

    {"format":1,"hmac":"<hex>","sha256":"<hex>","manifest":{…}}

The SHA-256 is of the bytes of `{…}`, the HMAC of the format's number and these bytes. The envelope has one possible
spelling only, so a change of any byte of the file is found. It stays the same in every format, so that a manifest of a
newer release is told from a damaged one. Nothing in a manifest is looked at, let alone unpickled, before both fit.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from checkpoint import layout
from checkpoint.errors import Damaged, Foreign, UnknownFormat

FORMAT = 2
"""The format that is written. 2 added `origin` and `used` of objects; format 1 is read as if both were empty."""
READABLE = frozenset({1, 2})
"""The formats that are read."""
INLINE_LIMIT = 64 * 1024
"""Largest pickled value in bytes that a manifest itself carries."""

_ENVELOPE = re.compile(
    rb'\{"format":([1-9][0-9]{0,8}),"hmac":"([0-9a-f]{64})","sha256":"([0-9a-f]{64})","manifest":(.*)\}\n',
    re.DOTALL,
)


class Kind(StrEnum):
    """What a named object is."""

    DATAFRAME = "dataframe"
    RDD = "rdd"
    BROADCAST = "broadcast"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A data file, relative to its object's folder; `size` in bytes, `sha256` in hex where it was computed."""

    name: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class NamedObject:
    """One version of a named object.

    `path` is relative to the context's folder; `inline` is a pickled value of at most INLINE_LIMIT bytes; `schema` is
    Spark's JSON; `size` is bytes of the data. `origin` is the driver's text on how it can be made again; `used` how
    often it was handed out, as a power of two (0: never, n: at least 2 ** (n - 1) times).
    """

    name: str
    kind: Kind
    version: str
    strategy: str
    durability: str
    storage_level: str = ""
    schema: str | None = None
    path: str | None = None
    inline: bytes | None = None
    files: tuple[FileEntry, ...] = ()
    rows: int | None = None
    size: int = 0
    origin: str | None = None
    used: int = 0

    def __post_init__(self) -> None:
        try:
            self.name.encode()
        except UnicodeEncodeError as error:
            # half characters: JSON would join two of them into one, which is another name
            raise ValueError(f"{self.name!r} is no valid Unicode text") from error
        if self.inline is not None and len(self.inline) > INLINE_LIMIT:
            raise ValueError(
                f"{self.name!r} has {len(self.inline)} bytes inline; at most {INLINE_LIMIT} are allowed"
            )


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
    body = json.dumps(_plain(manifest), sort_keys=True, separators=(",", ":")).encode("ascii")
    return _envelope(FORMAT, _proof(FORMAT, body, secret), hashlib.sha256(body).hexdigest(), body)


def decode(data: bytes, secret: bytes, name: str) -> Manifest:
    """The manifest sealed under that name. Raises Damaged, Foreign or UnknownFormat."""
    found = _ENVELOPE.fullmatch(data)
    if not found:
        raise Damaged("manifest", name, f"its {len(data)} bytes are no whole manifest")
    number, proof, digest, body = int(found[1]), found[2].decode(), found[3].decode(), found[4]
    if hashlib.sha256(body).hexdigest() != digest:
        raise Damaged("manifest", name, "its digest does not fit its content")
    if not hmac.compare_digest(proof, _proof(number, body, secret)):
        raise Foreign("manifest", name, "it was not sealed with this cluster's secret")
    if number not in READABLE:
        known = ", ".join(map(str, sorted(READABLE)))
        raise UnknownFormat(f"manifest {name} has format {number}; this release reads {known}")
    manifest = _parsed(body, name)
    if manifest.name != name:
        raise Damaged("manifest", name, f"it says that it is {manifest.name}")
    return manifest


def digest_of(data: bytes) -> str:
    """The SHA-256 inside encoded bytes, by which a successor names them. Raises ValueError if there is none."""
    found = _ENVELOPE.fullmatch(data)
    if not found:
        raise ValueError("these bytes are no manifest")
    return found[3].decode()


def _envelope(number: int, proof: str, digest: str, body: bytes) -> bytes:
    head = f'{{"format":{number},"hmac":"{proof}","sha256":"{digest}","manifest":'
    return head.encode("ascii") + body + b"}\n"


def _proof(number: int, body: bytes, secret: bytes) -> str:
    return hmac.new(secret, f"manifest {number}\n".encode() + body, hashlib.sha256).hexdigest()


def _plain(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON's own types."""
    return {
        "context_id": manifest.context_id,
        "epoch": manifest.epoch,
        "seq": manifest.seq,
        "base": None if manifest.base is None else [manifest.base.name, manifest.base.digest],
        "full": manifest.full,
        "objects": [_plain_object(manifest.objects[name]) for name in sorted(manifest.objects)],
        "removed": list(manifest.removed),
        "progress": {job: _plain_progress(saved) for job, saved in manifest.progress.items()},
        "forgotten": list(manifest.forgotten),
    }


def _plain_object(item: NamedObject) -> dict[str, Any]:
    return {
        "name": item.name,
        "kind": item.kind.value,
        "version": item.version,
        "strategy": item.strategy,
        "durability": item.durability,
        "storage_level": item.storage_level,
        "schema": item.schema,
        "path": item.path,
        "inline": _text(item.inline),
        "files": [[entry.name, entry.size, entry.sha256] for entry in item.files],
        "rows": item.rows,
        "size": item.size,
        **({} if item.origin is None else {"origin": item.origin}),
        **({"used": item.used} if item.used else {}),
    }


def _plain_progress(saved: Progress) -> dict[str, Any]:
    return {
        "attempt": saved.attempt,
        "inline": _text(saved.inline),
        "path": saved.path,
        "size": saved.size,
        "sha256": saved.sha256,
    }


def _parsed(body: bytes, name: str) -> Manifest:
    """The manifest in a body whose digest and proof fit. Raises Damaged."""
    try:
        return _manifest(json.loads(body))
    except (KeyError, TypeError, ValueError) as error:
        # genuine, yet not as `encode` writes it: a bug in whoever sealed it, which must not pass for good data
        raise Damaged("manifest", name, f"its content is not as its format has it ({error})") from error


def _manifest(plain: dict[str, Any]) -> Manifest:
    items = [_object(item) for item in plain["objects"]]
    manifest = Manifest(
        context_id=plain["context_id"],
        epoch=plain["epoch"],
        seq=plain["seq"],
        base=None if plain["base"] is None else BaseRef(*plain["base"]),
        full=plain["full"],
        objects={item.name: item for item in items},
        removed=tuple(plain["removed"]),
        progress={job: _progress(saved) for job, saved in plain["progress"].items()},
        forgotten=tuple(plain["forgotten"]),
    )
    if not manifest.full and manifest.base is None:
        raise ValueError("a delta names no predecessor")
    return manifest


def _object(plain: dict[str, Any]) -> NamedObject:
    kind, inline, files = Kind(plain["kind"]), _bytes(plain["inline"]), plain["files"]
    return NamedObject(
        **{**plain, "kind": kind, "inline": inline, "files": tuple(FileEntry(*entry) for entry in files)}
    )


def _progress(plain: dict[str, Any]) -> Progress:
    return Progress(**{**plain, "inline": _bytes(plain["inline"])})


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
