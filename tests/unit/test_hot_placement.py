"""Which server keeps which hot driver: agreed from the same picture, by load, within limits, and stable."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ha.coordination import OwnerNode, ServerInfo
from ha.placement import HotWish, hot_standbys, standby_order

GIB = 2**30


def server(name, **more):
    return ServerInfo(name, f"i-{name}", "http://x", "h", 1, 1, "0", **more)


def cluster(*servers):
    return {info.id: info for info in servers}


def owned(**contexts):
    return [OwnerNode(context, name, f"i-{name}", 1) for context, name in contexts.items()]


def wishes(owners, memory=GIB):
    return [HotWish(node.context_id, node.server, memory) for node in owners]


def announced(servers, chosen):
    """The servers after each has bound what it was chosen for."""
    return {
        name: replace(info, hot=tuple(sorted(c for c, s in chosen.items() if s == name)))
        for name, info in servers.items()
    }


def test_the_owner_keeps_no_standby_of_its_own_context():
    owners = owned(c1="a", c2="a", c3="b")
    chosen = hot_standbys(wishes(owners), cluster(server("a"), server("b")), owners)
    assert chosen == {"c1": "b", "c2": "b", "c3": "a"}


def test_a_cluster_of_one_has_no_standbys():
    owners = owned(c1="a")
    assert hot_standbys(wishes(owners), cluster(server("a")), owners) == {}


def test_the_server_with_less_to_carry_comes_first():
    owners = owned(c1="a", c2="b", c3="b", c4="b")
    chosen = hot_standbys(wishes(owned(c1="a")), cluster(server("a"), server("b"), server("c")), owners)
    assert chosen == {"c1": "c"}


def test_standbys_of_many_contexts_are_spread_in_one_go():
    owners = owned(**{f"c{number}": "a" for number in range(10)})
    chosen = hot_standbys(wishes(owners), cluster(server("a"), server("b"), server("c")), owners)
    counts = [list(chosen.values()).count(name) for name in "abc"]
    assert counts == [0, 5, 5]


def test_who_keeps_it_goes_on_keeping_it_when_another_has_less_to_carry():
    owners = owned(c1="a", c2="b", c3="b")
    servers = cluster(server("a"), server("b", hot=("c1",)), server("c"))
    assert hot_standbys(wishes(owned(c1="a")), servers, owners) == {"c1": "b"}


def test_of_two_that_keep_it_one_is_told_to_go_on():
    owners = owned(c1="a")
    servers = cluster(server("a"), server("b", hot=("c1",)), server("c", hot=("c1",)))
    chosen = hot_standbys(wishes(owners), servers, owners)
    assert chosen["c1"] == standby_order("c1", cluster(server("b"), server("c")))[0]


def test_who_starts_the_hot_driver_goes_on_although_a_server_joins_that_would_come_first():
    owners = owned(c1="a")
    first = hot_standbys(wishes(owners), cluster(*map(server, "abc")), owners)["c1"]
    (other,) = {"b", "c"} - {first}
    starting = cluster(server("a"), server(first), server(other, readying=("c1",)))
    assert hot_standbys(wishes(owners), starting, owners) == {"c1": other}
    kept = cluster(server("a"), server(first, hot=("c1",)), server(other, readying=("c1",)))
    assert hot_standbys(wishes(owners), kept, owners) == {"c1": first}, "one that is there is worth more"


def test_an_owner_that_still_keeps_the_hot_driver_of_its_context_is_replaced():
    owners = owned(c1="a")
    servers = cluster(server("a", hot=("c1",)), server("b"))
    assert hot_standbys(wishes(owners), servers, owners) == {"c1": "b"}


def test_draining_and_full_servers_are_not_chosen():
    owners = owned(c1="a", c2="a")
    servers = cluster(
        server("a"), server("b", draining=True), server("c", hot_limit=1), server("d", hot_limit=0)
    )
    assert hot_standbys(wishes(owners), servers, owners) == {"c1": "c"}


def test_memory_bounds_them_too():
    owners = owned(c1="a", c2="a", c3="a")
    servers = cluster(server("a"), server("b", hot_memory=5 * GIB))
    assert set(hot_standbys(wishes(owners, 2 * GIB), servers, owners)) == {"c1", "c2"}


def test_who_keeps_the_hot_driver_claims_first():
    servers = cluster(server("a"), server("b"), server("c"))
    last = standby_order("c1", servers)[-1]
    servers[last] = replace(servers[last], hot=("c1",))
    assert standby_order("c1", servers)[0] == last
    servers[last] = replace(servers[last], draining=True)
    assert standby_order("c1", servers)[-1] == last


@given(
    st.dictionaries(st.sampled_from([f"c{n}" for n in range(12)]), st.sampled_from("abcd"), max_size=12),
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=4, max_size=4),
    st.randoms(),
)
def test_servers_agree_whatever_the_order_of_what_they_see_and_nothing_moves_afterwards(
    contexts, limits, random
):
    servers = cluster(*(server(n, hot_limit=m, draining=d) for n, (m, d) in zip("abcd", limits, strict=True)))
    owners = owned(**contexts)
    chosen = hot_standbys(wishes(owners), servers, owners)
    shuffled = random.sample(owners, len(owners))
    names = random.sample(sorted(servers), len(servers))
    assert hot_standbys(wishes(shuffled), {name: servers[name] for name in names}, shuffled) == chosen
    assert hot_standbys(wishes(owners), announced(servers, chosen), owners) == chosen
    for name, info in servers.items():
        assert list(chosen.values()).count(name) <= (0 if info.draining else info.hot_limit)
    for node in owners:
        assert chosen.get(node.context_id) != node.server
