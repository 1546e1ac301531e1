"""ZooKeeper from pyspark's jars: serves when it says so, keeps its data, and survives the loss of one node of three."""

import pytest
from kazoo.client import KazooClient

from jobserver.errors import LocalPartFailed
from jobserver.local import zookeeper as zk
from jobserver.local.processes import wait_until


@pytest.fixture
def client():
    """Connects to hosts; closed with the test."""
    clients = []

    def connect(hosts, timeout=4.0):
        made = KazooClient(hosts, timeout=timeout)
        clients.append(made)
        made.start(timeout=15)
        return made

    yield connect
    for made in clients:
        made.stop()
        made.close()


def test_a_node_serves_writes_as_soon_as_it_is_said_to_serve(own_zookeeper, client):
    assert zk.mode(own_zookeeper.port) == "standalone"
    connected = client(own_zookeeper.address)
    connected.create("/a", b"1")
    assert connected.get("/a")[0] == b"1"


def test_a_node_keeps_its_data_over_a_kill(own_zookeeper, java, client):
    client(own_zookeeper.address).create("/kept", b"1")
    own_zookeeper.stop(grace=0)
    assert zk.mode(own_zookeeper.port) is None
    own_zookeeper.launch(java)
    own_zookeeper.wait_serving()
    assert client(own_zookeeper.address).exists("/kept")


def test_a_session_of_the_default_length_is_granted_in_full(zookeeper, client):
    connected = client(zookeeper.address, timeout=4.0)
    # kazoo shows the granted time nowhere; ZooKeeper's own list of connections does.
    connections = zk.four_letters(zookeeper.port, "cons")
    assert f"sid=0x{connected.client_id[0]:x}" in connections
    assert "to=4000" in connections


def test_an_ensemble_has_one_leader_and_goes_on_without_it(zookeeper_ensemble, client):
    modes = [mode_of(node) for node in zookeeper_ensemble]
    assert sorted(modes) == ["follower", "follower", "leader"]
    hosts = ",".join(node.address for node in zookeeper_ensemble)
    client(hosts).create("/before", b"")
    leader = zookeeper_ensemble[modes.index("leader")]
    leader.stop(grace=0)
    left = [node for node in zookeeper_ensemble if node is not leader]
    assert wait_until(lambda: sorted(filter(None, map(mode_of, left))) == ["follower", "leader"], 30)
    other = client(",".join(node.address for node in left))
    other.sync("/")
    assert other.exists("/before")


def mode_of(node):
    return zk.mode(node.port)


def test_a_node_whose_port_is_taken_says_so_in_one_error(own_zookeeper, java, tmp_path):
    second = zk.single(tmp_path / "second", own_zookeeper.port)
    with pytest.raises(
        LocalPartFailed, match=rf"cannot serve on {own_zookeeper.address}: the port is in use"
    ):
        zk.start_all([second], java)
    assert second.child is None
