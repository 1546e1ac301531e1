"""How a named object can be made again, as its record in the manifest tells it (pure).

A recipe is the job that made it: its class, the digests of its uploads, its configuration. A source is a plain read of
files. A text of a newer release, which this one cannot read, means that the object cannot be made again here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobserver.model import BinaryType

RECIPE_LIMIT = 64 * 1024
"""Longest text in characters that a recipe may become; it lies in the manifest, which is read at each takeover."""
REMEMBERED_BESIDE = 4 * 1024
"""Longest recipe that is remembered beside written data, for the case that this data is damaged."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded binary of the job."""

    name: str
    type: BinaryType
    digest: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """A job that makes an object. `config` is its configuration as JSON text."""

    main_class: str
    uploads: tuple[Upload, ...]
    config: str


@dataclass(frozen=True, slots=True)
class Source:
    """A plain read of files; its schema stands in the record. `listing`: digest of the files' names, sizes and times."""

    format: str
    paths: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    listing: str = ""

    @property
    def local(self) -> bool:
        """Whether it reads files of one machine, which others need not have."""
        return any(path.startswith(("file:", "/")) for path in self.paths)


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of how an object was made. `rebuilt`: its data was made again, and need not equal what was lost."""

    recipe: Recipe | None = None
    source: Source | None = None
    rebuilt: bool = False

    def text(self) -> str | None:
        """The text for the manifest; None when there is nothing to say."""
        plain: dict[str, Any] = {}
        if self.recipe is not None:
            uploads = [[one.name, one.type.value, one.digest] for one in self.recipe.uploads]
            plain["recipe"] = {
                "main": self.recipe.main_class,
                "uploads": uploads,
                "config": self.recipe.config,
            }
        if self.source is not None:
            plain["source"] = {
                "format": self.source.format,
                "paths": list(self.source.paths),
                "options": dict(self.source.options),
                "listing": self.source.listing,
            }
        if self.rebuilt:
            plain["rebuilt"] = True
        return json.dumps(plain, separators=(",", ":"), sort_keys=True) if plain else None


def origin_of(text: str | None) -> Origin:
    """What a record's text says. An unreadable one says nothing."""
    if text is None:
        return Origin()
    try:
        plain = json.loads(text)
        recipe, source = plain.get("recipe"), plain.get("source")
        return Origin(
            None if recipe is None else _recipe(recipe),
            None if source is None else _source(source),
            bool(plain.get("rebuilt")),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return Origin()


def _recipe(plain: Mapping[str, Any]) -> Recipe:
    uploads = tuple(Upload(name, BinaryType(kind), digest) for name, kind, digest in plain["uploads"])
    return Recipe(plain["main"], uploads, plain["config"])


def _source(plain: Mapping[str, Any]) -> Source:
    return Source(plain["format"], tuple(plain["paths"]), dict(plain["options"]), plain["listing"])
