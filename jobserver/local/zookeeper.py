"""ZooKeeper from the jars that pyspark carries: one node, or an ensemble on one machine.

Sessions of 1 to 10 s are granted (2 to 20 ticks of 500 ms). Data stays in the node's directory.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobserver.errors import LocalPartFailed
from jobserver.local.java import spark_jars
from jobserver.local.ports import LOOPBACK, busy_ports, free_ports
from jobserver.local.processes import Child, end_children, start, wait_until

TICK_MS = 500
LOG4J2 = """\
status = error
rootLogger.level = info
rootLogger.appenderRef.log.ref = log
appender.log.type = Console
appender.log.name = log
appender.log.layout.type = PatternLayout
appender.log.layout.pattern = %d %p %c{1}: %m%n
"""
"""What a node tells in its log: elections, sessions that end, what it could not do."""
START_TIMEOUT = 30.0
_MODE = re.compile(r"^Mode: (\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Peer:
    """A node as the other nodes of its ensemble know it."""

    number: int
    follow_port: int
    election_port: int


@dataclass(slots=True)
class ZooKeeperNode:
    """One node: where it lives and, while it runs, its process."""

    directory: Path
    port: int
    number: int = 1
    peers: Sequence[Peer] = field(default_factory=tuple)
    child: Child | None = None

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"{LOOPBACK}:{self.port}"

    def launch(self, java: Path) -> None:
        """Starts the process; it serves later (`wait_serving`). Raises LocalPartFailed."""
        if busy_ports([self.port]):
            # Asked before the start: later, the one that has the port would answer in the name of this node.
            raise LocalPartFailed(f"ZooKeeper cannot serve on {self.address}: the port is in use.")
        data = self.directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        (data / "myid").write_text(f"{self.number}\n")
        config = self.directory / "zoo.cfg"
        config.write_text(zoo_cfg(data, self.port, self.peers))
        logging = self.directory / "log4j2.properties"
        logging.write_text(LOG4J2)
        log = self.directory / "zookeeper.log"
        command = _command(java, config, logging)
        self.child = start("ZooKeeper", command, log=log, cwd=self.directory, env=os.environ)

    def wait_serving(self, timeout: float = START_TIMEOUT) -> None:
        """Returns when the node serves clients. Raises LocalPartFailed with its last words when it does not."""
        child = self.child
        assert child is not None
        # Not asked again for the verdict: a node that has just lost its leader answers, and a moment later it does not.
        answered = wait_until(lambda: mode(self.port) is not None or not child.running, timeout)
        if not answered or not child.running:
            raise LocalPartFailed(
                f"ZooKeeper did not serve on {self.address} within {timeout:g} s: {child.last_words()}"
            )

    def stop(self, grace: float = 5.0) -> None:
        """Ends the process; 0 s of grace is a kill. Nothing when it does not run."""
        if self.child is not None:
            end_children([self.child], grace)
            self.child = None


def single(directory: Path, port: int) -> ZooKeeperNode:
    """A node that is alone."""
    return ZooKeeperNode(directory, port)


def ensemble(directory: Path, count: int = 3) -> list[ZooKeeperNode]:
    """Nodes that make one ensemble, on free ports."""
    ports = free_ports(3 * count)
    peers = [Peer(n + 1, ports[3 * n + 1], ports[3 * n + 2]) for n in range(count)]
    return [
        ZooKeeperNode(directory / f"zk{peer.number}", ports[3 * n], peer.number, peers)
        for n, peer in enumerate(peers)
    ]


def start_all(nodes: Sequence[ZooKeeperNode], java: Path) -> str:
    """Starts nodes together and waits for all; the text of hosts for clients. Stops them again when one fails."""
    try:
        for node in nodes:
            node.launch(java)
        for node in nodes:
            node.wait_serving()
    except BaseException:
        for node in nodes:
            node.stop(grace=0)
        raise
    return ",".join(node.address for node in nodes)


def zoo_cfg(data: Path, port: int, peers: Sequence[Peer] = ()) -> str:
    """The text of a node's configuration."""
    lines = [
        f"tickTime={TICK_MS}",
        f"dataDir={data}",
        f"clientPort={port}",
        f"clientPortAddress={LOOPBACK}",
        "admin.enableServer=false",
        "4lw.commands.whitelist=*",
        "maxClientCnxns=0",
        "autopurge.snapRetainCount=3",
        "autopurge.purgeInterval=1",
    ]
    if peers:
        lines += ["initLimit=10", "syncLimit=4"]
        lines += [f"server.{p.number}={LOOPBACK}:{p.follow_port}:{p.election_port}" for p in peers]
    return "\n".join(lines) + "\n"


def mode(port: int, timeout: float = 1.0) -> str | None:
    """`standalone`, `leader` or `follower`; None while the node does not serve. (`ruok` answers too early.)"""
    match = _MODE.search(four_letters(port, "srvr", timeout))
    return match.group(1) if match else None


def four_letters(port: int, word: str, timeout: float = 1.0) -> str:
    """The answer to one of ZooKeeper's four-letter words; empty when nobody answers."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout) as connection:
            connection.sendall(word.encode())
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode(errors="replace")
    except OSError:
        return ""


def _command(java: Path, config: Path, logging: Path) -> list[str | Path]:
    return [
        java,
        "-Xmx128m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dzookeeper.preAllocSize=1024",  # KiB of log made at once; the default of 64 MiB is for busy ensembles
        f"-Dlog4j2.configurationFile={logging}",
        "-cp",
        f"{spark_jars()}/*",
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        config,
    ]
