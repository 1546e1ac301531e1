"""HDFS on this machine: a NameNode and a DataNode from Hadoop's minicluster jar, which Ivy fetches once.

The jar is the one of the release of the Hadoop client that pyspark carries; the rest of the class path is pyspark's.
"""

from __future__ import annotations

import getpass
import http.client
import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jobserver.errors import LocalPartFailed
from jobserver.local import ivy
from jobserver.local.java import spark_jars
from jobserver.local.layout import archive_cache
from jobserver.local.ports import LOOPBACK, free_ports
from jobserver.local.processes import Child, end_children, start, wait_until

ORGANISATION, ARTIFACT = "org.apache.hadoop", "hadoop-client-minicluster"
NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
DATANODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"
START_TIMEOUT = 60.0
FORMAT_TIMEOUT = 120.0
_JVM = (
    "-Xmx192m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dlog4j2.configurationFile=log4j2.properties",
)
_LOG = """status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""


def hadoop_version() -> str:
    """The release of the Hadoop client among pyspark's jars. Raises LocalPartFailed."""
    for jar in spark_jars().glob("hadoop-client-api-*.jar"):
        return jar.stem.removeprefix("hadoop-client-api-")
    raise LocalPartFailed(
        f"{spark_jars()} holds no hadoop-client-api, so no HDFS of its release can be started."
    )


def fetch_jar(java: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The minicluster jar (56 MB), kept in the user's cache. Raises LocalPartFailed."""
    return ivy.fetch(java, ORGANISATION, ARTIFACT, hadoop_version(), archive_cache(environ) / "jars")


@dataclass(frozen=True, slots=True)
class HdfsPorts:
    """One port for each thing that listens."""

    rpc: int
    web: int
    data: int
    data_web: int
    data_ipc: int


@dataclass(slots=True)
class LocalHdfs:
    """One NameNode and one DataNode; use again the same directory to find the same files.

    `impersonator` may act there for every other user.
    """

    directory: Path
    ports: HdfsPorts = field(default_factory=lambda: HdfsPorts(*free_ports(5)))
    impersonator: str | None = None
    namenode: Child | None = None
    datanode: Child | None = None

    @property
    def url(self) -> str:
        """What Spark is given."""
        return f"hdfs://{LOOPBACK}:{self.ports.rpc}"

    @property
    def web_url(self) -> str:
        """Where the NameNode answers WebHDFS."""
        return f"http://{LOOPBACK}:{self.ports.web}"

    @property
    def children(self) -> list[Child]:
        """Its processes that were started and not ended by us."""
        return [child for child in (self.namenode, self.datanode) if child is not None]

    def start(self, java: Path, jar: Path, started: Callable[[], None] = lambda: None) -> None:
        """Formats a new directory, starts both; returns when files can be written. Raises LocalPartFailed.

        `started` is called when there are processes to end, before anything is waited for.
        """
        self._configure()
        if not (self.directory / "name" / "current" / "VERSION").exists():
            self._format(java, jar)
        try:
            self.start_namenode(java, jar)
            self.start_datanode(java, jar)
            started()
            self.wait_serving()
        except BaseException:
            self.stop(grace=0)
            raise

    def start_namenode(self, java: Path, jar: Path) -> None:
        """Starts the NameNode alone; it serves later."""
        self.namenode = self._launch("NameNode", NAMENODE, java, jar)

    def start_datanode(self, java: Path, jar: Path) -> None:
        """Starts the DataNode alone; it registers later."""
        self.datanode = self._launch("DataNode", DATANODE, java, jar)

    def wait_serving(self, timeout: float = START_TIMEOUT) -> None:
        """Returns when the NameNode is out of safe mode and has its DataNode. Raises LocalPartFailed."""
        answered = wait_until(lambda: self.serving() or not self._running(), timeout)
        if not answered or not self._running():
            words = "; ".join(f"{child.name}: {child.last_words(3)}" for child in self.children)
            raise LocalPartFailed(f"HDFS did not serve at {self.url} within {timeout:g} s: {words}")

    def _running(self) -> bool:
        return all(child.running for child in self.children)

    def serving(self) -> bool:
        """Whether files can be read and written now.

        The NameNode has a DataNode that was killed as live for seconds more, and one that has come back has no room before
        its first report: so this DataNode's own word is needed, too.
        """
        state = self.state()
        live = json.loads(state.get("LiveNodes", "{}"))
        ready = not state.get("Safemode") and any(node["remaining"] > 0 for node in live.values())
        return ready and self._registered()

    def _registered(self) -> bool:
        told = self._bean(self.ports.data_web, "Hadoop:service=DataNode,name=DataNodeInfo")
        actors = json.loads(told.get("BPServiceActorInfo") or "[]")
        return any(actor["ActorState"] == "RUNNING" for actor in actors)

    def state(self) -> dict[str, Any]:
        """What the NameNode tells of itself; empty while it does not answer."""
        return self._bean(self.ports.web, "Hadoop:service=NameNode,name=NameNodeInfo")

    def _bean(self, port: int, name: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2.0)
        try:
            connection.request("GET", "/jmx?" + urlencode({"qry": name}))
            beans = json.loads(connection.getresponse().read())["beans"]
            return dict(beans[0]) if beans else {}
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return {}
        finally:
            connection.close()

    def stop(self, grace: float = 5.0) -> None:
        """Ends both; 0 s of grace is a kill. Nothing when neither runs."""
        end_children(self.children, grace)
        self.namenode = self.datanode = None

    def give(self, folder: str, user: str) -> None:
        """Makes a folder that belongs to a user; all else is the superuser's, who started HDFS. Raises LocalPartFailed."""
        self._order(folder, "MKDIRS")
        self._order(folder, "SETOWNER", owner=user)

    def _order(self, path: str, operation: str, **parameters: str) -> None:
        """What only the superuser may do."""
        query = urlencode({"op": operation, "user.name": getpass.getuser(), **parameters})
        connection = http.client.HTTPConnection(LOOPBACK, self.ports.web, timeout=10.0)
        try:
            connection.request("PUT", f"/webhdfs/v1{quote(path)}?{query}")
            answer = connection.getresponse()
            status, text = answer.status, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise LocalPartFailed(f"The NameNode did not answer {operation} of {path}: {error!r}") from error
        finally:
            connection.close()
        if status != 200:
            raise LocalPartFailed(f"The NameNode refused {operation} of {path}: {status} {text[:300]}")

    def _launch(self, name: str, main: str, java: Path, jar: Path) -> Child:
        log = self.directory / f"{name.lower()}.log"
        return start(name, self._command(java, jar, main), log=log, cwd=self.directory, env=_environment())

    def _format(self, java: Path, jar: Path) -> None:
        command = [*self._command(java, jar, NAMENODE), "-format", "-nonInteractive"]
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=FORMAT_TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            words = " ".join((done.stdout + done.stderr).strip().splitlines()[-3:])
            raise LocalPartFailed(f"The NameNode's directory could not be made: {words}")

    def _command(self, java: Path, jar: Path, main: str) -> list[str | Path]:
        own = f"-Djava.io.tmpdir={self._temporary}"  # a killed one leaves its web server's folders there
        return [java, *_JVM, own, "-cp", f"{self.directory / 'conf'}:{spark_jars()}/*:{jar}", main]

    @property
    def _temporary(self) -> Path:
        return self.directory / "tmp"

    def _configure(self) -> None:
        conf = self.directory / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        self._temporary.mkdir(exist_ok=True)
        (conf / "core-site.xml").write_text(site_xml(core_values(self.url, self.impersonator)))
        (conf / "hdfs-site.xml").write_text(site_xml(site_values(self.directory, self.ports)))
        (conf / "log4j2.properties").write_text(_LOG)
        (conf / "hadoop-metrics2.properties").write_text("*.period=1\n")  # else its counters are 10 s old


def core_values(url: str, impersonator: str | None) -> dict[str, str]:
    """core-site.xml: its own address, and who may act for others."""
    if impersonator is None:
        return {"fs.defaultFS": url}
    before = f"hadoop.proxyuser.{impersonator}"
    return {"fs.defaultFS": url, f"{before}.hosts": "*", f"{before}.groups": "*"}


def site_values(directory: Path, ports: HdfsPorts) -> dict[str, str]:
    """hdfs-site.xml: one replica, synced when closed; a dead DataNode is noticed in seconds, not in ten minutes."""
    return {
        "dfs.replication": "1",
        "dfs.namenode.name.dir": str(directory / "name"),
        "dfs.datanode.data.dir": str(directory / "data"),
        "dfs.namenode.http-address": f"{LOOPBACK}:{ports.web}",
        "dfs.datanode.address": f"{LOOPBACK}:{ports.data}",
        "dfs.datanode.http.address": f"{LOOPBACK}:{ports.data_web}",
        "dfs.datanode.ipc.address": f"{LOOPBACK}:{ports.data_ipc}",
        "dfs.datanode.hostname": LOOPBACK,
        "dfs.namenode.datanode.registration.ip-hostname-check": "false",
        "dfs.datanode.synconclose": "true",
        "dfs.namenode.safemode.extension": "0",
        "dfs.heartbeat.interval": "1",
        "dfs.namenode.heartbeat.recheck-interval": "1000",
        # The DataNode closes files for WebHDFS, and asks again after so long when the NameNode has not heard of the
        # block yet; the default of 400 ms shows in every fifth small write.
        "dfs.client.block.write.locateFollowingBlock.initial.delay.ms": "20",
    }


def site_xml(values: Mapping[str, str]) -> str:
    """The text of a Hadoop configuration file."""
    body = "".join(f"<property><name>{k}</name><value>{v}</value></property>\n" for k, v in values.items())
    return f'<?xml version="1.0"?>\n<configuration>\n{body}</configuration>\n'


def _environment() -> dict[str, str]:
    """Ours, without settings that point to another Hadoop."""
    return {key: value for key, value in os.environ.items() if not re.match(r"HADOOP_|HDFS_", key)}
