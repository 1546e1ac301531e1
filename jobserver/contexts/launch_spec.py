"""What a driver process must be started with, from a context's settings (rest_contract section 4.4). Pure.

Two contexts with equal specs can use each other's warm drivers: everything else of the settings is applied when a driver
is activated.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from jobserver.errors import BadRequest, ContextInitFailed

PROXY_USER = "spark.proxy.user"
"""The context setting that names the user for whom Spark works."""
_USER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
MOST_CORES = 1_000_000
"""Largest `num-cpu-cores`."""
_MEMORY = re.compile(r"^[0-9]+[kmgt]?$")
_UNITS = {"": 2**20, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SPARKS_MEMORY = re.compile(r"[1-9][0-9]{0,9}([kmgtp]b?|b)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Spark settings as sorted pairs, the driver's heap, the Python that runs it, and for whom Spark works if not for the
    user of the process; hashable, so a pool can be keyed by it."""

    spark_conf: tuple[tuple[str, str], ...]
    driver_memory: str
    python: str
    proxy_user: str | None = None

    @property
    def digest(self) -> str:
        """Equal specs have equal ones, on every server."""
        return hashlib.sha256(json.dumps(astuple(self)).encode()).hexdigest()


def launch_spec(
    settings: Mapping[str, Any], *, master: str, driver_memory: str, python: str, conf: Mapping[str, str]
) -> LaunchSpec:
    """The spec for a context. `conf` are the server's defaults.

    Raises BadRequest for a number or size that is none, ContextInitFailed for a driver's memory that Spark would not take.
    """
    spark = {**conf, **_spark_settings(settings)}
    flat = dict(flatten(settings))
    if "num-cpu-cores" in flat:
        cores = whole_number(settings, "num-cpu-cores", 1, least=1, most=MOST_CORES)
        spark["spark.cores.max"] = str(cores)
    if "memory-per-node" in flat:
        spark["spark.executor.memory"] = _executor_memory(flat["memory-per-node"])
    spark["spark.master"] = flat.get("launcher.spark.master", spark.get("spark.master", master))
    memory = flat.get("launcher.spark.driver.memory", driver_memory)
    if not _MEMORY.match(memory):
        raise ContextInitFailed(
            "Context error: spark.driver.memory has invalid value. Accepted formats 1024k, 2g, 512m"
        )
    executable = flat.get("python.executable", python)
    return LaunchSpec(tuple(sorted(spark.items())), memory, executable, proxy_user_in(flat))


def proxy_user_in(flat: Mapping[str, str]) -> str | None:
    """The name in `spark.proxy.user` of flattened settings. Raises BadRequest for one that is no plain user name."""
    name = flat.get(PROXY_USER)
    return check_user_name(f"context setting {PROXY_USER}", name) if name else None


def check_user_name(what: str, name: str) -> str:
    """A user's name, as Unix and HDFS know them: it goes into a command line and access lists. Raises BadRequest."""
    if not _USER_NAME.fullmatch(name):
        raise BadRequest(
            f"{what} is {name[:100]!r}; it must be a plain user name: a letter or underscore, then at most 31 letters, "
            f"digits, dots, underscores or hyphens"
        )
    return name


def heap_bytes(memory: str) -> int:
    """Bytes of a spec's `driver_memory` ("1024m"; without a unit MiB, as Spark reads it)."""
    unit = memory[-1:] if memory[-1:] in _UNITS else ""
    return int(memory.removesuffix(unit)) * _UNITS[unit]


def _executor_memory(text: str) -> str:
    if not _SPARKS_MEMORY.fullmatch(text):
        raise BadRequest(
            f"context setting memory-per-node is {text!r}; it must be a size like 1024k, 512m or 2g"
        )
    return text


def _spark_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """`spark.*` as they are, `passthrough.*` without the prefix, `hadoop.*` as Spark's own way to set Hadoop's."""
    spark: dict[str, str] = {}
    for key, value in flatten(settings):
        if key.startswith("spark.") and key != PROXY_USER:
            spark[key] = value
        elif key.startswith("passthrough."):
            spark[key.removeprefix("passthrough.")] = value
        elif key.startswith("hadoop."):
            spark[f"spark.hadoop.{key.removeprefix('hadoop.')}"] = value
    return spark


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and their values as text; lists are joined by commas, null is left out."""
    for key, value in settings.items():
        name = f"{prefix}{unquoted(str(key))}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        elif isinstance(value, list | tuple):
            yield name, ",".join(_text(part) for part in value)
        elif value is not None:
            yield name, _text(value)


def whole_number(settings: Mapping[str, Any], key: str, default: int, *, least: int, most: int) -> int:
    """A whole-number setting within its bounds. Raises BadRequest that names the key."""
    text = dict(flatten(settings)).get(key)
    if text is None:
        return default
    if not text.isdecimal() or not least <= int(text) <= most:
        raise BadRequest(
            f"context setting {key} is {text!r}; it must be a whole number from {least} to {most}"
        )
    return int(text)


def unquoted(key: str) -> str:
    """A key of HOCON without the quotes that keep its dots together."""
    return key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
