"""Attempts, binding and lifetime: the driver's rules."""

import pytest

from jobserver.driver import binding
from jobserver.driver.attempts import AttemptRefused, Attempts
from jobserver.driver.binding import Binding, BindingRefused, ContextRef, Role
from jobserver.driver.lifetime import Lifetime
from jobserver.model import AttemptOutcome, AttemptRef, OutcomeKind
from jobserver.protocol import Refused

ONE, OTHER = ContextRef("c1", "one", {}), ContextRef("c2", "other", {})
ACTIVE = Binding(Role.ACTIVE, ONE, 5, "t5")


def outcome(job="j", attempt=1, kind=OutcomeKind.FINISHED):
    return AttemptOutcome(job, attempt, kind, result="1")


def test_an_outcome_is_listed_until_it_is_acknowledged():
    attempts = Attempts()
    attempts.begin(AttemptRef("j", 1))
    assert attempts.listing() == [{"job_id": "j", "attempt": 1, "outcome": None}]
    assert attempts.end(outcome())
    assert attempts.listing()[0]["outcome"]["result"] == "1"
    assert attempts.ack(AttemptRef("j", 1))
    assert not attempts.ack(AttemptRef("j", 1))
    assert attempts.listing() == []


@pytest.mark.parametrize(("again", "code"), [(2, Refused.DUPLICATE), (1, Refused.STALE_ATTEMPT)])
def test_an_attempt_begins_once_and_never_after_a_later_one_even_when_acknowledged(again, code):
    attempts = Attempts()
    attempts.begin(AttemptRef("j", 2))
    attempts.end(outcome(attempt=2))
    attempts.ack(AttemptRef("j", 2))
    with pytest.raises(AttemptRefused) as refused:
        attempts.begin(AttemptRef("j", again))
    assert refused.value.code is code
    assert attempts.listing() == []


def test_the_first_of_two_outcomes_of_an_attempt_counts():
    attempts = Attempts()
    attempts.begin(AttemptRef("j", 1))
    assert attempts.end(outcome(kind=OutcomeKind.KILLED))
    assert not attempts.end(outcome())
    assert attempts.listing()[0]["outcome"]["kind"] == "killed"


def test_a_driver_is_bound_then_activated_then_adopted():
    standby = binding.bind(Binding(), ONE)
    assert (standby.role, standby.context) == (Role.STANDBY, ONE)
    active = binding.activate(standby, ONE, 4, "t4")
    assert active == Binding(Role.ACTIVE, ONE, 4, "t4")
    assert binding.adopt(active, 5, "t5", "n", "n") == ACTIVE
    assert binding.activate(Binding(), ONE, 1, "t").role is Role.ACTIVE


@pytest.mark.parametrize(
    ("move", "code"),
    [
        (lambda: binding.bind(ACTIVE, ONE), Refused.BOUND),
        (lambda: binding.bind(binding.bind(Binding(), ONE), OTHER), Refused.BOUND),
        (lambda: binding.activate(ACTIVE, ONE, 6, "t"), Refused.BOUND),
        (lambda: binding.activate(binding.bind(Binding(), ONE), OTHER, 6, "t"), Refused.BOUND),
        (lambda: binding.activate(Binding(), ONE, 0, "t"), Refused.STALE_EPOCH),
        (lambda: binding.adopt(Binding(), 6, "t", "n", "n"), Refused.UNBOUND),
        (lambda: binding.adopt(binding.bind(Binding(), ONE), 6, "t", "n", "n"), Refused.UNBOUND),
        (lambda: binding.adopt(ACTIVE, 5, "t", "n", "n"), Refused.STALE_EPOCH),
        (lambda: binding.adopt(ACTIVE, 6, "t", "old", "n"), Refused.STALE_NONCE),
        (lambda: binding.adopt(ACTIVE, 6, "t", "", ""), Refused.STALE_NONCE),
    ],
)
def test_every_other_move_is_refused_with_its_code(move, code):
    with pytest.raises(BindingRefused) as refused:
        move()
    assert refused.value.code is code


def watched(lifetime, *, until, active, connected=False, step=0.5, since=0.0):
    """The first time at which the driver would end, or None."""
    now = since
    while now < until:
        now += step
        if lifetime.reason_to_end(now, active, connected):
            return now
    return None


def test_a_driver_that_its_owner_left_ends_after_the_orphan_timeout():
    assert watched(Lifetime(60, 5, 0, 0), until=100, active=True) == 60.5


def test_an_unbound_driver_ends_soon_after_its_server_left_and_never_before():
    lifetime = Lifetime(60, 5, 0, 0)
    assert watched(lifetime, until=50, active=False, connected=True) is None
    assert watched(lifetime, until=100, active=False, since=50) == 55.5


def test_silence_proves_nothing_right_after_the_driver_itself_was_frozen():
    lifetime = Lifetime(60, 5, 0, 0)
    assert lifetime.reason_to_end(1000, True, True) is None
    lifetime.heard(1001)
    assert watched(lifetime, until=1050, active=True, since=1001) is None


def test_a_driver_whose_owner_stays_away_after_a_freeze_still_ends():
    lifetime = Lifetime(60, 5, 0, 0)
    assert lifetime.reason_to_end(1000, True, True) is None
    assert watched(lifetime, until=1100, active=True, since=1000) == 1005.0


def test_an_owner_counts_as_present_for_three_seconds():
    lifetime = Lifetime(60, 5, 10, 10)
    assert lifetime.owner_present(13)
    assert not lifetime.owner_present(13.1)
