"""What a server remembers of its cluster, and what it believes when a look and a watch bring different news."""

import pytest

from ha.coordination import Link, OwnerChanged, OwnerNode
from ha.picture import Picture

OLD = OwnerNode("c", "s1", "i1", 1)
NEW = OwnerNode("c", "s2", "i2", 2)


@pytest.fixture
def heard():
    return []


@pytest.fixture
def picture(heard):
    picture = Picture()
    picture.link_changed(Link.CONNECTED)
    picture.listener = heard.append
    return picture


def test_a_context_that_went_while_the_session_was_lost_is_forgotten(picture):
    """The watches are new by then, and no watch tells of what is absent: its owner would be shown for ever."""
    picture.owner_seen("gone", OwnerNode("gone", "s1", "i1", 1))
    picture.owner_seen("c", OLD)
    picture.contexts_left(frozenset({"c"}))
    assert picture.owners == {"c": OLD}


def test_a_look_does_not_overwrite_what_a_watch_told_meanwhile(picture, heard):
    picture.owner_seen("c", OLD)
    since = picture.moment("c")
    picture.owner_seen("c", NEW)
    picture.owner_read("c", OLD, since)
    assert picture.owners == {"c": NEW}
    assert heard == [OwnerChanged("c", OLD, False), OwnerChanged("c", NEW, True)]


def test_a_look_does_not_bring_back_an_owner_that_vanished_meanwhile(picture):
    picture.owner_seen("c", OLD)
    since = picture.moment("c")
    picture.owner_seen("c", None)
    picture.owner_read("c", OLD, since)
    assert picture.owners == {}


def test_a_look_does_not_bring_back_a_context_that_went_meanwhile(picture):
    picture.owner_seen("c", OLD)
    since = picture.moment("c")
    picture.contexts_left(frozenset())
    picture.owner_read("c", OLD, since)
    assert picture.owners == {}


def test_a_look_that_a_break_overtook_is_left_to_the_next_one(picture):
    picture.owner_seen("c", OLD)
    since = picture.moment("c")
    picture.link_changed(Link.SUSPENDED)
    picture.link_changed(Link.CONNECTED)
    picture.owner_read("c", OLD, since)
    picture.owner_seen("c", None)
    assert picture.owners == {}


def test_the_owner_that_a_look_finds_after_a_break_is_witnessed_when_it_vanishes(picture, heard):
    picture.owner_seen("c", OLD)
    picture.link_changed(Link.SUSPENDED)
    picture.link_changed(Link.CONNECTED)
    picture.owner_read("c", NEW, picture.moment("c"))
    picture.owner_seen("c", None)
    assert heard[-2:] == [OwnerChanged("c", NEW, False), OwnerChanged("c", None, True)]


def test_an_owner_that_vanishes_during_a_break_is_not_witnessed(picture, heard):
    picture.owner_seen("c", OLD)
    picture.link_changed(Link.SUSPENDED)
    picture.link_changed(Link.CONNECTED)
    picture.owner_read("c", None, picture.moment("c"))
    assert heard[-1] == OwnerChanged("c", None, False)
