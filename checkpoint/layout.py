"""Names and paths of a checkpoint (pure): where everything lies, and what a listed name means.

    <context>/marker/<epoch>-<token>             <context>/manifest/<epoch>-<seq>.json
    <context>/objects/<object>/<epoch>-<seq>/…   <context>/progress/<job>/<attempt>-<seq>/…
    binaries/<sha256>                            results/<job>/<attempt>/<start>
    logs/<job>/<attempt>/<start>                 data/<name>
    probes/<server>/…

Numbers are zero-padded, so that names sort as their numbers do. Any text may name an object, a job or a token: see
`component`. A manifest's name is `<epoch>-<seq>`, without ".json".
"""

from __future__ import annotations

import hashlib
import re

WIDTH = 12
"""Digits of a padded number; an epoch that grows every second fills them in 30,000 years."""

_LIMIT = 10**WIDTH
HIGHEST = _LIMIT - 1
"""The highest number that a name can hold."""
_LONGEST = 200
"""Longest component in characters; file systems end at 255 and Spark's temporary files add to it."""

_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_ESCAPE = (
    "~"  # not "%", which Hadoop decodes in some places, nor "=", which Spark takes for a partition's column
)
_PAIR = re.compile(rf"([0-9]{{{WIDTH}}})-([0-9]{{{WIDTH}}})")
_PAIR_TEXT = f"%0{WIDTH}d-%0{WIDTH}d"
_MARKER = re.compile(rf"([0-9]{{{WIDTH}}})-(.*)", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z0-9-][A-Za-z0-9_-]{0,63}")
"""What most names are: nothing of it has to be escaped."""
_ESCAPED = re.compile(r"(?:[A-Za-z0-9_-]|~[0-9a-f]{2})+")


def component(text: str) -> str:
    """Any text as one safe component of a path: no separator, dot, glob or blank, never hidden, never too long.

    Reversible by `text_of`, but for very long texts, which are named by their SHA-256 instead.
    """
    if _PLAIN.fullmatch(text):
        return text
    if not text:
        return _ESCAPE
    data = text.encode("utf-8", "surrogatepass")
    escaped = "".join(
        chr(byte) if byte in _SAFE and (index or byte != ord("_")) else f"{_ESCAPE}{byte:02x}"
        for index, byte in enumerate(data)
    )
    if len(escaped) <= _LONGEST:
        return escaped
    return _ESCAPE + _ESCAPE + hashlib.sha256(data).hexdigest()


def text_of(name: str) -> str | None:
    """The text that `component` made this of; None if it was too long to be kept, or is none of ours."""
    if _PLAIN.fullmatch(name):
        return name
    if name == _ESCAPE:
        return ""
    if not _ESCAPED.fullmatch(name):
        return None
    raw = re.sub(rb"~([0-9a-f]{2})", lambda hit: bytes([int(hit[1], 16)]), name.encode())
    try:
        text = raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return text if component(text) == name else None


def pair(first: int, second: int) -> str:
    """`<first>-<second>`, zero-padded. Raises ValueError for a number that does not fit."""
    if not (0 <= first < _LIMIT and 0 <= second < _LIMIT):
        raise ValueError(f"{first} and {second} must lie between 0 and {_LIMIT - 1}")
    return _PAIR_TEXT % (first, second)


def parse_pair(name: str) -> tuple[int, int] | None:
    """The numbers of a name made by `pair`, else None."""
    hit = _PAIR.fullmatch(name)
    return (int(hit[1]), int(hit[2])) if hit else None


manifest_name = pair
version = pair


def manifest_folder(context_id: str) -> str:
    """Where the sealed manifests of a context lie."""
    return f"{component(context_id)}/manifest"


def manifest_path(context_id: str, name: str) -> str:
    """The file of the manifest with that name."""
    return f"{manifest_folder(context_id)}/{name}.json"


def parse_manifest(file_name: str) -> str | None:
    """The manifest's name if the file is one, else None."""
    name, dot, extension = file_name.rpartition(".")
    return name if dot and extension == "json" and _PAIR.fullmatch(name) else None


def marker_folder(context_id: str) -> str:
    """Where the markers of a context lie."""
    return f"{component(context_id)}/marker"


def marker_path(context_id: str, epoch: int, token: str) -> str:
    """The marker of an epoch."""
    return f"{marker_folder(context_id)}/{pair(epoch, 0)[:WIDTH]}-{component(token)}"


def parse_marker(file_name: str) -> tuple[int, str] | None:
    """Epoch and token of a marker's name, else None."""
    hit = _MARKER.fullmatch(file_name)
    token = text_of(hit[2]) if hit else None
    return (int(hit[1]), token) if hit and token is not None else None


def objects_folder(context_id: str) -> str:
    """Where the data of a context's named objects lies, one folder for each name."""
    return f"{component(context_id)}/objects"


def object_path(name: str, object_version: str) -> str:
    """The data of one version of a named object, relative to the context's folder (as `NamedObject.path` has it)."""
    return f"objects/{component(name)}/{object_version}"


def progress_folder(context_id: str) -> str:
    """Where big progress values of a context's jobs lie, one folder for each job."""
    return f"{component(context_id)}/progress"


def progress_path(job_id: str, attempt: int, seq: int) -> str:
    """One saved progress of a job, relative to the context's folder (as `Progress.path` has it)."""
    return f"progress/{component(job_id)}/{pair(attempt, seq)}"


def is_progress(path: str) -> bool:
    """Whether a path, relative to the context's folder, is a saved progress."""
    return path.startswith("progress/")


def streaming_path(name: str) -> str:
    """The state that Spark keeps of a streaming query, relative to the context's folder; never swept while it lives."""
    return f"streaming/{component(name)}"


def in_context(context_id: str, relative: str) -> str:
    """The store's path of something given relative to the context's folder."""
    return f"{component(context_id)}/{relative}"


def kept_path(context_id: str) -> str:
    """A file that says: this checkpoint stays when its context has ended."""
    return f"{component(context_id)}/kept"


def context_of(top: str) -> str | None:
    """The context whose folder has that name directly below the root; None for the other folders there."""
    return None if top in OTHERS else text_of(top)


def binary_path(digest: str) -> str:
    """Uploaded bytes, by their SHA-256 in hex."""
    return f"binaries/{component(digest)}"


def results_folder(job_id: str) -> str:
    """Where the results of a job lie that are too big for SQL, one folder for each attempt."""
    return f"results/{component(job_id)}"


def result_folder(job_id: str, attempt: int) -> str:
    """The segments of one result."""
    return f"{results_folder(job_id)}/{pair(attempt, 0)[:WIDTH]}"


def logs_folder(job_id: str) -> str:
    """Where the output of a job lies, one folder for each attempt."""
    return f"logs/{component(job_id)}"


def log_folder(job_id: str, attempt: int) -> str:
    """The segments of one attempt's output."""
    return f"{logs_folder(job_id)}/{pair(attempt, 0)[:WIDTH]}"


DATA = "data"
"""Where uploaded data files lie."""
PROBES = "probes"
"""Where servers write to see whether the store takes data."""
OTHERS = frozenset({"binaries", "results", "logs", DATA, PROBES})
"""Folders below the root that are no context's."""


def data_path(name: str) -> str:
    """An uploaded data file. Its name was checked at the upload, and stays as it is: users see it in their paths."""
    return f"{DATA}/{name}"


def probe_folder(server: str) -> str:
    """Where one server writes, reads and removes."""
    return f"{PROBES}/{component(server)}"
