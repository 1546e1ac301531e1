"""Names of files that jobs add to the Spark application.

Spark gives each task of every job all files that were added, in one folder. Two of one name and different content would fail
every later task of the driver, so the second one is refused before Spark hears of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

_STATEMENT = re.compile(r"\s*add\s+(?:file|archive|jar)s?\s+(.+)", re.IGNORECASE | re.DOTALL)
_PATHS = re.compile(r"""'([^']+)'|"([^"]+)"|([^\s;'"]+)""")


class AddedFiles:
    """Which path was added first under each name. Takes no lock, which a killed job could leave held."""

    def __init__(self) -> None:
        self._paths: dict[str, tuple[str]] = {}

    def adding(self, paths: Iterable[str], add: Callable[[], T]) -> T:
        """What `add` answers, which adds these paths. Raises ValueError: a name is taken; and what `add` raises."""
        claimed = []
        try:
            for path in paths:
                name, entry = _name(path), (path,)
                first = self._paths.setdefault(name, entry)
                if first is entry:
                    claimed.append(name)
                elif first != entry:
                    raise ValueError(
                        f"a file named {name} was added to this context before, from {first[0]}: Spark gives every task of "
                        f"every job all added files in one folder, so {path} would replace it. Add it under another name, "
                        "or use another context."
                    )
            return add()
        except BaseException:
            for name in claimed:
                self._paths.pop(name, None)
            raise


def paths_in(sql: str) -> list[str]:
    """The paths in the text of an ADD FILE, ADD ARCHIVE or ADD JAR; none in any other statement."""
    found = _STATEMENT.match(sql)
    return [next(filter(None, path)) for path in _PATHS.findall(found[1])] if found else []


def _name(path: str) -> str:
    """As Spark names the copy: an archive may say another name behind a `#`."""
    place, _, other = path.partition("#")
    return other or place.rstrip("/").rpartition("/")[2]
