"""A local cluster made into one of several machines: each server has a machine's name of its own, is reached by the others
through a proxy, and reaches ZooKeeper through another, so that any two parts can be cut off from each other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil
import yaml

from jobserver.local.layout import write_atomically
from jobserver.local.processes import end_children
from jobserver.local.up import LocalCluster
from tests.fakes.proxy import Cut, Proxies

LEAVE = 20.0
"""Seconds a server has to leave when it is started again with new addresses."""


class FarApart:
    """Cuts parts of a running cluster off from each other."""

    def __init__(self, cluster: LocalCluster, proxies: Proxies) -> None:
        self._cluster = cluster
        self._proxies = proxies
        host, port = cluster.zookeeper.address.split(":")
        self._to_server = {
            name: proxies.open(_address(cluster.url(name)), self._who) for name in cluster.servers
        }
        self._to_zookeeper = {name: proxies.open((host, int(port))) for name in cluster.servers}

    def _who(self, port: int) -> str | None:
        """The server whose connection has this local port."""
        for name, child in self._cluster.servers.items():
            with contextlib.suppress(psutil.Error):
                for one in psutil.Process(child.id.pid).net_connections("tcp"):
                    if one.laddr.port == port:
                        return name
        return None

    def settle(self, zookeeper: str | None = None) -> None:
        """Starts every server again, at its new addresses; with another ZooKeeper than the cluster's if one is named."""
        end_children(list(self._cluster.servers.values()), LEAVE)
        for name in self._cluster.servers:
            file = self._cluster.layout.settings_file(name)
            values = yaml.safe_load(file.read_text())
            values["server"] |= {"machine": name, "advertise": f"http://{self._to_server[name].address}"}
            values["driver"]["host"] = f"127.0.0.1{name.removeprefix('s')}"
            values["zookeeper"]["hosts"] = zookeeper or self._to_zookeeper[name].address
            write_atomically(file, yaml.safe_dump(values, sort_keys=False))
            self._cluster.start_server(name)

    @contextlib.contextmanager
    def servers_cut(self, how: Cut, one: str, other: str) -> Iterator[None]:
        """Two servers do not reach each other."""
        with (
            self._proxies.cut(how, self._to_server[one], whom=other),
            self._proxies.cut(how, self._to_server[other], whom=one),
        ):
            yield

    @contextlib.contextmanager
    def peers_cut(self, how: Cut, one: str) -> Iterator[None]:
        """One server and all others do not reach each other."""
        with contextlib.ExitStack() as cuts:
            cuts.enter_context(self._proxies.cut(how, self._to_server[one]))
            for name, proxy in self._to_server.items():
                if name != one:
                    cuts.enter_context(self._proxies.cut(how, proxy, whom=one))
            yield

    @contextlib.contextmanager
    def zookeeper_cut(self, how: Cut, *servers: str) -> Iterator[None]:
        """These servers do not reach ZooKeeper; all when none is named."""
        with self._proxies.cut(how, *(self._to_zookeeper[name] for name in servers or self._to_zookeeper)):
            yield


def _address(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


@contextlib.contextmanager
def far_apart(cluster: LocalCluster) -> Iterator[FarApart]:
    """The cluster, its servers on machines of their own for as long as the block lasts."""
    with Proxies.running() as proxies:
        apart = FarApart(cluster, proxies)
        apart.settle()
        yield apart
