"""The directory of a local cluster, and the settings of its servers. Makes texts and small files, starts nothing.

```
DIR/up.lock              held by the living `up` that uses DIR
DIR/cluster.json         where everything is, while it runs
DIR/leftovers.json       processes of this `up`, for the next one, should this one be killed
DIR/jobserver.db         SQL;   DIR/checkpoints/   the checkpoint store;   DIR/secret   the cluster's secret
DIR/zookeeper/           the ZooKeeper node
DIR/mariadb/             the MariaDB server, with --mysql;   DIR/hdfs/   NameNode and DataNode, with --hdfs
DIR/s1/server.yaml       settings of server s1;   DIR/s1/server.log   its output
DIR/s1/drivers/<id>/driver.json   a driver of s1: pid, pid_started, jvm_pid
```
"""

from __future__ import annotations

import copy
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from jobserver.local.ports import LOOPBACK
from jobserver.local.processes import ProcessId
from jobserver.settings import Settings, settings_of


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one local cluster. `root` is absolute."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "up.lock"

    @property
    def picture(self) -> Path:
        return self.root / "cluster.json"

    @property
    def leftovers(self) -> Path:
        return self.root / "leftovers.json"

    @property
    def secret(self) -> Path:
        return self.root / "secret"

    @property
    def zookeeper(self) -> Path:
        return self.root / "zookeeper"

    @property
    def mariadb(self) -> Path:
        return self.root / "mariadb"

    @property
    def hdfs(self) -> Path:
        return self.root / "hdfs"

    def server(self, server_id: str) -> Path:
        """Directory of one server."""
        return self.root / server_id

    def settings_file(self, server_id: str) -> Path:
        return self.server(server_id) / "server.yaml"

    def drivers(self, server_id: str) -> Path:
        """Where a server's drivers have a folder each."""
        return self.server(server_id) / "drivers"

    def driver_files(self) -> list[Path]:
        """What drivers of all servers have written about themselves."""
        return sorted(self.root.glob("*/drivers/*/driver.json"))


@dataclass(frozen=True, slots=True)
class ServerPicture:
    """A server in cluster.json."""

    id: str
    url: str
    pid: int


@dataclass(frozen=True, slots=True)
class ClusterPicture:
    """What cluster.json tells."""

    servers: tuple[ServerPicture, ...]
    zookeeper: str
    database_url: str
    checkpoint_root: str


@dataclass(frozen=True, slots=True)
class HdfsPlace:
    """Where a local HDFS is: what Spark is given, and where its NameNode answers WebHDFS."""

    url: str
    web_url: str


def with_hdfs(base: Mapping[str, Any], hdfs: HdfsPlace) -> dict[str, Any]:
    """The sections with checkpoints in a local HDFS of one DataNode, unless they name another place."""
    values = copy.deepcopy({name: dict(section or {}) for name, section in base.items()})
    _unless_named(values, "checkpoint", "root", f"{hdfs.url}/jobserver")
    if values["checkpoint"]["root"].startswith(hdfs.url):
        values["webhdfs"] = {**values.get("webhdfs", {}), "namenodes": [hdfs.web_url]}
    conf = values.setdefault("driver", {}).setdefault("spark_conf", {})
    values["driver"]["spark_conf"] = {"spark.hadoop.dfs.replication": "1", **conf}
    return values


def server_values(
    base: Mapping[str, Any], layout: Layout, server_id: str, port: int, zookeeper: str, java: Path
) -> dict[str, Any]:
    """The sections of one server's settings file: `base` (a file's sections) with what only `up` can know put in.

    `server` (but its log level), `zookeeper.hosts` and the secret are always ours; database, checkpoint root, Java and
    archive are ours unless `base` names them.
    """
    values = copy.deepcopy({name: dict(section or {}) for name, section in base.items()})
    server = values.setdefault("server", {})
    server |= {"id": server_id, "host": LOOPBACK, "port": port, "advertise": None}
    server["dir"] = str(layout.server(server_id))
    values.setdefault("zookeeper", {})["hosts"] = zookeeper
    cluster = values.setdefault("cluster", {})
    cluster |= {"secret": None, "secret_file": str(layout.secret)}
    _unless_named(values, "database", "url", f"sqlite:///{layout.root}/jobserver.db")
    _unless_named(values, "checkpoint", "root", str(layout.root / "checkpoints"))
    _unless_named(values, "driver", "java", str(java))
    _unless_named(values, "driver", "archive_dir", str(archive_cache(os.environ)))
    return values


def _unless_named(values: dict[str, Any], section: str, key: str, ours: str) -> None:
    """Sets a key that the base leaves out or leaves at its default: the commented default file may be the base."""
    default = Settings().model_dump(mode="json")[section][key]
    if values.setdefault(section, {}).get(key, default) == default:
        values[section][key] = ours


def archive_cache(environ: Mapping[str, str]) -> Path:
    """Where class archives are kept from one local cluster to the next: making one costs a slow start of a JVM."""
    cache = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/tmp")) / ".cache"
    return Path(cache) / "ha-spark-job-server"


def write_settings(layout: Layout, server_id: str, values: Mapping[str, Any]) -> Settings:
    """Checks the values and writes the server's settings file. Raises SettingsRefused."""
    settings = settings_of(values)
    file = layout.settings_file(server_id)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, yaml.safe_dump(dict(values), sort_keys=False))
    return settings


def ensure_secret(layout: Layout) -> None:
    """Makes the cluster's secret at the first start; a re-used directory keeps its own."""
    if not layout.secret.exists():
        write_atomically(layout.secret, secrets.token_hex(32) + "\n")


def write_picture(layout: Layout, picture: ClusterPicture) -> None:
    """Writes cluster.json; readers see the whole of it or nothing."""
    write_atomically(layout.picture, json.dumps(asdict(picture), indent=2) + "\n")


def read_picture(layout: Layout) -> ClusterPicture:
    """Reads cluster.json. Raises FileNotFoundError while no cluster runs there."""
    values = json.loads(layout.picture.read_text())
    return ClusterPicture(
        **(values | {"servers": tuple(ServerPicture(**each) for each in values["servers"])})
    )


def write_leftovers(layout: Layout, processes: list[ProcessId]) -> None:
    """Notes our processes, so that the next `up` can end them if this one is killed."""
    write_atomically(layout.leftovers, json.dumps([asdict(each) for each in processes]) + "\n")


def read_leftovers(layout: Layout) -> list[ProcessId]:
    """What a killed `up` has noted; nothing after an orderly end."""
    if not layout.leftovers.exists():
        return []
    return [ProcessId(**each) for each in json.loads(layout.leftovers.read_text())]


def read_driver(file: Path) -> ProcessId | None:
    """The process in a driver.json; None when the file is torn or gone (its driver died while writing or ending)."""
    try:
        values = json.loads(file.read_text())
        return ProcessId(int(values["pid"]), int(values["pid_started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_atomically(file: Path, text: str) -> None:
    """Writes a file that only its owner may read; never seen half-written."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(text)
    draft.replace(file)
