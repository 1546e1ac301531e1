"""What a server remembers of ZooKeeper."""

import asyncio

from ha.coordination import OwnerNode
from ha.zookeeper import ZooKeeperCoordination


async def test_a_context_that_went_while_the_session_was_lost_is_forgotten():
    """The watches are new by then, and no watch tells of what is absent: its owner would be shown for ever."""
    coordination = ZooKeeperCoordination("127.0.0.1:1", session_timeout=4, call_timeout=1, cluster="test")
    coordination._loop = asyncio.get_running_loop()
    coordination._owner_seen("gone", OwnerNode("gone", "s1", "i1", 1))
    coordination._owner_seen("here", OwnerNode("here", "s1", "i1", 1))
    coordination._watched = {"here"}
    coordination._on_contexts(["here"])
    await asyncio.sleep(0)
    assert set(coordination.owners) == {"here"}
