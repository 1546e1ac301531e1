"""The pure parts of the REST API: routes, dates, parameters, submissions and how outcomes become answers."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobserver.api.dates import duration, instant, job_time
from jobserver.api.envelopes import Answer
from jobserver.api.job_answers import killed, submitted
from jobserver.api.limits import ApiLimits
from jobserver.api.names import check_binary_name, check_context_name
from jobserver.api.parameters import flag, integer
from jobserver.api.rejections import Rejected
from jobserver.api.routes import Route, Target, effective_method, target
from jobserver.api.submissions import Asker, Waiting, request_digest, submission
from jobserver.errors import BadRequest, JobServerError
from jobserver.model import ErrorInfo, JobRecord, JobSpec, JobState, OutcomeKind
from jobserver.service import Submitted

AT = datetime(2013, 5, 29, 1, 2, 3, 4_999, tzinfo=UTC)
ERROR = ErrorInfo("broke", "a.B", "s\n\tt")
JOB = JobRecord("j", "cid", "ctx", JobSpec("m.C", ()), JobState.RUNNING, AT, started_at=AT)
SHOWN = {"message": "broke", "errorClass": "a.B", "stack": "s\n\tt"}
STARTED = {
    "jobId": "j",
    "startTime": "2013-05-29T01:02:03.004Z",
    "classPath": "m.C",
    "context": "ctx",
    "contextId": "cid",
    "duration": "Job not done yet",
    "status": "STARTED",
}
VALID = {
    "status": "VALIDATION FAILED",
    "result": {
        "message": "One(SparkJobInvalid(broke))",
        "errorClass": "java.lang.Throwable",
        "stack": "",
    },
}
FAILED = replace(JOB, state=JobState.ERROR, error=ERROR, ended_at=AT)
FINISHED = replace(JOB, state=JobState.FINISHED, result="[1,  2.50]", ended_at=AT)


def parsed(answer: Answer) -> tuple[int, object]:
    return answer.status, json.loads(answer.body)


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        (OutcomeKind.INVALID, 400, VALID),
        (OutcomeKind.NOT_FOUND, 404, {"status": "ERROR", "result": "classPath m.C not found"}),
        (OutcomeKind.WRONG_TYPE, 400, {"status": "ERROR", "result": "Invalid job type for this context"}),
        (OutcomeKind.LOADING_FAILED, 400, {"status": "JOB LOADING FAILED", "result": SHOWN}),
        (OutcomeKind.FAILED, 200, {"jobId": "j", "status": "ERROR", "result": SHOWN}),
    ],
)
def test_a_job_that_ended_early_is_answered_alike_in_both_modes(
    kind: OutcomeKind, status: int, body: object, sync: bool
) -> None:
    assert parsed(submitted(Submitted(FAILED, kind.value), sync=sync, zone=UTC)) == (status, body)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.RESTARTING, JobState.FINISHED])
def test_an_accepted_async_job_is_started_whatever_became_of_it_meanwhile(state: JobState) -> None:
    job = replace(JOB, state=state, ended_at=AT if state.final else None)
    answer = submitted(Submitted(job), sync=False, zone=UTC)
    assert (answer.status, answer.body) == (202, json.dumps(STARTED, separators=(",", ":")).encode())


def test_a_sync_result_is_passed_on_byte_for_byte() -> None:
    assert submitted(Submitted(FINISHED), sync=True).body == b'{"jobId":"j","result":[1,  2.50]}'
    gone = replace(FINISHED, result=None)
    assert submitted(Submitted(gone), sync=True).body == b'{"jobId":"j"}'


def test_a_sync_job_killed_by_somebody_else_says_so() -> None:
    job = replace(FAILED, state=JobState.KILLED)
    answer = parsed(submitted(Submitted(job, OutcomeKind.KILLED.value), sync=True))
    assert answer == (200, {"jobId": "j", "status": "KILLED", "result": SHOWN})


def test_a_sync_wait_that_ended_too_early_is_a_timeout_with_the_job_s_id() -> None:
    status, body = parsed(submitted(Submitted(JOB), sync=True))
    assert status == 500
    assert isinstance(body, dict)
    assert body["jobId"] == "j"


@pytest.mark.parametrize(
    ("job", "status", "body"),
    [
        (replace(JOB, state=JobState.KILLED), 200, {"status": "KILLED"}),
        (JOB, 200, {"status": "KILLED"}),
        (FAILED, 200, {"status": "ERROR", "ERROR": SHOWN}),
        (FINISHED, 404, {"status": "ERROR", "result": "No running job with ID j"}),
    ],
)
def test_a_kill_is_answered_by_the_state_it_met(job: JobRecord, status: int, body: object) -> None:
    assert parsed(killed(job)) == (status, body)


# dates


def test_job_times_are_in_the_zone_of_the_server_and_others_in_utc() -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    assert job_time(AT, UTC) == "2013-05-29T01:02:03.004Z"
    assert job_time(AT, india) == "2013-05-29T06:32:03.004+05:30"
    assert instant(AT.astimezone(india)) == "2013-05-29T01:02:03.004Z"


@given(st.integers(0, 7_000_000_000_000_000).map(lambda micros: AT + timedelta(microseconds=micros)))
def test_an_instant_always_has_three_digits_and_z(moment: datetime) -> None:
    text = instant(moment)
    assert len(text) == 24
    assert timedelta() <= moment - datetime.fromisoformat(text) < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (None, "Job not done yet"),
        (timedelta(milliseconds=6341), "6.341 secs"),
        (timedelta(minutes=5), "300.0 secs"),
        (timedelta(), "0.0 secs"),
        (timedelta(seconds=-3), "0.0 secs"),
    ],
)
def test_a_duration_is_in_seconds_with_a_fraction(after: timedelta | None, text: str) -> None:
    assert duration(AT, None if after is None else AT + after) == text


# routes and parameters


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/jobs", Target(Route.LIST_JOBS)),
        ("GET", "/jobs/", Target(Route.LIST_JOBS)),
        ("GET", "/jobs/a%20b/config/", Target(Route.GET_JOB_CONFIG, "a b")),
        ("POST", "/jars/x", Target(Route.POST_JAR, "x")),
        ("GET", "/contexts/c/objects", Target(Route.LIST_OBJECTS, "c")),
        ("GET", "/contexts/c/objects/a%2Fb/", Target(Route.GET_OBJECT, "c", "a/b")),
        ("POST", "/contexts/c/objects/o", Target(Route.POST_OBJECT, "c", "o")),
        ("DELETE", "/contexts/c/objects/objects", Target(Route.DELETE_OBJECT, "c", "objects")),
        ("DELETE", "/contexts/a%2Fb", Target(Route.DELETE_CONTEXT, "a/b")),
    ],
)
def test_a_path_leads_to_one_route(method: str, path: str, expected: Target) -> None:
    assert target(method, path) == expected


@given(st.text(max_size=6), st.text(st.sampled_from("/jobscntexi%2F."), max_size=20))
def test_every_path_is_routed_or_refused(method: str, path: str) -> None:
    refused = 0
    try:
        target(effective_method("GET", method), path)
    except JobServerError as error:
        refused = error.http_status
    assert refused in (0, 400, 404, 405, 501)


@pytest.mark.parametrize("text", ["true", "YES", "On", "1"])
def test_four_words_mean_true_and_four_false(text: str) -> None:
    assert flag({"sync": text}, "sync", default=False) is True
    opposite = {"true": "FALSE", "yes": "no", "on": "Off", "1": "0"}[text.lower()]
    assert flag({"sync": opposite}, "sync", default=True) is False


@pytest.mark.parametrize(
    "text", ["abc", "1.0", "1e3", " 1", "0x1", "١", "2147483648", "-2147483649", "9" * 5000, "1_0"]
)
def test_only_32_bit_decimal_numbers_are_numbers(text: str) -> None:
    with pytest.raises(Rejected):
        integer({"n": text}, "n")


@pytest.mark.parametrize(
    ("text", "value"), [("", None), ("2147483647", 2147483647), ("-2147483648", -(2**31)), ("+7", 7)]
)
def test_an_empty_number_counts_as_absent(text: str, value: int | None) -> None:
    assert integer({"n": text}, "n") == value


# names and submissions


@pytest.mark.parametrize("name", ["a", "demo-1.0_é日本", "x" * 255, "a b", "..."])
def test_sane_names_pass(name: str) -> None:
    assert check_binary_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "a/b", "a\\b", "a\0", "a\n", "a\x7f", "a\u2028", "x" * 256, "a\ud800"]
)
def test_names_that_break_paths_logs_or_columns_are_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        check_binary_name(name)


@pytest.mark.parametrize("name", ["é1", "日本", "aB"])
def test_a_context_name_may_start_with_any_letter(name: str) -> None:
    assert check_context_name(name) == name


def ask(query: dict[str, str], config: dict[str, object]) -> tuple[str, tuple[str, ...]]:
    made = submission(query, config, Waiting(False, 1.0), Asker("anonymous"), ApiLimits())
    return made.main_class, made.binaries


@pytest.mark.parametrize(
    ("query", "config", "expected"),
    [
        ({"appName": "a", "classPath": "M"}, {}, ("M", ("a",))),
        ({"appName": "a", "classPath": "M", "cp": "b", "mainClass": "N"}, {}, ("M", ("a",))),
        ({"appName": "a", "classPath": "M"}, {"dependent-jar-uris": ["d", "e"]}, ("M", ("d", "e", "a"))),
        ({"appName": "a", "classPath": "M"}, {"dependent-jar-uris": "d, e"}, ("M", ("d", "e", "a"))),
        ({"cp": "a, b,,", "mainClass": "M"}, {"dependent-jar-uris": "d"}, ("M", ("a", "b"))),
        ({}, {"cp": "a,b", "mainClass": "M"}, ("M", ("a", "b"))),
        ({"mainClass": "N"}, {"cp": ["a"], "mainClass": "M"}, ("N", ("a",))),
        ({"cp": "q", "appName": ""}, {"cp": ["a"], "mainClass": "M"}, ("M", ("q",))),
    ],
)
def test_code_is_chosen_by_the_rules_of_the_contract(
    query: dict[str, str], config: dict[str, object], expected: tuple[str, tuple[str, ...]]
) -> None:
    assert ask(query, config) == expected


@pytest.mark.parametrize(
    ("uri", "taken"),
    [
        ("http://h/a.jar", True),
        ("FTP://h/a", True),
        ("file:///a.jar", True),
        ("local:/a.jar", True),
        ("hdfs://h/a", False),
        ("s3a:x", False),
        ("http://h/" + "a" * 300, False),
    ],
)
def test_an_address_on_the_class_path_is_taken_when_somebody_could_read_it(uri: str, taken: bool) -> None:
    if taken:
        assert ask({"cp": f"a,{uri}", "mainClass": "M"}, {}) == ("M", ("a", uri))
        return
    with pytest.raises(BadRequest):
        ask({"cp": f"a,{uri}", "mainClass": "M"}, {})


@given(
    st.lists(
        st.tuples(st.text(max_size=3), st.text(max_size=3), st.binary(max_size=3)),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_two_different_requests_never_have_one_digest(requests: list[tuple[str, str, bytes]]) -> None:
    digests = {request_digest("POST", path, query, body) for path, query, body in requests}
    assert len(digests) == 2
