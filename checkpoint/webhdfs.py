"""WebHDFS as the store needs it: one call each, with the errors of `checkpoint.errors`. Only module that imports `hdfs`.

The package's own client goes through the list of NameNodes: a standby, a refused connection or a timeout leads to the
next, and the one that answered is asked first from then on. Of every call that may have reached a NameNode without a
good answer the outcome is unknown: `StoreUnavailable`.
"""

from __future__ import annotations

import getpass
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import hdfs
import requests
from hdfs.util import HdfsError

from checkpoint.errors import AlreadyExists, CheckpointError, Corrupt, Missing, StoreUnavailable, Trouble
from checkpoint.stores import HdfsAccess

logging.getLogger("hdfs").setLevel(logging.WARNING)  # else it tells every call
CONNECT_TIMEOUT = 3.0
"""Seconds to connect at most; a machine that is down and says nothing costs so much before the next NameNode is asked."""

PIECE = 1024 * 1024
"""Bytes of a file in memory while it is copied."""

_TROUBLE = {
    "SafeModeException": Trouble.SAFE_MODE,
    "NSQuotaExceededException": Trouble.FULL,
    "DSQuotaExceededException": Trouble.FULL,
    "QuotaExceededException": Trouble.FULL,
    "AccessControlException": Trouble.REFUSED,
    "SecurityException": Trouble.REFUSED,
    "StandbyException": Trouble.AWAY,
    "RetriableException": Trouble.AWAY,
}
_NO_DATANODE = "Failed to find datanode"
"""How a NameNode begins which knows of no living DataNode; it has no kind of its own for that."""
_LOST_BLOCKS = ("BlockMissingException", "ChecksumException")
_CUT_SHORT = (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a folder. `size` in bytes, 0 of a folder."""

    name: str
    is_folder: bool
    size: int


class WebHdfs:
    """Calls on absolute paths. Thread-safe. Every method may raise StoreUnavailable."""

    def __init__(self, access: HdfsAccess) -> None:
        """Connects at the first call only. Raises StoreUnavailable when the way to prove who we are is not installed."""
        self._client = _CLIENTS[access.auth](access)

    def read(self, path: str) -> bytes:
        """The whole file. Raises Missing, and Corrupt when every replica of a block is known to be."""
        try:
            answer = self._opened(path)
            data: bytes = self._call(path, lambda: answer.content)
            return data
        except StoreUnavailable as error:
            # a DataNode that finds a block broken ends its answer in the middle, as one that dies does
            if error.kind in _LOST_BLOCKS or isinstance(error.__cause__, _CUT_SHORT):
                self._prove_corrupt(path)
            raise

    def copy(self, source: str, target: str) -> None:
        """As `create`, of the bytes of another file, of which only a piece is in memory at a time."""
        answer = self._opened(source)
        self.create(target, _pieces(answer))

    def _opened(self, path: str) -> Any:
        """The answer whose body is the file."""
        answer = self._call(path, lambda: self._client._open(path))
        if "octet-stream" not in answer.headers.get("content-type", ""):
            # a proxy's page of apology must not pass for the file, which would then look damaged
            raise StoreUnavailable(f"{path}: what answered in the place of HDFS sent a page")
        return answer

    def create(self, path: str, data: bytes | Iterator[bytes]) -> None:
        """Make the file with its folders; its bytes are on the disks of its DataNodes before this returns.

        SYNC_BLOCK makes every DataNode of the file's blocks fsync them when they are closed. Raises AlreadyExists.
        """
        flags = "CREATE,SYNC_BLOCK"
        asked = self._call(
            path, lambda: self._client._create(path, overwrite=False, createflag=flags, createparent=True)
        )
        place = asked.headers["location"]
        try:
            self._call(path, lambda: self._put(place, data))
        except Missing as error:
            raise StoreUnavailable(f"{path} was removed while it was written") from error

    def _put(self, place: str, data: bytes | Iterator[bytes]) -> None:
        """Send the bytes to the DataNode that the NameNode chose."""
        answer = self._client._request(method="PUT", url=place, data=data)
        if not answer.ok:
            raise _refusal(answer)

    def rename(self, source: str, target: str) -> None:
        """Give the file another name. Raises AlreadyExists if that is taken, and Missing if the source is not there.

        The option NONE makes the NameNode refuse an existing target and say so; without it, it would move the file into
        a folder of that name, and answer a bare "false" to everything else.
        """
        self._call(source, lambda: self._client._rename(source, destination=target, renameoptions="NONE"))

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it; no error when it is absent."""
        self._call(path, lambda: self._client._delete(path, recursive=True))

    def remove_empty(self, path: str) -> None:
        """Remove a folder in which nothing is; no error when there is something, or when it is absent."""

        def remove() -> None:
            try:
                self._client._delete(path, recursive=False)
            except HdfsError as error:
                if error.exception != "PathIsNotEmptyDirectoryException":
                    raise

        self._call(path, remove)

    def make_folder(self, path: str) -> None:
        """Make a folder with those around it; no error when it is there."""
        self._call(path, lambda: self._client._mkdirs(path))

    def owner(self, path: str) -> str:
        """To whom it belongs. Raises Missing."""
        status = self._json(path, lambda: self._client._get_file_status(path))["FileStatus"]
        return str(status["owner"])

    def permit(self, path: str, users: Iterable[str]) -> None:
        """Let these users read, write and enter a folder, and all that is made in it later; others are kept out of that.

        By HDFS's own access lists, which files and folders inherit whatever the umask of their writer is.
        """
        entries = [f"{scope}user:{user}:rwx" for user in sorted(users) for scope in ("", "default:")]
        wanted = ",".join([*entries, "default:group::---", "default:other::---"])
        self._call(path, lambda: self._client._modify_acl_entries(path, aclspec=wanted))

    def entry(self, path: str) -> Entry:
        """What has the path. Raises Missing."""
        return _entry(self._json(path, lambda: self._client._get_file_status(path))["FileStatus"])

    def entries(self, path: str) -> list[Entry]:
        """What is in a folder, sorted. Raises Missing, also for a file."""
        plain = self._json(path, lambda: self._client._list_status(path))["FileStatuses"]["FileStatus"]
        if len(plain) == 1 and not plain[0]["pathSuffix"]:
            raise Missing(f"{path} is a file")
        return sorted((_entry(item) for item in plain), key=lambda entry: entry.name)

    def _prove_corrupt(self, path: str) -> None:
        """A block that cannot be read may only be on machines that are away: proof needs all its replicas, all corrupt."""
        replicas = self._json(path, lambda: self._client._get_file_status(path))["FileStatus"]["replication"]
        blocks = self._json(path, lambda: self._client._get_file_block_locations(path))["BlockLocations"]
        for block in blocks["BlockLocation"]:
            if block["corrupt"] and len(block["names"]) >= replicas:
                raise Corrupt(
                    f"{path}: HDFS says that the block at {block['offset']} is corrupt in all {replicas} replicas"
                )

    def _json(self, path: str, call: Callable[[], Any]) -> Any:
        return self._call(path, lambda: call().json())

    def _call(self, path: str, call: Callable[[], Any]) -> Any:
        """The call's answer, or its failure in our words."""
        try:
            return call()
        except HdfsError as error:
            raise _in_our_words(path, error) from error
        except (ValueError, KeyError, TypeError) as error:
            # what answers is no WebHDFS, or a proxy in front of it is in trouble
            raise StoreUnavailable(f"{path}: HDFS answered what cannot be understood ({error!r})") from error
        except requests.RequestException as error:
            text = f"{path}: no answer from HDFS ({_short(str(error))})"
            raise StoreUnavailable(text, Trouble.AWAY) from error


class _Client(hdfs.Client):  # type: ignore[misc]
    """With one more call: which replicas a file's blocks have."""

    _get_file_block_locations = hdfs.client._Request("GET")


def _pieces(answer: requests.Response) -> Iterator[bytes]:
    """The body of an answer; an empty one is one empty piece, for a body of no piece is not sent."""
    return itertools.chain(answer.iter_content(PIECE), [b""])


def _refusal(answer: requests.Response) -> HdfsError:
    """What a DataNode refused."""
    try:
        remote = answer.json()["RemoteException"]
        return HdfsError(str(remote["message"]).replace("%", "%%"), exception=remote["exception"])
    except (ValueError, KeyError, TypeError):
        return HdfsError(f"HTTP {answer.status_code}")


def _in_our_words(path: str, error: HdfsError) -> CheckpointError:
    kind, text = error.exception or "", _short(str(error.message))
    if kind in ("FileNotFoundException", "ParentNotDirectoryException"):
        return Missing(f"{path} does not exist")
    if kind == "FileAlreadyExistsException":
        return AlreadyExists(f"{path}: {text}")
    if text.startswith(_NO_DATANODE):
        return StoreUnavailable(f"{path}: HDFS has no living DataNode: {text}", Trouble.AWAY, kind)
    trouble = _TROUBLE.get(kind, Trouble.OTHER)
    return StoreUnavailable(f"{path}: {_MEANING[trouble]}: {text}", trouble, kind)


_MEANING = {
    Trouble.AWAY: "no NameNode is active",
    Trouble.FULL: "HDFS has no room left",
    Trouble.SAFE_MODE: "HDFS is in safe mode and takes no writes",
    Trouble.REFUSED: "HDFS refuses this user",
    Trouble.OTHER: "HDFS is in trouble",
}


def _short(text: str) -> str:
    """A Java exception's first line; DataNodes send the stack trace along."""
    return text.strip().partition("\n")[0][:300]


def _entry(plain: Mapping[str, Any]) -> Entry:
    return Entry(plain["pathSuffix"], plain["type"] == "DIRECTORY", plain["length"])


def _simple(access: HdfsAccess) -> Any:
    session = requests.Session()
    session.params = {"user.name": access.user or getpass.getuser()}
    return _client(access, session)


def _token(access: HdfsAccess) -> Any:
    if access.token_file is None:
        raise StoreUnavailable(
            "webhdfs.auth is 'token': webhdfs.token_file must name its file", Trouble.REFUSED
        )
    try:
        token = access.token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreUnavailable(f"the token file cannot be read: {error}", Trouble.REFUSED) from error
    session = requests.Session()
    session.params = {"delegation": token}
    return _client(access, session)


def _kerberos(access: HdfsAccess) -> Any:
    try:
        from hdfs.ext.kerberos import KerberosClient
    except ImportError as error:
        text = (
            "webhdfs.auth is 'kerberos', and its package is not installed. Run: pip install 'hdfs[kerberos]'"
        )
        raise StoreUnavailable(text, Trouble.REFUSED) from error
    session = requests.Session()
    KerberosClient(_urls(access), session=session)  # gives the session its proof
    return _client(access, session)


def _client(access: HdfsAccess, session: requests.Session) -> Any:
    timeout = (min(CONNECT_TIMEOUT, access.timeout), access.timeout)
    return _Client(_urls(access), session=session, timeout=timeout)


def _urls(access: HdfsAccess) -> str:
    return ";".join(access.namenodes)


_CLIENTS: Mapping[str, Callable[[HdfsAccess], Any]] = {
    "simple": _simple,
    "kerberos": _kerberos,
    "token": _token,
}
