"""Which store a checkpoint root means: a directory, or a folder in HDFS. The latter's client is imported when needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import unquote, urlsplit

from checkpoint.files import FileStore
from checkpoint.local import LocalFiles

Auth = Literal["simple", "kerberos", "token"]
WEB_PORT = 9870
"""Where a NameNode listens for WebHDFS when nothing says otherwise."""


class UnknownStore(ValueError):
    """The checkpoint root cannot be used; the text says what can."""


@dataclass(frozen=True, slots=True)
class HdfsAccess:
    """How to reach a cluster. `namenodes` are URLs of WebHDFS, in any order, standbys included (but no observers, which
    answer with what was true a moment ago); `user` is None for this process's; `timeout` in seconds for one answer."""

    namenodes: tuple[str, ...]
    user: str | None = None
    auth: Auth = "simple"
    token_file: Path | None = None
    timeout: float = 10.0

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> HdfsAccess:
        """From JSON's types, as `plain` makes them. Raises ValueError."""
        values = dict(plain)
        if values.get("auth", "simple") not in get_args(Auth):
            raise ValueError(f"auth {values['auth']!r} is none of {', '.join(get_args(Auth))}")
        token = values.get("token_file")
        return cls(
            **{
                **values,
                "namenodes": tuple(values["namenodes"]),
                "token_file": None if token is None else Path(token),
            }
        )

    def plain(self) -> dict[str, Any]:
        """As JSON's types."""
        return {
            "namenodes": list(self.namenodes),
            "user": self.user,
            "auth": self.auth,
            "token_file": None if self.token_file is None else str(self.token_file),
            "timeout": self.timeout,
        }


def is_hdfs(root: str) -> bool:
    """Whether a root is in HDFS."""
    return urlsplit(root).scheme == "hdfs"


def access_of(root: str) -> HdfsAccess:
    """The access that a root alone tells: the NameNode in it, at its usual port. Raises UnknownStore."""
    host = urlsplit(root).hostname
    if not host:
        raise UnknownStore(f"{root!r} names no NameNode: give hdfs://host:port/path, or webhdfs.namenodes")
    return HdfsAccess((f"http://{host}:{WEB_PORT}",))


def open_store(root: str, cluster: str, access: HdfsAccess | None = None) -> FileStore:
    """The store of a cluster below a path or URL; `access` is for HDFS only. Raises UnknownStore, StoreUnavailable."""
    if is_hdfs(root):
        from checkpoint.hdfs import HdfsFiles

        return HdfsFiles(f"{root.rstrip('/')}/{cluster}", access or access_of(root))
    parts = urlsplit(root)
    if parts.scheme not in ("", "file"):
        raise UnknownStore(f"{root!r} is no place for checkpoints: give a directory or hdfs://host:port/path")
    return LocalFiles(Path(unquote(parts.path)) / cluster)
