"""Uploaded data files as jobs read them: a path on this machine, wherever the checkpoint store is."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

from checkpoint import layout
from checkpoint.errors import Missing
from checkpoint.files import FileStore
from checkpoint.sealing import persist


class DataFiles:
    """Hands out the store's own file where that is a local one, else a copy in the driver's folder, made once."""

    def __init__(self, open_files: Callable[[], FileStore | None], folder: Path) -> None:
        self._open_files = open_files
        self._folder = folder

    def local(self, shown: str) -> str:
        """The path to open for what POST /data answered, or for its last part. Raises FileNotFoundError."""
        name = shown.rpartition("/")[2]
        files = self._open_files()
        if files is None or not name or name in (".", ".."):
            raise FileNotFoundError(f"there is no data file {shown!r}")
        path = layout.data_path(name)
        url = files.url(path)
        if url.startswith("file://"):
            found = Path(url.removeprefix("file://"))
            if found.is_file():
                return str(found)
            raise FileNotFoundError(f"there is no data file {shown!r}")
        return self._copied(files, path, name)

    def _copied(self, files: FileStore, path: str, name: str) -> str:
        copy = self._folder / name
        if copy.exists():  # names are taken once, so a copy never gets old
            return str(copy)
        try:
            data = persist(lambda: files.read(path))
        except Missing as error:
            raise FileNotFoundError(f"there is no data file {name!r}") from error
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._folder / f".{uuid.uuid4().hex}"
        unfinished.write_bytes(data)
        unfinished.replace(copy)
        return str(copy)
