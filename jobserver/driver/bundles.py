"""Uploaded Python code, rewrapped so that several versions live side by side in one process (pure).

A bundle is a zip whose only top folder is `c<first 12 digits of a digest>`; the uploaded modules lie inside it, so that
module `jobs` of two uploads becomes `c1….jobs` and `c2….jobs`, by reference, in the driver and on executors alike. The
folder's `__init__.py` redirects absolute imports: a module inside the bundle that imports a top-level name of its own
bundle gets the bundle's. The digest is that of the uploaded bytes, since a rebuilt zip never has the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from dataclasses import dataclass

from jobserver.archives import MAX_PYTHON, fault_of
from jobserver.model import BinaryType

ROOT = re.compile(r"c[0-9a-f]{12}")
"""Names of the top folders of bundles."""

_DATA_FOLDER = re.compile(r"[^/]+\.data/(?:purelib|platlib)/(.+)")
_NOT_CODE = re.compile(r"(?:[^/]+\.(?:dist-info|data)|EGG-INFO)/")

_INIT = """\
import builtins, importlib, sys

def _install():
    plain_import, plain_by_name = builtins.__import__, importlib.import_module
    bundles = {}

    def inside(module, name):
        root = (module or "").partition(".")[0]
        return root if name.partition(".")[0] in bundles.get(root, ()) else None

    def bundle_import(name, globals=None, locals=None, fromlist=(), level=0):
        root = inside(globals.get("__name__"), name) if globals and level == 0 else None
        if root is None:
            return plain_import(name, globals, locals, fromlist, level)
        module = plain_import(root + "." + name, globals, locals, fromlist or (), 0)
        return module if fromlist else sys.modules[root + "." + name.partition(".")[0]]

    def bundle_by_name(name, package=None):
        root = inside(sys._getframe(1).f_globals.get("__name__"), name)
        return plain_by_name(root + "." + name if root else name, package)

    bundle_import.bundles = bundles
    builtins.__import__, importlib.import_module = bundle_import, bundle_by_name

if not hasattr(builtins.__import__, "bundles"):
    _install()
builtins.__import__.bundles[__name__] = frozenset(%r)
"""


class BrokenBundle(Exception):
    """The bytes are no code that can be rewrapped; the text says why."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Rewrapped code: the package `root` that holds the modules, and the zip to be put on import paths."""

    root: str
    data: bytes
    tops: tuple[str, ...]
    compiled: bool


def rewrap(data: bytes, kind: BinaryType, digest: str, module: str) -> Bundle:
    """The bundle of an upload; `module` is the dotted module of the main class. Raises BrokenBundle.

    A single .py file has no name of its own: it is the module that the main class is asked from, whatever that is.
    """
    if kind is BinaryType.PYTHON:
        return _wrapped(root_name(digest, module), _single(data, module))
    return _wrapped(root_name(digest), _unzipped(data))


def root_name(digest: str, module: str = "") -> str:
    """The package's name for a digest; a single file's also depends on the name that its module gets."""
    if not module:
        return "c" + digest[:12]
    return "c" + hashlib.sha256(f"{digest}:{module}".encode()).hexdigest()[:12]


def without_root(text: str) -> str:
    """Class names as their author knows them."""
    return re.sub(r"\bc[0-9a-f]{12}\.", "", text)


def _single(data: bytes, module: str) -> dict[str, bytes]:
    *packages, name = module.split(".")
    files = {"/".join((*packages[: at + 1], "__init__.py")): b"" for at in range(len(packages))}
    return {**files, "/".join((*packages, f"{name}.py")): data}


def _unzipped(data: bytes) -> dict[str, bytes]:
    """The files of a wheel, egg or zip as they would be on an import path."""
    fault = fault_of(data, MAX_PYTHON)
    if fault is not None:
        raise BrokenBundle(fault)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {item.filename: archive.read(item) for item in archive.infolist() if not item.is_dir()}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise BrokenBundle(f"the binary is no readable zip archive: {error}") from error
    placed = {_placed(name): content for name, content in entries.items()}
    return {name: content for name, content in placed.items() if not _NOT_CODE.match(name)}


def _placed(name: str) -> str:
    found = _DATA_FOLDER.fullmatch(name)
    return found[1] if found else name


def _wrapped(root: str, files: dict[str, bytes]) -> Bundle:
    tops = tuple(sorted({_top(name) for name in files if _top(name).isidentifier()}))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{root}/__init__.py", _INIT % (tops,))
        for name, content in sorted(files.items()):
            archive.writestr(f"{root}/{name}", content)
    compiled = any(name.endswith((".so", ".pyd")) for name in files)
    return Bundle(root, out.getvalue(), tops, compiled)


def _top(name: str) -> str:
    first, slash, _ = name.partition("/")
    return first if slash else first.partition(".")[0]
