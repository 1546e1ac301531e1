"""Named objects as manifests hold them (pure): one version as a value, and all of a context by name.

An object is a line of JSON in its manifest, and stays one until it is asked for: a context of ten thousand objects is changed
and sealed again without parsing those that nobody touches, and restored without even looking for where each line ends.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from checkpoint.errors import Damaged

INLINE_LIMIT = 64 * 1024
"""Largest pickled value in bytes that a manifest itself carries."""

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
"""One encoder for all: `json.dumps` makes a new one for each text that is not written as by default."""


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


class Records(Mapping[str, NamedObject]):
    """The named objects of a context at one moment, by name. Never changes; each is parsed when it is first asked for.

    Thread-safe: what is made later is made whole before it is seen, and making it twice gives the same.
    """

    __slots__ = ("_lines", "_make", "_parsed", "_some")

    def __init__(
        self, lines: Mapping[str, bytes] = {}, parsed: Mapping[str, NamedObject] | None = None
    ) -> None:
        """`lines`: by name, what `line_of` makes of it, from a proven source; `parsed`: some of the same as values."""
        self._lines: dict[str, bytes] | None = dict(lines)
        self._parsed = dict(parsed or {})  # only ever gains what the lines hold
        self._make: Callable[[], Records] | None = None
        self._some = bool(lines)

    @classmethod
    def later(cls, make: Callable[[], Records], *, some: bool) -> Records:
        """What `make` gives, which is called when one of them is first asked for. `some`: there is one for certain."""
        made = cls()
        made._lines, made._make, made._some = None, make, some
        return made

    @classmethod
    def of(cls, objects: Mapping[str, NamedObject]) -> Records:
        """These objects; nothing is made anew of what are records already."""
        if isinstance(objects, Records):
            return objects
        return cls({name: line_of(item) for name, item in objects.items()}, objects)

    @property
    def lines(self) -> Mapping[str, bytes]:
        """The line of each, by name; not to be changed. Raises what `make` raises."""
        make = self._make  # before the lines: another thread that makes them forgets it after it has set them
        lines = self._lines
        if lines is None:
            assert make is not None
            made = make()
            lines = dict(made.lines)
            self._parsed = dict(made._parsed)
            self._lines = lines  # last: whoever sees it has no need of `make`
            self._make = None
        return lines

    def changed(self, put: Iterable[NamedObject], removed: Iterable[str] = ()) -> Records:
        """The same with other objects put in, then without those of some names."""
        return self.merged(Records.of({item.name: item for item in put}), removed)

    def merged(self, newer: Records, removed: Iterable[str] = ()) -> Records:
        """These and the newer ones, which replace those of their names, then without those of some names."""
        gone = tuple(removed)
        if not gone and self._is_empty():
            return newer
        if not gone and newer._is_empty():
            return self
        if self._lines is None or newer._lines is None:
            some = not gone and (self._some or newer._some)
            return Records.later(lambda: self._joined(newer, gone), some=some)
        return self._joined(newer, gone)

    def _joined(self, newer: Records, removed: tuple[str, ...]) -> Records:
        lines = {**self.lines, **newer.lines}
        parsed = {name: item for name, item in self._parsed.items() if name not in newer.lines}
        parsed.update(newer._parsed)
        for name in removed:
            lines.pop(name, None)
            parsed.pop(name, None)
        return Records(lines, parsed)

    def new_since(self, before: Records) -> Records:
        """Those that were not there before, or not as they are now."""
        older = before.lines
        return Records({name: line for name, line in self.lines.items() if older.get(name) != line})

    def _is_empty(self) -> bool:
        """Whether there is certainly none; what is not made yet may turn out to be."""
        return self._lines is not None and not self._lines

    def __getitem__(self, name: str) -> NamedObject:
        """Raises KeyError; Damaged when its line, proven to be ours, is not as `line_of` writes it."""
        found = self._parsed.get(name)
        if found is None:
            found = _parsed(name, self.lines[name])
            self._parsed[name] = found
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.lines

    def __iter__(self) -> Iterator[str]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    def __bool__(self) -> bool:
        return self._some or bool(self.lines)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Records):
            return self.lines == other.lines
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Records({sorted(self.lines)})"


def line_of(item: NamedObject) -> bytes:
    """The object as JSON without a line's end; equal objects give equal bytes."""
    return _encode(_plain(item)).encode("ascii")


def object_of(plain: Mapping[str, Any]) -> NamedObject:
    """The object of JSON's own types. Raises KeyError, TypeError, ValueError."""
    kind, inline, files = Kind(plain["kind"]), bytes_of(plain["inline"]), plain["files"]
    return NamedObject(
        **{**plain, "kind": kind, "inline": inline, "files": tuple(FileEntry(*entry) for entry in files)}
    )


def text_of(data: bytes | None) -> str | None:
    """Bytes as JSON can hold them."""
    return None if data is None else base64.b64encode(data).decode("ascii")


def bytes_of(text: str | None) -> bytes | None:
    """What `text_of` made a text of. Raises ValueError."""
    return None if text is None else base64.b64decode(text, validate=True)


def _parsed(name: str, line: bytes) -> NamedObject:
    try:
        item = object_of(json.loads(line))
        if item.name != name:
            raise ValueError(f"it says that it is {item.name!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(name, "that names it", f"its entry is not as the format has it ({error})") from error
    return item


def _plain(item: NamedObject) -> dict[str, Any]:
    return {
        "name": item.name,
        "kind": item.kind.value,
        "version": item.version,
        "strategy": item.strategy,
        "durability": item.durability,
        "storage_level": item.storage_level,
        "schema": item.schema,
        "path": item.path,
        "inline": text_of(item.inline),
        "files": [[entry.name, entry.size, entry.sha256] for entry in item.files],
        "rows": item.rows,
        "size": item.size,
        **({} if item.origin is None else {"origin": item.origin}),
        **({"used": item.used} if item.used else {}),
    }
