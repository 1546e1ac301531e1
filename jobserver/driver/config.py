"""What a driver is started with, and the Spark settings that follow from it (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkpoint.stores import HdfsAccess

SMALL_MEMORY = 2 * 1024**3
"""Drivers up to this heap (bytes) use the serial collector and the quick compiler only: they start much faster."""

_UNITS = {"": 1024**2, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


@dataclass(frozen=True, slots=True)
class DriverConfig:
    """The configuration file of a driver. Times in seconds; `checkpoint_root` is a path or URL, or empty for none.

    It listens on `bind_host`; servers and executors reach it at `host` (empty: the same). Spark works for `proxy_user`, if
    there is one, who is not the user of the process.
    """

    driver_id: str
    secret: str
    dir: Path
    cluster: str
    cluster_secret: str
    checkpoint_root: str = ""
    hdfs: HdfsAccess | None = None
    bind_host: str = "127.0.0.1"
    host: str = ""
    spark_conf: Mapping[str, str] = field(default_factory=dict)
    java_executable: str = "java"
    java_options: tuple[str, ...] = ()
    driver_memory: str = "1g"
    proxy_user: str | None = None
    archive_dir: Path | None = None
    orphan_timeout: float = 60.0
    unbound_timeout: float = 5.0
    kill_grace: float = 10.0
    result_limit: int = 128 * 2**20
    job_log_limit: int = 4 * 2**20
    warm_up: bool = False
    async_interval: float = 5.0
    async_max_lag: float = 600.0

    @property
    def reached_at(self) -> str:
        """The address that servers and executors are told."""
        return self.host or self.bind_host


class BrokenConfig(ValueError):
    """The configuration file cannot be used; the text says why."""


def parse(plain: Mapping[str, Any]) -> DriverConfig:
    """The configuration in the file's JSON object. Raises BrokenConfig; unknown keys are refused."""
    values = dict(plain)
    java = values.pop("java", None) or {}
    try:
        for key in ("dir", "archive_dir"):
            if values.get(key) is not None:
                values[key] = Path(values[key])
        if values.get("hdfs") is not None:
            values["hdfs"] = HdfsAccess.of_plain(values["hdfs"])
        values["spark_conf"] = {key: _text(value) for key, value in (values.get("spark_conf") or {}).items()}
        config = DriverConfig(
            **values,
            java_executable=_executable(java),
            java_options=tuple(java.get("options", ())),
        )
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise BrokenConfig(f"the driver's configuration is not as expected: {error}") from error
    memory_bytes(config.driver_memory)
    return config


def memory_bytes(text: str) -> int:
    """Bytes of a memory size as the JVM and Spark write it ("512m"). Raises BrokenConfig."""
    found = re.fullmatch(r"([0-9]+)([kmgt]?)b?", text.strip().lower())
    if not found or int(found[1]) == 0:
        raise BrokenConfig(f"driver memory {text!r} is no size such as 1024k, 512m or 2g")
    return int(found[1]) * _UNITS[found[2]]


def is_small(config: DriverConfig) -> bool:
    """Whether the serial collector will do, which starts sooner."""
    return memory_bytes(config.driver_memory) <= SMALL_MEMORY


def spark_settings(config: DriverConfig, pools_file: Path) -> dict[str, str]:
    """All Spark settings of the driver: ours as defaults, then the given ones.

    Sessions that a job makes in the JVM by itself have artifacts of their own, all others share theirs (DECISIONS 180). A file of
    a name that is taken replaces the other, as it would else fail every later task (added_files.py refuses what it sees). The
    two thread thresholds bound what each shuffle query would otherwise add to the JVM's threads for good. The retained numbers
    bound what Spark's own records of ended work add to the heap: progress needs the running work only, and Spark's defaults
    (1,000 queries with their plans, 100,000 tasks) are for a page that is off.
    """
    settings = {
        "spark.master": "local[*]",
        "spark.app.name": f"driver-{config.driver_id}",
        "spark.submit.deployMode": "client",
        "spark.driver.host": config.reached_at,
        "spark.driver.bindAddress": config.bind_host,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.ui.retainedJobs": "200",
        "spark.ui.retainedStages": "200",
        "spark.ui.retainedTasks": "5000",
        "spark.sql.ui.retainedExecutions": "100",
        "spark.scheduler.mode": "FAIR",
        "spark.scheduler.allocation.file": pools_file.as_uri(),
        "spark.sql.shuffleExchange.maxThreadThreshold": "16",
        "spark.sql.resultQueryStage.maxThreadThreshold": "16",
        "spark.sql.artifact.isolation.enabled": "true",
        "spark.files.overwrite": "true",
        "spark.local.dir": str(config.dir / "local"),
        "spark.sql.warehouse.dir": (config.dir / "warehouse").as_uri(),
    }
    return {**settings, **config.spark_conf, "spark.driver.memory": config.driver_memory}


def pools_xml(slots: int) -> str:
    """The fair scheduler's few fixed pools. The interactive one is sure of `slots`, or long jobs would starve it."""
    pools = (("interactive", 10, slots), ("batch", 2, 0), ("background", 1, 0))
    body = "".join(
        f'<pool name="{name}"><schedulingMode>FAIR</schedulingMode><weight>{weight}</weight>'
        f"<minShare>{share}</minShare></pool>"
        for name, weight, share in pools
    )
    return f'<?xml version="1.0"?><allocations>{body}</allocations>'


def slots_of(settings: Mapping[str, str], cores: int) -> int:
    """How many tasks run at once, as far as the settings tell; `cores` are this machine's."""
    master = settings.get("spark.master", "local[*]")
    found = re.fullmatch(r"local(?:\[([0-9]+|\*)(?:,[0-9]+)?\])?", master)
    if found:
        return cores if found[1] == "*" else int(found[1] or 1)
    limit = settings.get("spark.cores.max", "")
    return int(limit) if limit.isdigit() else 2


def properties_text(settings: Mapping[str, str]) -> str:
    """The settings as a Java properties file, so that no secret among them shows in the list of processes."""
    return "".join(f"{_escaped(key)}={_escaped(value)}\n" for key, value in sorted(settings.items()))


def _escaped(text: str) -> str:
    units = memoryview(text.encode("utf-16-be", "surrogatepass")).cast("B")
    codes = [units[at] << 8 | units[at + 1] for at in range(0, len(units), 2)]
    return "".join(
        chr(code) if 0x20 < code < 0x7F and chr(code) not in "\\=:#!" else f"\\u{code:04x}" for code in codes
    )


def _executable(java: Mapping[str, Any]) -> str:
    if java.get("executable"):
        return str(java["executable"])
    return str(Path(java["home"]) / "bin" / "java") if java.get("home") else "java"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
