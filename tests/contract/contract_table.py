# ruff: noqa: E501  (a row is a line)
"""The tables of the REST contract as data: one row for each outcome that a request can bring about, in its words.

`{name}` in a path, body or answer is something that `Situation` has ready. In an answer's JSON `ANY` stands for whatever
value, and a compiled pattern for texts that it matches. What is said by section numbers is rest_contract's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

ANY: Final = object()
TEXT = "text/plain; charset=UTF-8"
JSON = "application/json"
WHEEL = {"Content-Type": "application/python-wheel"}
PYTHON = {"Content-Type": "text/x-python"}
ZIP = b"PK\x03\x04 and more"
OK = {"status": "SUCCESS"}
NOT_FOUND = "The requested resource could not be found."
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d)")
SECONDS = re.compile(r"\d+\.\d+ secs")
EXCEPTION = {"message": ANY, "errorClass": ANY, "stack": ANY}


def ok(message: str) -> dict[str, Any]:
    return {"status": "SUCCESS", "result": message}


def err(message: Any) -> dict[str, Any]:
    return {"status": "ERROR", "result": message}


def exc(title: str, message: Any = ANY, kind: Any = ANY) -> dict[str, Any]:
    return {"status": title, "result": {"message": message, "errorClass": kind, "stack": ANY}}


@dataclass(frozen=True)
class Row:
    """One outcome. `answer`: a text, or a JSON value; keys that `ours` names may come after those of the contract."""

    section: str
    case: str
    request: str
    status: int
    answer: Any = ANY
    body: bytes | str = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: Mapping[str, str] = field(default_factory=dict)
    ours: bool = False

    def __str__(self) -> str:
        return f"{self.section} {self.case}"


JOB = "/jobs?cp={binary}&context={context}&mainClass=contract_jobs."
REPORT = {
    "startTime": TIME,
    "classPath": ANY,
    "context": "{context}",
    "contextId": ANY,
    "duration": SECONDS,
}
CONTEXT = {"id": ANY, "name": "{context}", "startTime": INSTANT, "endTime": "Empty", "state": "RUNNING"}
COUNT = '{"input": {"string": "a b a"}}'
FAILED = {"jobId": ANY, "status": "ERROR", "result": EXCEPTION}
MALFORMED = "The query parameter '%s' was malformed:\n'%s' is not a valid %s"

ROWS = (
    # 1.5 and 1.6: answers of the framework, and the method in the query
    Row("1.5", "no route", "GET /nothing", 404, NOT_FOUND, sent={"Content-Type": TEXT}),
    Row(
        "1.5", "wrong method", "PUT /binaries/x", 405,
        "HTTP method not allowed, supported methods: GET, POST, DELETE", sent={"Allow": "GET, POST, DELETE"},
    ),
    Row("1.5", "bad number", "GET /jobs?limit=abc", 400, MALFORMED % ("limit", "abc", "32-bit signed integer value")),
    Row("1.5", "bad boolean", "POST /jobs?sync=maybe", 400, MALFORMED % ("sync", "maybe", "Boolean value")),
    Row("1.5", "parameter missing", "PUT /contexts", 404, "Request is missing required query parameter 'reset'"),
    Row(
        "1.5", "unknown verb", "GET /jobs?_method=fly", 501,
        re.compile(r"The server either does not recognize the request method, .*"),
    ),
    Row("1.4", "empty number", "GET /jobs?limit=", 200),
    Row("1.4", "unknown parameter", "GET /jobs?limit=0&whatever=1", 200, []),
    Row("1.4", "another word for true", f"POST {JOB}Nothing&sync=ON&timeout=60", 200, {"jobId": ANY, "result": None}),
    Row("1.5", "empty required parameter", "PUT /contexts?reset=", 400, err(re.compile("reset must be reboot, .*"))),
    Row("1.6", "method in the query", "POST /binaries/{binary}?_method=delete", 200, OK),
    Row("1.8", "trailing slash", "GET /contexts/", 200),
    Row(
        "1.8", "another origin", "GET /contexts", 200, headers={"Origin": "http://elsewhere"},
        sent={"Access-Control-Allow-Origin": "http://elsewhere", "Access-Control-Allow-Credentials": "true"},
    ),
    Row(
        "1.8", "preflight", "OPTIONS /jobs", 200, headers={"Origin": "http://elsewhere", "Access-Control-Request-Method": "POST"},
        sent={"Access-Control-Allow-Methods": "GET, POST, HEAD, OPTIONS"},
    ),
    # 3: binaries
    Row("3", "stored", "POST /binaries/{new}", 201, OK, ZIP, WHEEL),
    Row("3", "egg, old type", "POST /binaries/{new}", 201, OK, ZIP, {"Content-Type": "application/python-archive"}),
    Row("3", "type with parameters", "POST /binaries/{new}", 201, OK, ZIP, {"Content-Type": "application/java-archive;a=b"}),
    Row("3", "no zip", "POST /binaries/{new}", 400, err("Binary is not of the right format"), b"no zip", WHEEL),
    Row("3", "four bytes", "POST /binaries/{new}", 400, err("Binary is not of the right format"), b"PK\x03\x04", WHEEL),
    Row(
        "3", "other type", "POST /binaries/{new}", 415, err("Unsupported binary type text/html"), ZIP,
        {"Content-Type": "text/html"},
    ),
    Row("3", "listed", "GET /binaries", 200, re.compile(r'.*"{binary}":."binary-type":"Python","upload-time":"[^"]*".*')),
    Row("3", "no name", "POST /binaries", 404, NOT_FOUND, ZIP, WHEEL),
    Row("3", "shown", "GET /binaries/{binary}", 200, {"app-name": "{binary}", "binary-type": "Python", "upload-time": INSTANT}),
    Row("3", "unknown", "GET /binaries/{new}", 404, err("Can't find binary with name {new}")),
    Row("3", "deleted", "DELETE /binaries/{binary}", 200, OK),
    Row("3", "delete unknown", "DELETE /binaries/{new}", 404, err("can't find binary with name {new}")),
    Row("3", "in use", "DELETE /binaries/{binary_of_running}", 403, err(re.compile(r"Binary is in use by job\(s\): .*{running}.*"))),
    Row("talk", "jars", "POST /jars/{new}", 200, "OK", ZIP, {"Content-Type": "application/x-www-form-urlencoded"}),
    # 4: contexts
    Row("4.1", "listed", "GET /contexts", 200, re.compile(r'\[.*"{context}".*\]')),
    Row("4.2", "running", "GET /contexts/{context}", 200, CONTEXT, ours=True),
    Row("4.2", "ended", "GET /contexts/{ended}", 200, {**CONTEXT, "name": "{ended}", "endTime": INSTANT, "state": "FINISHED"}, ours=True),
    Row("4.2", "unknown", "GET /contexts/{new}", 404, err("can't find context with name {new}")),
    Row("4.3", "name", "POST /contexts/1x", 400, err("context name must start with letters")),
    Row("4.3", "exists", "POST /contexts/{context}", 400, err("context {context} exists")),
    Row("4.3", "malformed URL", "POST /contexts/{new}?dependent-jar-uris=s3n:x", 400, exc("CONTEXT INIT ERROR: Malformed URL")),
    Row(
        "4.4", "driver memory", "POST /contexts/{new}?launcher.spark.driver.memory=2GB", 500,
        exc("CONTEXT INIT ERROR", re.compile(r"Context error: spark.driver.memory has invalid value\..*512m")),
    ),
    Row("12", "body that cannot be read", "POST /contexts/{new}", 400, err(re.compile("Cannot parse config: .*")), "a = ${"),
    Row("4.5", "unknown", "DELETE /contexts/{new}", 404, err("context {new} not found")),
    Row("4.5", "ended", "DELETE /contexts/{ended}", 404, err("context {ended} not found")),
    Row("4.6", "other reset value", "PUT /contexts?reset=x", 400, err("reset must be reboot, not 'x'")),
    Row("4.5", "bad flag", "DELETE /contexts/{context}?force=perhaps", 400, MALFORMED % ("force", "perhaps", "Boolean value")),
    # 5.2 to 5.4: reading jobs
    Row("5.2", "empty list", "GET /jobs?limit=0", 200, []),
    Row("5.2", "unknown state", "GET /jobs?status=dreaming", 200, []),
    Row("5.2", "never stored", "GET /jobs?status=started", 200, []),
    Row("5.2", "by state", "GET /jobs?status=finished&limit=1&because={finished}", 200, re.compile(r'.."jobId":"{finished}".*"status":"FINISHED"..')),
    Row("5.3", "killed", "GET /jobs/{killed}", 200, {"jobId": "{killed}", **REPORT, "status": "KILLED", "result": EXCEPTION}, ours=True),
    Row("5.3", "finished", "GET /jobs/{finished}", 200, {"jobId": "{finished}", **REPORT, "status": "FINISHED", "result": {"a": 2, "b": 1}}, ours=True),
    Row("5.3", "failed", "GET /jobs/{failed}", 200, {"jobId": "{failed}", **REPORT, "status": "ERROR", "result": EXCEPTION}, ours=True),
    Row(
        "5.3", "running", "GET /jobs/{running}", 200,
        {"jobId": "{running}", **REPORT, "duration": "Job not done yet", "status": "RUNNING"}, ours=True,
    ),
    Row("5.3", "unknown", "GET /jobs/{new}", 404, err("No such job ID {new}")),
    Row("5.4", "config", "GET /jobs/{finished}/config", 200, {"input": {"string": "a b a"}}),
    Row("5.4", "unknown", "GET /jobs/{new}/config", 404, err("No such job ID {new}")),
    # 5.5: submitting
    Row("5.5", "sync", f"POST {JOB}WordCount&sync=true&timeout=60", 200, {"jobId": ANY, "result": {"a": 2, "b": 1}}, COUNT),
    Row(
        "5.5", "async", f"POST {JOB}WordCount&timeout=60", 202,
        {"jobId": ANY, **REPORT, "duration": "Job not done yet", "status": "STARTED"}, COUNT,
    ),
    Row("5.5", "HOCON", f"POST {JOB}WordCount&sync=true&timeout=60", 200, {"jobId": ANY, "result": {"a": 1}}, "input.string = a"),
    Row(
        "5.5", "legacy pair", "POST /jobs?appName={binary}&classPath=contract_jobs.WordCount&context={context}&sync=true&timeout=60",
        200, {"jobId": ANY, "result": {"a": 2, "b": 1}}, COUNT,
    ),
    Row(
        "5.5", "code in the body", "POST /jobs?context={context}&sync=true&timeout=60", 200, {"jobId": ANY, "result": {"a": 1}},
        '{"cp": ["{binary}"], "mainClass": "contract_jobs.WordCount", "input": {"string": "a"}}',
    ),
    Row("5.5", "returns None", f"POST {JOB}Nothing&sync=true&timeout=60", 200, {"jobId": ANY, "result": None}),
    Row("5.5", "raises", f"POST {JOB}Failing&sync=true&timeout=60", 200, FAILED),
    Row("5.5", "validate raises", f"POST {JOB}FailingValidate&timeout=60", 200, FAILED),
    Row("5.5", "body not parseable", f"POST {JOB}WordCount", 400, err(re.compile("Cannot parse config: .*")), "{"),
    Row("5.5", "unresolved substitution", f"POST {JOB}WordCount", 400, err(re.compile("Cannot parse config: .*")), "a = ${b}"),
    Row("5.5", "bad timeout", f"POST {JOB}WordCount&timeout=soon", 400, MALFORMED % ("timeout", "soon", "32-bit signed integer value")),
    Row("5.5", "root no object", f"POST {JOB}WordCount", 400, err(re.compile("Cannot parse config: .*")), "[1]"),
    Row("5.5", "no class (legacy)", "POST /jobs?appName=x", 400, err("Cannot parse config: classPath parameter is missing!")),
    Row("5.5", "no class", "POST /jobs?cp=x", 400, err("Cannot parse config: mainClass parameter is missing!")),
    Row(
        "5.5", "no code", "POST /jobs", 400,
        err(re.compile("Cannot parse config: To start the job appName or cp parameters should be configured!.*")),
    ),
    Row("5.5", "unknown binary", "POST /jobs?cp={new}&mainClass=m.C&context={context}", 404, err("appName {new} not found")),
    Row("5.5", "unknown context", "POST /jobs?cp={binary}&mainClass=contract_jobs.Nothing&context={new}", 404, err("context {new} not found")),
    Row("5.5", "ended context", "POST /jobs?cp={binary}&mainClass=contract_jobs.Nothing&context={ended}", 404, err("context {ended} not found")),
    Row("5.5", "unknown class", f"POST {JOB}Absent&timeout=60", 404, err("classPath contract_jobs.Absent not found")),
    Row("12", "unknown class, legacy pair", "POST /jobs?appName={binary}&classPath=contract_jobs.Absent&context={context}&timeout=60", 404, err("classPath contract_jobs.Absent not found")),
    Row(
        "5.5", "address of nothing", "POST /jobs?cp=file:///nothing/here.jar&mainClass=m.C&context={context}", 400,
        exc("JOB LOADING FAILED", re.compile(r"the code at file:///nothing/here.jar cannot be loaded: .*")),
    ),
    Row("5.5", "URI of no known kind", "POST /jobs?cp=hdfs://h/x.jar&mainClass=m.C&context={context}", 400, exc("JOB LOADING FAILED: Malformed URL")),
    Row(
        "5.5", "problems of validate", f"POST {JOB}WordCount&timeout=60", 400,
        exc("VALIDATION FAILED", "One(SparkJobInvalid(No input.string config param))", "java.lang.Throwable"),
    ),
    Row("12", "wait over: the id is told", f"POST {JOB}Sleeping&sync=true&timeout=1", 500, {**exc("ERROR", ANY, "akka.pattern.AskTimeoutException"), "jobId": ANY}),
    Row("5.5", "callback of another scheme", f"POST {JOB}Nothing&callbackUrl=ftp://h/x", 400, err("Callback Url has to be 'http'/'https'")),
    # 5.6: killing
    Row("5.6", "killed", "DELETE /jobs/{running}", 200, {"status": "KILLED"}),
    Row("5.6", "unknown", "DELETE /jobs/{new}", 404, err("No such job ID {new}")),
    Row("5.6", "finished", "DELETE /jobs/{finished}", 404, err("No running job with ID {finished}")),
    Row("5.6", "killed before", "DELETE /jobs/{killed}", 404, err("No running job with ID {killed}")),
    Row("5.6", "failed", "DELETE /jobs/{failed}", 200, {"status": "ERROR", "ERROR": EXCEPTION}),
    # 6: data files
    Row("6", "uploaded", "POST /data/{new}", 200, {"result": {"filename": re.compile(r".*/{new}-.*\.dat")}}, b"\0"),
    Row("6", "listed", "GET /data", 200, re.compile(r'\[.*"{data}".*\]')),
    Row("6", "deleted", "DELETE /data/{data_quoted}", 200, "OK", sent={"Content-Type": JSON}),
    Row("6", "unknown", "DELETE /data/{new}", 400, err("Unable to delete data file '{new}'.")),
    Row("12", "prefix that leaves the folder", "POST /data/..%2F{new}", 400, err(re.compile("the prefix of a data file must .*")), b"x"),
    Row("6", "reset without its parameter", "PUT /data", 404, "Request is missing required query parameter 'reset'"),
    Row("6", "other reset value", "PUT /data?reset=x", 400, err("reset must be reboot, not 'x'")),
    # 7: monitors and pages
    Row("7", "health", "GET /healthz", 200, OK, sent={"Content-Type": JSON}),
    Row("7", "metrics", "GET /metricz", 200, re.compile(r'(?s)\{.*"spark.jobserver.WebApi".*\}'), sent={"Content-Type": TEXT}),
    Row("7", "no page of the operator's", "GET /statusz", 404, NOT_FOUND),
    Row("7", "page", "GET /", 200, re.compile("(?s)<!doctype html>.*")),
    Row("7", "page's script", "GET /html/page.js", 200),
)  # fmt: skip

ELSEWHERE: Final[Mapping[str, str]] = {
    "1.5 body over the limit": "test_rest_behind.test_a_body_over_the_limit_is_a_413_announced_or_not",
    "1.5 no or wrong credentials, no permission": "test_rest_access.test_a_protected_route_asks_who_it_is_and_whether_he_may",
    "1.5 nobody's error": "test_rest_behind.test_an_error_nobody_foresaw_is_counted_and_shows_nothing",
    "2 permissions": "test_rest_access.test_the_routes_of_the_contract_need_what_its_table_says",
    "3 no content type": "test_rest_binaries.test_an_upload_without_content_type_is_refused",
    "3 uploaded again": "test_rest_binaries.test_uploading_again_under_a_name_replaces_it",
    "3 type before bytes": "test_rest_binaries.test_the_content_type_is_checked_before_the_bytes",
    "4.3 created, POST /contexts/{name}": "test_rest_contexts.test_a_context_is_created_listed_shown_and_deleted",
    "4.3 precedence": "test_rest_behind.test_context_settings_of_the_body_win_over_those_of_the_query",
    "4.3 other init failures": "test_rest_behind.test_a_driver_that_fails_is_titled_by_what_was_asked",
    "4.5 stopped, DELETE /contexts/{name}": "test_rest_contexts.test_a_context_is_created_listed_shown_and_deleted",
    "4.5 still stopping": "test_rest_behind.test_a_context_that_stops_slowly_is_a_202_with_an_address_and_no_body",
    "4.6 reset, PUT /contexts": "test_rest_behind.test_reset_waits_unless_told_not_to",
    "5.1 every state": "test_rest_behind.test_a_job_is_shown_to_the_byte_in_every_state",
    "5.1 ad-hoc context": "test_rest_jobs.test_a_job_without_context_runs_in_one_of_its_own",
    "5.2 order": "test_rest_jobs.test_the_list_of_jobs_is_newest_first_and_has_no_results",
    "5.3 stored result gone": "test_rest_behind.test_a_job_whose_stored_result_was_removed_is_shown_without_it",
    "5.5 context stopping": "test_rest_behind.test_every_error_of_the_tree_has_its_answer",
    "5.5 all slots taken": "test_rest_behind.test_a_full_context_is_a_503_with_the_contract_s_title",
    "4.1 only the caller's": "test_rest_proxy_users.test_two_callers_use_one_name_for_contexts_of_their_own",
    "4.4 proxy user": "test_rest_proxy_users.test_a_context_is_made_for_whom_its_settings_name",
    "5.5 proxy user": "test_rest_proxy_users.test_a_job_s_own_context_is_made_for_whom_the_query_or_the_body_names",
    "6 reset, PUT /data": "test_rest_data.test_reset_deletes_all_and_knows_one_value",
    "7 sick": "test_rest_behind.test_a_sick_server_says_what_is_wrong",
    "8 use as proxy user": "test_rest_proxy_users.test_two_callers_use_one_name_for_contexts_of_their_own",
    "8 wrong credentials": "test_rest_access.test_wrong_credentials_are_a_401_also_for_a_name_that_was_right_before",
}
"""Outcomes that a row cannot bring about (or not without harm to a cluster that others use), and the test that does."""
