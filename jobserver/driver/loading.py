"""From binaries and a main class to something that can be run, or the outcome that says why not.

Knows nothing of Spark: who puts a bundle on the executors' import path is passed in as `ship`.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from checkpoint.errors import CheckpointError, Missing
from jobserver.driver.bundles import BrokenBundle, rewrap, root_name, without_root
from jobserver.driver.payload import BundleSource
from jobserver.driver.waits import SlicedLock
from jobserver.model import BinaryType, ErrorInfo, OutcomeKind

MESSAGE_LIMIT = 64 * 1024
"""Longest message of an error, characters."""
STACK_LIMIT = 256 * 1024
"""Longest stack of an error, characters."""


@dataclass(frozen=True, slots=True)
class DriverBinary:
    """A binary as a `run` request names it; `path` is readable by the driver, None means the checkpoint store."""

    name: str
    type: BinaryType
    digest: str
    path: Path | None


class LoadRefused(Exception):
    """The job cannot be loaded: `kind` and `error` of its outcome."""

    def __init__(self, kind: OutcomeKind, message: str, error_class: str = "", stack: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.error = ErrorInfo(message, error_class, stack)


Stored = Callable[[str], bytes]
"""Reads uploaded bytes by their digest from the checkpoint store. Raises CheckpointError."""


def nothing_stored(digest: str) -> bytes:
    """For loaders that are given paths only."""
    raise Missing(f"there is no store to read binary {digest} from")


@dataclass(frozen=True, slots=True)
class LoadedJob:
    """The class or function of a job. `is_function`: called as f(spark, env, config), without `validate`."""

    target: Callable[..., Any]
    is_function: bool


def error_info(error: BaseException) -> ErrorInfo:
    """An exception as clients see it, bounded, with module names as the job's author knows them."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    message, stack = _message(error) or kind.__name__, _stack(error)
    return ErrorInfo(_shortened(message, MESSAGE_LIMIT), without_root(name), _shortened(stack, STACK_LIMIT))


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as unprintable:  # noqa: BLE001
        # the text of a stranger's exception may raise anything; without it the job still needs its end
        return f"{type(error).__name__} (its text cannot be had: {type(unprintable).__name__})"


def _stack(error: BaseException) -> str:
    try:
        return without_root("".join(traceback.format_exception(error)))
    except Exception as unprintable:  # noqa: BLE001
        # formatting reads attributes of the stranger's exception and of its causes
        return f"(the stack cannot be had: {type(unprintable).__name__})"


def _shortened(text: str, limit: int) -> str:
    """The start and the end of a text that is too long: what went wrong stands in one of them."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


class JobLoader:
    """Loads each version of a binary once. `folder` keeps the rewrapped bundles, which must stay while workers live."""

    def __init__(
        self,
        folder: Path,
        ship: Callable[[Path], None],
        stored: Stored = nothing_stored,
    ) -> None:
        self._folder = folder
        self._ship = ship
        self._stored = stored
        # a lock for each upload, so that an import that never ends holds up only its own; sliced, so that who waits
        # for it can be killed
        self._locks: dict[str, SlicedLock] = {}
        self.sources: dict[str, BundleSource] = {}
        self._jobs: dict[tuple[str, str], LoadedJob] = {}

    def load(self, main_class: str, binaries: Sequence[DriverBinary]) -> LoadedJob:
        """The job of that name. Raises LoadRefused."""
        binary = _only_python(binaries)
        key = (binary.digest, main_class)
        known = self._jobs.get(key)
        if known is not None:
            return known
        with self._locks.setdefault(binary.digest, SlicedLock()):
            if key not in self._jobs:
                self._jobs[key] = self._loaded(main_class, binary)
            return self._jobs[key]

    def _loaded(self, main_class: str, binary: DriverBinary) -> LoadedJob:
        module_name, name, is_function = _parts(main_class)
        root = root_name(binary.digest, module_name if binary.type is BinaryType.PYTHON else "")
        if root not in self.sources:
            self._install(
                read_binary(binary, self._stored),
                BundleSource(binary.digest, binary.type, module_name),
                binary.name,
            )
        module = _imported(root, module_name, main_class)
        target = getattr(module, name, None)
        if target is None or not callable(target):
            raise LoadRefused(
                OutcomeKind.NOT_FOUND, f"there is no {name} in module {module_name} of {binary.name}"
            )
        if not is_function and not hasattr(target, "run_job"):
            raise LoadRefused(OutcomeKind.LOADING_FAILED, f"{main_class} has no method run_job: it is no job")
        return LoadedJob(target, is_function)

    def provide(self, root: str, source: BundleSource, read: Callable[[], bytes]) -> None:
        """Make a bundle importable that a stored value needs. Raises LoadRefused, or what `read` raises."""
        with self._locks.setdefault(source.digest, SlicedLock()):
            if root not in self.sources:
                self._install(read(), source, source.digest)

    def _install(self, data: bytes, source: BundleSource, name: str) -> None:
        try:
            bundle = rewrap(data, source.type, source.digest, source.module)
        except BrokenBundle as error:
            raise LoadRefused(OutcomeKind.LOADING_FAILED, f"binary {name}: {error}") from error
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{bundle.root}.zip"
        path.write_bytes(bundle.data)
        if str(path) not in sys.path:
            sys.path.append(str(path))
        importlib.invalidate_caches()
        self._ship(path)
        self.sources[bundle.root] = source


def _only_python(binaries: Sequence[DriverBinary]) -> DriverBinary:
    if len(binaries) != 1:
        message = f"Python should have exactly one package file! Found: {len(binaries)}"
        raise LoadRefused(OutcomeKind.LOADING_FAILED, message)
    return binaries[0]


def _parts(main_class: str) -> tuple[str, str, bool]:
    """Module, name in it, and whether it is a function."""
    module, colon, name = main_class.partition(":")
    if not colon:
        module, _, name = main_class.rpartition(".")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        wanted = "package.module.Class or package.module:function"
        raise LoadRefused(OutcomeKind.NOT_FOUND, f"the main class {main_class!r} is not of the form {wanted}")
    return module, name, bool(colon)


def read_binary(binary: DriverBinary, stored: Stored) -> bytes:
    """Its bytes, proven by its digest. Raises LoadRefused."""
    try:
        data = stored(binary.digest) if binary.path is None else binary.path.read_bytes()
    except (OSError, CheckpointError) as error:
        raise LoadRefused(
            OutcomeKind.LOADING_FAILED, f"binary {binary.name} cannot be read: {error}"
        ) from error
    if hashlib.sha256(data).hexdigest() != binary.digest:
        raise LoadRefused(
            OutcomeKind.LOADING_FAILED, f"the bytes of binary {binary.name} do not have its digest"
        )
    return data


def _imported(root: str, module_name: str, main_class: str) -> ModuleType:
    wanted = f"{root}.{module_name}"
    try:
        return importlib.import_module(wanted)
    except ModuleNotFoundError as error:
        if error.name and (wanted + ".").startswith(error.name + ".") and error.name != root:
            message = f"there is no module {module_name} for main class {main_class}"
            raise LoadRefused(OutcomeKind.NOT_FOUND, message) from error
        raise _failed(main_class, error) from error
    except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        # importing runs the author's code, which may raise anything; a kill is none of these and passes
        raise _failed(main_class, error) from error


def _failed(main_class: str, error: BaseException) -> LoadRefused:
    info = error_info(error)
    message = f"loading {main_class} failed: {info.error_class}: {info.message}"
    return LoadRefused(OutcomeKind.LOADING_FAILED, message, info.error_class, info.stack)
