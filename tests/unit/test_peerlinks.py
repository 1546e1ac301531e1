"""The machine of peer links: what proves a server's death, and all that does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ha.peerlinks import (
    LONGEST_RETRY,
    TABLE,
    AskDrivers,
    AskOthers,
    Connect,
    Connected,
    DriverSaid,
    Ended,
    Event,
    LinkPhase,
    OtherLife,
    OthersSaid,
    PeerLink,
    Refused,
    Sight,
    TakenDown,
    TellDead,
    TellOwnerLost,
    Unclear,
    begin,
    sight_of,
    step,
)

LINKED, LOST, NONE = Sight.LINKED, Sight.LOST, Sight.NONE
DIED = (Connected(), Ended(), Refused())


def told(*events):
    """The state after the events, and all that was to be done but connecting."""
    state, actions = begin()
    done = list(actions)
    for event in events:
        state, actions = step(state, event)
        done += actions
    return state, [action for action in done if not isinstance(action, Connect)]


def others(*sights, silent=0, round=1):
    return OthersSaid(round, sights, silent)


@pytest.mark.parametrize("gone", [Refused(), OtherLife()], ids=["refused", "another life"])
def test_an_ended_link_and_nobody_of_that_life_there_is_a_suspicion_for_which_witnesses_are_asked(gone):
    state, done = told(Connected(), Ended(), gone)
    assert state.phase is LinkPhase.SUSPECTED
    assert done == [AskOthers(1), AskDrivers(1)]


@pytest.mark.parametrize("said", [(LOST,), (LOST, LOST), (LOST, NONE)])
def test_nobody_has_a_link_and_somebody_lost_one_is_proof(said):
    state, done = told(*DIED, others(*said))
    assert state.phase is LinkPhase.DEAD
    assert done[-1] == TellDead()


@pytest.mark.parametrize(
    "said",
    [
        others(),  # two servers: nobody else to ask
        others(LINKED),
        others(LOST, LINKED),
        others(NONE),  # it never had a link: it has seen nothing end
        others(NONE, NONE),
        others(silent=1),
        others(LOST, silent=1),
        others(LOST, round=0),  # an answer to an earlier question
    ],
)
def test_what_others_say_is_no_proof_unless_all_answer_and_one_saw_it_end(said):
    state, done = told(*DIED, said)
    assert state.phase is LinkPhase.SUSPECTED
    assert TellDead() not in done


def test_a_drivers_word_is_proof_for_its_context_alone_and_told_once():
    state, done = told(*DIED, DriverSaid(1, "c1"), DriverSaid(1, "c1"), DriverSaid(1, "c2"))
    assert done[2:] == [TellOwnerLost("c1"), TellOwnerLost("c2")]
    assert state.phase is LinkPhase.SUSPECTED


@pytest.mark.parametrize(
    "events",
    [
        (Refused(), Refused()),  # never had a link
        (OtherLife(),),
        (Unclear(),),
        (Connected(), TakenDown(), Refused()),  # it said that it goes
        (Connected(), Ended(), Unclear()),  # a slow accept queue, a filtered port
        (Connected(), Ended(), Connected()),  # the link was reset, and is up again
        (Connected(), Ended(), Unclear(), Unclear()),
    ],
)
def test_without_an_ended_link_and_a_refusal_nobody_is_even_asked(events):
    _, done = told(*events, others(LOST), DriverSaid(0, "c1"), DriverSaid(1, "c1"))
    assert done == []


def test_a_suspicion_ends_when_the_link_is_up_again_and_late_words_do_not_bring_it_back():
    state, done = told(*DIED, Connected(), others(LOST), DriverSaid(1, "c1"))
    assert (state.phase, state.told) == (LinkPhase.LINKED, frozenset())
    assert done == [AskOthers(1), AskDrivers(1)]


def test_words_of_an_earlier_suspicion_do_not_count_for_a_later_one():
    state, done = told(*DIED, Connected(), Ended(), Refused(), others(LOST, round=1), DriverSaid(1, "c1"))
    assert state.phase is LinkPhase.SUSPECTED
    assert done == [AskOthers(1), AskDrivers(1), AskOthers(2), AskDrivers(2)]


def test_a_suspicion_rests_while_attempts_are_unclear():
    state, _ = told(*DIED, Unclear(), others(LOST))
    assert state.phase is LinkPhase.ENDED


def test_witnesses_are_asked_at_each_refusal_ever_more_rarely():
    state = PeerLink(LinkPhase.ENDED)
    waits = []
    for number in range(1, 10):
        state, actions = step(state, Refused())
        assert actions[:2] == (AskOthers(number), AskDrivers(number))
        waits.append(actions[2].after)
    assert waits == sorted(waits)
    assert waits[0] <= 0.1
    assert waits[-1] == LONGEST_RETRY


def test_a_server_that_was_given_up_and_answers_after_all_can_be_proven_dead_once_more():
    state, done = told(*DIED, others(LOST), Refused(), Connected(), Ended(), Refused(), others(LOST, round=2))
    assert state.phase is LinkPhase.DEAD
    assert done == [AskOthers(1), AskDrivers(1), TellDead(), AskOthers(2), AskDrivers(2), TellDead()]


@pytest.mark.parametrize(
    ("phase", "says"),
    [
        (LinkPhase.CONNECTING, NONE),
        (LinkPhase.LINKED, LINKED),
        (LinkPhase.ENDED, LOST),
        (LinkPhase.SUSPECTED, LOST),
        (LinkPhase.DEAD, LOST),
    ],
)
def test_what_a_server_answers_about_its_link(phase, says):
    assert sight_of(PeerLink(phase)) is says
    assert sight_of(None) is NONE


EVENTS = st.one_of(
    st.sampled_from([Connected(), Ended(), TakenDown(), Refused(), OtherLife(), Unclear()]),
    st.builds(
        OthersSaid,
        st.integers(0, 4),
        st.lists(st.sampled_from(list(Sight)), max_size=3).map(tuple),
        st.integers(0, 1),
    ),
    st.builds(DriverSaid, st.integers(0, 4), st.sampled_from(["c1", "c2"])),
)


@given(st.lists(EVENTS, max_size=25))
def test_whatever_happens_death_is_told_only_with_all_three_parts_of_the_proof(events: list[Event]):
    """The parts are looked for in the history itself, not in the machine's state."""
    state, _ = begin()
    for number, event in enumerate(events):
        before = state
        state, actions = step(state, event)
        for action in actions:
            if isinstance(action, TellDead | TellOwnerLost):
                assert before.phase is LinkPhase.SUSPECTED
                assert parts_of_proof(events[: number + 1], before.round)


def parts_of_proof(history: list[Event], asked: int) -> bool:
    """Link up, ended, refused, nothing unclear or up since; and a witness of the last round of asking."""
    kinds = [type(event) for event in history[:-1] if not isinstance(event, OthersSaid | DriverSaid)]
    attempts = [kind for kind in kinds if kind in (Connected, Refused, OtherLife, Unclear)]
    last_link = len(kinds) - 1 - kinds[::-1].index(Connected)
    witness = history[-1]
    assert isinstance(witness, OthersSaid | DriverSaid)
    good = isinstance(witness, DriverSaid) or (
        witness.silent == 0 and LOST in witness.sights and LINKED not in witness.sights
    )
    return (
        Ended in kinds[last_link:]
        and attempts[-1] in (Refused, OtherLife)
        and witness.round == asked
        and good
    )


@given(st.lists(EVENTS, max_size=25))
def test_one_attempt_to_connect_is_under_way_whenever_there_is_no_link(events: list[Event]):
    """Never two: the answer of one is the only way to the next."""
    state, actions = begin()
    attempts = len(actions)
    for event in events:
        if isinstance(event, Connected | Refused | OtherLife | Unclear):
            if attempts == 0:
                continue  # cannot happen: nobody connects
            attempts -= 1
        if isinstance(event, Ended | TakenDown) and state.phase is not LinkPhase.LINKED:
            continue
        state, actions = step(state, event)
        attempts += sum(isinstance(action, Connect) for action in actions)
        assert attempts == (0 if state.phase is LinkPhase.LINKED else 1)


def test_events_that_are_not_in_the_table_change_nothing():
    events = [
        Connected(),
        Ended(),
        TakenDown(),
        Refused(),
        OtherLife(),
        Unclear(),
        others(LOST),
        DriverSaid(0, "c"),
    ]
    for phase in LinkPhase:
        for event in events:
            if (phase, type(event)) not in TABLE:
                assert step(PeerLink(phase), event) == (PeerLink(phase), ())
