"""Jobs that harm the process they run in: others go on, if need be on another driver."""

from __future__ import annotations

import json
from typing import Any

import pytest
from live_cluster import Live

from test_bad_jobs.answers import error_of


@pytest.mark.parametrize(
    ("main", "result"),
    [
        ("rubbish", "printed"),
        ("deep_recursion", 200_000),
        ("change_settings", "79"),
        ("other_processes", [1, 2]),
        ("many_threads", 300),
        ("thread_raises", "fine"),
    ],
)
def test_a_job_that_behaves_oddly_harms_nobody(
    live: Live, code: str, place: str, unharmed: None, main: str, result: Any
) -> None:
    assert live.value(code, f"bad:{main}", place) == result


def test_others_can_print_after_a_job_closed_the_output(
    live: Live, code: str, place: str, unharmed: None
) -> None:
    assert live.value(code, "bad:close_output", place) == "closed"
    assert live.value(code, "bad:prints", place) == "printed"


def test_the_child_of_a_job_that_forks_neither_answers_nor_stays_nor_cuts_others_off(
    live: Live, code: str, place: str, unharmed: None, survives: None
) -> None:
    assert live.value(code, "bad:fork", place) == "parent"
    assert (
        live.eventually(lambda: live.value(code, "bad:is_alive", place), lambda alive: not alive, 10) is False
    )


@pytest.mark.parametrize("what", ["session", "context", "active"])
def test_a_stop_of_spark_by_a_job_is_ignored(
    live: Live, code: str, place: str, unharmed: None, what: str
) -> None:
    assert live.value(code, "bad:stop_spark", place, {"what": what}) == 3


@pytest.mark.parametrize(
    ("main", "config"),
    [
        ("die", {}),
        ("die_by_signal", {"signal": 15}),
        ("die_by_signal", {"signal": 11}),
        ("stop_spark", {"what": "java"}),
        ("stop_spark", {"what": "gateway"}),
        ("stop_spark", {"what": "jvm"}),
    ],
    ids=["exit", "SIGTERM", "SIGSEGV", "java-stop", "gateway", "jvm-exit"],
)
def test_a_job_that_ends_its_driver_fails_and_the_context_comes_back(
    live: Live, code: str, place: str, survives: None, main: str, config: dict[str, Any]
) -> None:
    begun = live.running(place)
    error = error_of(live.submit(code, f"bad:{main}", place, config, maxAttempts=1, timeout=90))
    assert error["message"]
    assert live.running(place)["epoch"] > begun["epoch"]


def test_memory_that_a_job_eats_is_given_back_or_refused(
    live: Live, code: str, place: str, unharmed: None
) -> None:
    assert live.value(code, "bad:eat", place, {"bytes": 300_000_000}) == 300_000_000
    assert "MemoryError" in error_of(live.submit(code, "bad:eat", place, {"bytes": 10**15}))["errorClass"]


def test_memory_that_a_job_eats_in_the_jvm_ends_the_job_at_most_the_driver(
    live: Live, code: str, place: str, survives: None
) -> None:
    error = error_of(live.submit(code, "bad:eat_in_jvm", place, maxAttempts=1, timeout=90))
    assert json.dumps(error)


def test_a_job_that_kills_every_driver_is_given_up_and_spares_the_others(
    live: Live, code: str, place: str, survives: None
) -> None:
    error = error_of(live.submit(code, "bad:die", place, timeout=200))
    assert "died in each of the 3 attempts" in error["message"]
