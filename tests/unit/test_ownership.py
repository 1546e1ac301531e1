"""The ownership machine: what follows from each event, as pictures of whole takeovers and as properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ha.actions import (
    Adopt,
    AskIncumbent,
    CloseGate,
    Elect,
    EndContext,
    EndDriver,
    Grant,
    HandOver,
    MakeBase,
    OpenGate,
    PlanJobs,
    Quiesce,
    Release,
    Resume,
    StartDriver,
    StepDown,
    Wait,
)
from ha.coordination import OwnerNode
from ha.events import (
    Adopted,
    AdoptFailed,
    BaseReady,
    ContextEnded,
    CoordinationSilent,
    DriverLost,
    DriverReady,
    ElectionLost,
    ElectionWon,
    Granted,
    GrantRefused,
    IncumbentAnswered,
    IncumbentSilent,
    JobsPlanned,
    MoveAsked,
    MoveFailed,
    OwnerDead,
    OwnerSeen,
    OwnerVanished,
    Quiet,
    StartFailed,
    Superseded,
    TakeOverAsked,
    WaitOver,
    Wanted,
    WorkFailed,
)
from ha.ownership import START_TRIES, TABLE, Ownership, Phase, step

DEAD = OwnerNode("c", "s1", "i1", 3)
EVENTS = [
    OwnerVanished(True, 0.0),
    OwnerVanished(False, 0.3),
    OwnerSeen("s2"),
    OwnerDead(DEAD, 0.3),
    Wanted(),
    WaitOver(),
    IncumbentAnswered(),
    IncumbentSilent(),
    ElectionWon(),
    ElectionLost(),
    CoordinationSilent("no answer"),
    Granted(7, True),
    Granted(7, False),
    GrantRefused(),
    Adopted(),
    AdoptFailed(False, "why"),
    AdoptFailed(True, "why"),
    BaseReady(),
    DriverReady(),
    StartFailed(False, False, "why"),
    StartFailed(True, False, "why"),
    StartFailed(False, True, "why"),
    JobsPlanned(),
    WorkFailed("why"),
    DriverLost("why"),
    Superseded("why"),
    MoveAsked("s2", 30.0, False),
    MoveAsked("s2", 30.0, True),
    Quiet("s2"),
    MoveFailed("why"),
    TakeOverAsked(DEAD, False),
    TakeOverAsked(DEAD, True),
    ContextEnded(),
]


def told(events, state=None):
    """The state after the events, and every action on the way by its type."""
    state = state or Ownership()
    actions = []
    for event in events:
        decision = step(state, event)
        state = decision.state
        actions += decision.actions
    return state, actions


def test_a_dead_servers_driver_is_adopted_in_the_order_elect_grant_adopt_plan_open():
    state, actions = told(
        [OwnerVanished(True, 0.0), WaitOver(), ElectionWon(), Granted(2, True), Adopted(), JobsPlanned()]
    )
    assert actions == [Wait(0.0), Elect(None), Grant(), Adopt(), PlanJobs(), OpenGate()]
    assert state == Ownership(Phase.OWNING, epoch=2)


def test_a_dead_driver_is_replaced_under_the_next_epoch_without_asking_zookeeper():
    state, actions = told(
        [DriverLost("EOF"), Granted(3, True), BaseReady(), DriverReady(), JobsPlanned()],
        Ownership(Phase.OWNING, epoch=2),
    )
    assert actions == [CloseGate(), Grant(), MakeBase(), StartDriver(), PlanJobs(), OpenGate()]
    assert state == Ownership(Phase.OWNING, epoch=3)


def test_hello_that_fails_leaves_the_epoch_free_for_the_base():
    _, actions = told([AdoptFailed(spent=False, why="refused")], Ownership(Phase.ADOPTING, epoch=2))
    assert actions == [MakeBase()]


def test_adopt_that_was_sent_and_not_confirmed_spends_the_epoch():
    state, actions = told(
        [AdoptFailed(spent=True, why="EOF")], Ownership(Phase.ADOPTING, epoch=2, adopt_tries=1)
    )
    assert actions == [Grant()]
    state, actions = told([Granted(3, True)], state)
    assert actions == [Adopt()], "the driver is asked once more, under the next epoch"
    state, actions = told([AdoptFailed(spent=True, why="EOF"), Granted(4, True)], state)
    assert actions == [Grant(), MakeBase()], "then it is replaced"


def test_activate_that_was_not_confirmed_spends_the_epoch():
    _, actions = told([StartFailed(True, False, "EOF")], Ownership(Phase.STARTING, epoch=2))
    assert actions == [Grant()]


def test_drivers_that_keep_failing_make_the_server_give_the_context_back():
    state = Ownership(Phase.STARTING, epoch=2)
    for _ in range(START_TRIES - 1):
        state, _ = told([StartFailed(False, False, "no memory")], state)
        assert state.phase is Phase.STARTING
    state, actions = told([StartFailed(False, False, "no memory")], state)
    assert (state.phase, actions[:2]) == (Phase.WAITING, [StepDown(), Release()])


def test_settings_no_driver_can_start_with_end_the_context():
    state, actions = told([StartFailed(False, True, "bad")], Ownership(Phase.STARTING, epoch=1))
    assert actions == [EndContext("bad"), StepDown(), Release()]
    assert state.phase is Phase.WATCHING


def test_a_vanishing_that_was_not_witnessed_asks_the_recorded_owner_first():
    state, actions = told([OwnerVanished(False, 0.0)])
    assert actions == [AskIncumbent()]
    assert told([IncumbentAnswered()], state) == (Ownership(), [])
    assert told([IncumbentSilent()], state)[1] == [Elect(None)]


def test_proof_of_death_names_the_node_that_the_election_replaces():
    _, actions = told([OwnerDead(DEAD, 0.3), WaitOver()])
    assert actions == [Wait(0.3), Elect(DEAD)]


def test_a_death_that_is_proven_twice_puts_nobodys_turn_off():
    _, actions = told([OwnerDead(DEAD, 0.3), OwnerDead(DEAD, 0.3), WaitOver()])
    assert actions == [Wait(0.3), Elect(DEAD)]


def test_a_better_ranked_standby_that_is_quicker_ends_the_wait():
    state, actions = told([OwnerVanished(True, 0.3), OwnerSeen("s2"), WaitOver()])
    assert (state, actions) == (Ownership(), [Wait(0.3)])


def test_a_lost_session_makes_the_owner_elect_itself_again_and_restore_nothing():
    state, actions = told([OwnerVanished(True, 0.0), ElectionWon()], Ownership(Phase.OWNING, epoch=5))
    assert actions == [Elect(None)]
    assert state == Ownership(Phase.OWNING, epoch=5)


def test_an_owner_goes_on_while_zookeeper_is_silent():
    state, actions = told(
        [OwnerVanished(True, 0.0), CoordinationSilent("no answer"), WaitOver()],
        Ownership(Phase.OWNING, epoch=5),
    )
    assert state == Ownership(Phase.RECLAIMING, epoch=5)
    assert not any(isinstance(action, StepDown | CloseGate) for action in actions)


def test_an_election_without_outcome_says_why():
    for event in (CoordinationSilent("no answer"), WorkFailed("the disk is full")):
        assert event.why in step(Ownership(Phase.ELECTING), event).because
        assert event.why in step(Ownership(Phase.RECLAIMING, epoch=5), event).because


@pytest.mark.parametrize("adopt", [True, False])
def test_a_hand_over_without_an_election_leaves_the_context_to_its_living_owner(adopt):
    silent = CoordinationSilent("no answer")
    state, actions = told([TakeOverAsked(DEAD, adopt), silent, WaitOver()])
    assert (state, actions) == (Ownership(), [Elect(DEAD)]), "its running jobs would die with its driver"
    _, late = told([TakeOverAsked(DEAD, adopt), silent, ElectionWon(), Granted(3, True)])
    assert late[-1] == Adopt(), "won after all: nothing is restored"


def test_an_owner_that_dies_after_its_hand_over_came_to_nothing_is_replaced():
    silent = CoordinationSilent("no answer")
    _, actions = told(
        [TakeOverAsked(DEAD, False), silent, OwnerDead(DEAD, 0.0), WaitOver(), silent, WaitOver()]
    )
    assert actions.count(Elect(DEAD)) == 3


@pytest.mark.parametrize("phase", [Phase.OWNING, Phase.RECLAIMING, Phase.PLANNING, Phase.STARTING])
def test_whoever_meets_a_higher_epoch_steps_down(phase):
    state, actions = told([Superseded("epoch 9")], Ownership(phase, epoch=5))
    assert state.phase is Phase.WATCHING
    assert actions[0] == StepDown()


def test_a_refused_grant_gives_the_node_back():
    _, actions = told([GrantRefused()], Ownership(Phase.GRANTING))
    assert actions == [StepDown(), Release()]


def test_an_election_won_late_is_not_forgotten():
    for phase in (Phase.WATCHING, Phase.WAITING, Phase.ASKING):
        assert told([ElectionWon()], Ownership(phase))[1] == [Grant()]


def test_events_that_are_not_in_the_table_change_nothing():
    for phase in Phase:
        for event in EVENTS:
            if (phase, type(event)) not in TABLE:
                state = Ownership(phase, epoch=3)
                decision = step(state, event)
                assert decision.state is state
                assert decision.actions == ()


@given(st.lists(st.sampled_from(EVENTS), max_size=40))
def test_no_order_of_events_opens_the_gate_without_a_grant_and_a_confirmed_driver(events):
    state = Ownership()
    granted = confirmed = False
    for event in events:
        decision = step(state, event)
        actions = decision.actions
        if any(isinstance(action, Grant | StepDown | CloseGate) for action in actions):
            granted = confirmed = False
        if state.phase is Phase.GRANTING and isinstance(event, Granted):
            granted = True
        if state.phase in (Phase.ADOPTING, Phase.STARTING) and isinstance(event, Adopted | DriverReady):
            confirmed = decision.state.phase is Phase.PLANNING
        if any(isinstance(action, OpenGate) for action in actions):
            assert granted
            assert confirmed
        state = decision.state


@given(st.lists(st.sampled_from(EVENTS), max_size=40))
def test_every_decision_says_why_and_asks_for_at_most_one_lasting_work(events):
    lasting = (Wait, AskIncumbent, Elect, Grant, Adopt, MakeBase, StartDriver, PlanJobs)
    state = Ownership()
    for event in events:
        decision = step(state, event)
        assert decision.because
        assert sum(isinstance(action, lasting) for action in decision.actions) <= 1
        state = decision.state


def test_a_planned_move_quiesces_hands_over_and_ends_the_driver_only_when_the_other_has_the_node():
    owning = Ownership(Phase.OWNING, epoch=2)
    state, actions = told([MoveAsked("s2", 30.0, keep_driver=False), Quiet("s2"), OwnerSeen("s2")], owning)
    assert actions == [Quiesce("s2", 30.0), HandOver("s2", adopt=False), EndDriver(), StepDown()]
    assert state == Ownership()


def test_a_planned_move_that_keeps_the_driver_hands_over_at_once_and_never_ends_it():
    owning = Ownership(Phase.OWNING, epoch=2)
    _, actions = told([MoveAsked("s2", 30.0, keep_driver=True), OwnerSeen("s2")], owning)
    assert actions == [HandOver("s2", adopt=True), StepDown()]


def test_a_planned_move_that_fails_at_any_step_goes_on_here_under_the_same_epoch():
    owning = Ownership(Phase.OWNING, epoch=2)
    for before in ([MoveAsked("s2", 1.0, False)], [MoveAsked("s2", 1.0, False), Quiet("s2")]):
        for failure in (MoveFailed("refused"), WorkFailed("a bug")):
            state, actions = told([*before, failure], owning)
            assert actions[-1] == Resume()
            assert state == owning


def test_a_driver_that_dies_in_the_middle_of_a_move_is_replaced_here():
    state, actions = told([MoveAsked("s2", 1.0, False), DriverLost("EOF")], Ownership(Phase.OWNING, epoch=2))
    assert actions[-2:] == [CloseGate(), Grant()]
    assert (state.phase, state.adopt) == (Phase.GRANTING, False)


def test_a_server_that_is_handed_a_context_replaces_the_node_and_adopts_only_if_it_was_told_to():
    _, adopting = told([TakeOverAsked(DEAD, adopt=True), ElectionWon(), Granted(3, True)])
    assert adopting == [Elect(DEAD), Grant(), Adopt()]
    _, restoring = told([TakeOverAsked(DEAD, adopt=False), ElectionWon(), Granted(3, True)])
    assert restoring == [Elect(DEAD), Grant(), MakeBase()]


def test_a_context_handed_over_in_vain_is_watched_on_and_may_be_adopted_later():
    state, _ = told([TakeOverAsked(DEAD, adopt=False), ElectionLost()])
    assert state == Ownership()
