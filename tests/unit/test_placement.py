"""Placement: every server computes the same order."""

from __future__ import annotations

from ha.coordination import OwnerNode, ServerInfo
from ha.placement import place, standby_order, standby_rank


def servers(*names, draining=()):
    return {
        name: ServerInfo(name, f"i-{name}", "http://x", "h", 1, 1, "0", name in draining) for name in names
    }


def test_ranks_of_living_servers_are_distinct_and_without_gaps():
    cluster = servers("a", "b", "c")
    for context in ("c1", "c2", "c3"):
        assert sorted(standby_rank(context, cluster, name) for name in cluster) == [0, 1, 2]


def test_the_server_that_is_gone_takes_no_rank():
    cluster = servers("a", "b", "c")
    first = standby_order("c1", cluster)[0]
    others = [name for name in cluster if name != first]
    assert sorted(standby_rank("c1", cluster, name, but=first) for name in others) == [0, 1]


def test_contexts_spread_over_the_servers():
    cluster = servers("a", "b", "c")
    first = {standby_order(f"context-{number}", cluster)[0] for number in range(50)}
    assert first == set(cluster)


def test_a_new_context_goes_to_the_server_with_the_fewest():
    cluster = servers("a", "b")
    owners = [OwnerNode("c1", "a", "i-a", 1), OwnerNode("c2", "a", "i-a", 1), OwnerNode("c3", "gone", "i", 1)]
    assert place("new", cluster, owners) == ["b", "a"]


def test_a_draining_server_comes_last():
    assert place("new", servers("a", "b", draining=("b",)), [])[-1] == "b"
    assert standby_order("new", servers("a", "b", draining=("a",)))[-1] == "a"
