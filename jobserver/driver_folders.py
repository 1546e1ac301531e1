"""Folders of drivers that have ended, on this machine: their output and settings, kept for a while and then removed.

A folder is in use while a living process names it among its arguments, as every driver and its JVM do.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)

STARTING = 600.0
"""Seconds that a folder is left alone after its last change, whatever the limits say: its driver may just be starting."""


def names_in_use(root: Path) -> set[str]:
    """Names of the folders below `root` that a living process names. Linux (/proc)."""
    wanted = f"{root}/".encode()
    found: set[str] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            for word in _arguments(entry):
                if word.startswith(wanted):
                    found.add(word[len(wanted) :].split(b"/", 1)[0].decode("utf-8", "surrogateescape"))
    return found


def remove_ended(root: Path, now: float, *, age: float | None, most: int | None) -> int:
    """Removes folders of ended drivers that are too old (seconds), or too many (the newest stay); how many.

    `now` in seconds since 1970.
    """
    if not root.is_dir():
        return 0
    changed = {folder.name: at for folder in root.iterdir() if (at := _last_change(folder)) is not None}
    in_use = names_in_use(root)
    going = expired({name: at for name, at in changed.items() if name not in in_use}, now, age, most)
    for name in going:
        shutil.rmtree(root / name, ignore_errors=True)
    return sum(not (root / name).exists() for name in going)


def expired(ended: dict[str, float], now: float, age: float | None, most: int | None) -> list[str]:
    """Which of the ended drivers' folders go, given when each changed last. Pure."""
    newest_first = sorted(ended, key=lambda name: ended[name], reverse=True)
    too_many = set(newest_first[most:]) if most is not None else set()
    too_old = {name for name in ended if age is not None and now - ended[name] > age}
    return sorted(name for name in too_many | too_old if now - ended[name] > STARTING)


def _last_change(folder: Path) -> float | None:
    """Seconds since 1970; None for what is no folder, and for one that cannot be looked into: it is left alone."""
    try:
        return max(_changes([folder, *folder.iterdir()]), default=0.0) if folder.is_dir() else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        log.warning("the folder %s is left alone: %s", folder, error)
        return None


def _changes(paths: Iterable[Path]) -> Iterable[float]:
    for path in paths:
        try:
            yield path.stat().st_mtime
        except FileNotFoundError:
            continue


def _arguments(process: Path) -> list[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
