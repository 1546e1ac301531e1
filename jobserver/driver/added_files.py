"""Names of files that jobs add to the Spark application.

Spark gives each task of every job all files that were added, in one folder. One that would replace another job's is refused
before Spark hears of it. What is not seen here (files that JVM jobs add, two that come at the same moment) replaces.
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_STATEMENT = re.compile(
    # atomic: what was a comment once is not tried as a part of a longer one, which would take for ever
    r"(?>\s|--[^\n]*\n|/\*.*?\*/)*+add\s+(file|archive|jar)s?\s+(.+)",
    re.IGNORECASE | re.DOTALL,
)
_PATHS = re.compile(r"""'([^']+)'|"([^"]+)"|([^\s;'"]+)""")


class AddedFiles:
    """From which path each name came. `folder`: where Spark keeps what was added, on this machine.

    Takes no lock, which a killed job could leave held.
    """

    def __init__(self, folder: Callable[[], str]) -> None:
        self._folder = folder
        self._paths: dict[str, str] = {}

    def adding(self, paths: Mapping[str, str], add: Callable[[], T]) -> T:
        """What `add` answers, which adds paths by their names. Raises ValueError: a name is taken; and what `add` raises."""
        for name, path in paths.items():
            first = self._paths.get(name, path)
            if first != path and not self._is_the_same(name, path):
                raise ValueError(
                    f"a file named {name} was added to this context before, from {first}: Spark gives every task of every job "
                    f"all added files in one folder, so {path} would replace it. Add it under another name, or use another "
                    "context."
                )
        answer = add()
        self._paths.update(paths)
        return answer

    def _is_the_same(self, name: str, path: str) -> bool:
        """Whether it is a file of this machine with the content that the name already has."""
        kept, other = Path(self._folder()) / name, Path(path.removeprefix("file://").removeprefix("file:"))
        return kept.is_file() and other.is_file() and filecmp.cmp(kept, other, shallow=False)


def file_name(path: str) -> str:
    """As Spark names its copy of a file or jar."""
    return path.partition("#")[0].rstrip("/").rpartition("/")[2]


def archive_name(path: str) -> str:
    """As Spark names the folder of an archive: it may be named behind a `#`."""
    return path.partition("#")[2] or file_name(path)


def paths_in(sql: str) -> dict[str, str]:
    """Names and paths in the text of an ADD FILE, ADD ARCHIVE or ADD JAR; none in any other statement."""
    found = _STATEMENT.match(sql)
    if found is None:
        return {}
    named = archive_name if found[1].lower() == "archive" else file_name
    paths = [next(filter(None, path)) for path in _PATHS.findall(found[2])]
    return {named(path): path for path in paths}
