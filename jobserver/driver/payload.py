"""Pickled values that name the uploaded code they need, so that another driver can load it first (pure).

A payload is a header's length, the header in JSON, and the pickle. Classes of uploaded code are pickled by reference to
their bundle (see `bundles`); the header says which upload each of these bundles was made of.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cloudpickle

from jobserver.model import BinaryType

_LENGTH = struct.Struct(">I")
_ROOTS = re.compile(rb"c[0-9a-f]{12}(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class BundleSource:
    """The upload that a bundle was made of; `module` matters for single files only."""

    digest: str
    type: BinaryType
    module: str


def pack(value: Any, known: Mapping[str, BundleSource]) -> bytes:
    """The payload of a value; `known` are the bundles of this process, by their root name."""
    data: bytes = cloudpickle.dumps(value)
    roots = sorted({found.decode() for found in _ROOTS.findall(data)} & known.keys())
    needed = {root: [known[root].digest, known[root].type.value, known[root].module] for root in roots}
    header = json.dumps(needed, separators=(",", ":")).encode()
    return _LENGTH.pack(len(header)) + header + data


def unpack(payload: bytes, provide: Callable[[str, BundleSource], None]) -> Any:
    """The value of a payload; `provide` is called for each bundle before anything is unpickled."""
    (length,) = _LENGTH.unpack_from(payload)
    start = _LENGTH.size + length
    for root, (digest, kind, module) in json.loads(payload[_LENGTH.size : start]).items():
        provide(root, BundleSource(digest, BinaryType(kind), module))
    return cloudpickle.loads(payload[start:])
