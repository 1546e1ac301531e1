"""What existing clients rely on, request by request, on the wire (rest_contract sections 1 to 7 and 12).

These tests speak HTTP only: with JOBSERVER_URL set they run against that server, with real jobs.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from urllib.parse import quote

import pytest

from tests.contract.conftest import JOBS, Rest

OK = '{"status":"SUCCESS"}'
NOT_FOUND = "The requested resource could not be found."
ZIP = b"PK\x03\x04" + b"\0" * 26
JAR = {"Content-Type": "application/java-archive"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
JOB_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d)")


def unique(prefix: str = "n") -> str:
    return f"{prefix}{uuid.uuid4().hex[:10]}"


# binaries


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/java-archive", "Jar"),
        ("application/python-egg", "Egg"),
        ("application/python-archive", "Egg"),
        ("application/python-wheel", "Wheel"),
        ("application/zip", "Zip"),
        ("Application/Java-Archive; charset=UTF-8", "Jar"),
    ],
)
async def test_an_upload_gets_its_type_from_the_content_type(
    rest: Rest, content_type: str, kind: str
) -> None:
    name = unique()
    reply = await rest("POST", f"/binaries/{name}", ZIP, {"Content-Type": content_type})
    assert (reply.status, reply.text, reply.type) == (201, OK, "application/json")
    shown = await rest("GET", f"/binaries/{name}")
    assert list(shown.json) == ["app-name", "binary-type", "upload-time"]
    assert (shown.json["app-name"], shown.json["binary-type"]) == (name, kind)
    assert INSTANT.fullmatch(shown.json["upload-time"])


@pytest.mark.parametrize("content_type", ["text/x-python", "application/x-python"])
async def test_a_single_python_file_can_be_uploaded(rest: Rest, content_type: str) -> None:
    name = unique()
    reply = await rest("POST", f"/binaries/{name}", JOBS, {"Content-Type": content_type})
    assert (reply.status, reply.text) == (201, OK)
    assert (await rest("GET", f"/binaries/{name}")).json["binary-type"] == "Python"


@pytest.mark.parametrize(
    "source",
    [b"def f(:\n", b"x = '\xff'\n", b"x = 1\0\n", b"", b"# nothing\n", b"(" * 5000, b"-" * 40000 + b"1"],
)
async def test_a_python_file_that_does_not_parse_is_refused(rest: Rest, source: bytes) -> None:
    reply = await rest("POST", f"/binaries/{unique()}", source, {"Content-Type": "text/x-python"})
    assert reply.status == 400
    assert reply.text == '{"status":"ERROR","result":"Binary is not of the right format"}'


async def test_the_list_of_binaries_is_an_object_by_name(rest: Rest) -> None:
    name = unique()
    await rest("POST", f"/binaries/{name}", ZIP, JAR)
    for path in ("/binaries", "/binaries/", "/jars"):
        listed = await rest("GET", path)
        assert listed.status == 200
        assert list(listed.json[name]) == ["binary-type", "upload-time"]


async def test_uploading_again_under_a_name_replaces_it(rest: Rest) -> None:
    name = unique()
    await rest("POST", f"/binaries/{name}", ZIP, JAR)
    await rest("POST", f"/binaries/{name}", ZIP + b"1", {"Content-Type": "application/zip"})
    assert (await rest("GET", f"/binaries/{name}")).json["binary-type"] == "Zip"


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a zip", b"PK\x05\x06" + b"\0" * 18])
async def test_bytes_that_are_no_zip_are_refused(rest: Rest, data: bytes) -> None:
    reply = await rest("POST", f"/binaries/{unique()}", data, JAR)
    assert reply.status == 400
    assert reply.text == '{"status":"ERROR","result":"Binary is not of the right format"}'


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", ""])
async def test_the_content_type_is_checked_before_the_bytes(rest: Rest, content_type: str) -> None:
    reply = await rest("POST", f"/binaries/{unique()}", b"x", {"Content-Type": content_type})
    assert reply.status == 415
    assert reply.json == {"status": "ERROR", "result": f"Unsupported binary type {content_type}"}


async def test_an_upload_without_content_type_is_refused(rest: Rest) -> None:
    reply = await rest("POST", f"/binaries/{unique()}", ZIP)
    assert reply.status == 415
    assert reply.json["result"].startswith("Unsupported binary type ")


async def test_an_unknown_binary_is_named_in_two_spellings(rest: Rest) -> None:
    got = await rest("GET", "/binaries/nobody")
    assert (got.status, got.json["result"]) == (404, "Can't find binary with name nobody")
    deleted = await rest("DELETE", "/binaries/nobody")
    assert (deleted.status, deleted.json["result"]) == (404, "can't find binary with name nobody")


async def test_a_deleted_binary_is_gone(rest: Rest) -> None:
    name = unique()
    await rest("POST", f"/binaries/{name}", ZIP, JAR)
    deleted = await rest("DELETE", f"/binaries/{name}")
    assert (deleted.status, deleted.text) == (200, OK)
    assert (await rest("GET", f"/binaries/{name}")).status == 404


async def test_a_binary_in_use_is_not_deleted(rest: Rest) -> None:
    name = await rest.upload()
    context = await rest.context()
    job = await rest("POST", f"/jobs?cp={name}&mainClass=contract_jobs.Sleeping&context={context}")
    deleted = await rest("DELETE", f"/binaries/{name}")
    assert deleted.status == 403
    assert deleted.json == {
        "status": "ERROR",
        "result": f"Binary is in use by job(s): {job.json['jobId']}",
    }
    await rest("DELETE", f"/jobs/{job.json['jobId']}")


@pytest.mark.parametrize("name", ["a%2Fb", "a%5Cb", "a%00b", "a%0Ab", "..", "%2e", "x" * 256, "%ff", "%20"])
async def test_a_name_that_would_break_paths_is_refused_with_a_sentence(rest: Rest, name: str) -> None:
    reply = await rest("POST", f"/binaries/{name}", ZIP, JAR)
    assert reply.status == 400
    assert reply.json["status"] == "ERROR"


async def test_names_keep_every_letter_of_every_language(rest: Rest) -> None:
    name = unique("слова-日本 ")
    assert (await rest("POST", f"/binaries/{quote(name)}", ZIP, JAR)).status == 201
    assert name in (await rest("GET", "/binaries")).json


@pytest.mark.parametrize("headers", [FORM, JAR, {}])
async def test_the_oldest_clients_upload_to_jars_and_read_the_text_ok(
    rest: Rest, headers: dict[str, str]
) -> None:
    name = unique()
    reply = await rest("POST", f"/jars/{name}", ZIP, headers)
    assert (reply.status, reply.text, reply.type) == (200, "OK", "text/plain; charset=UTF-8")
    assert (await rest("GET", f"/binaries/{name}")).json["binary-type"] == "Jar"
    assert (await rest("DELETE", f"/jars/{name}")).status == 200


# contexts


async def test_a_context_is_created_listed_shown_and_deleted(rest: Rest) -> None:
    name = unique("c")
    created = await rest("POST", f"/contexts/{name}?num-cpu-cores=1&memory-per-node=512m")
    assert (created.status, created.text) == (200, '{"status":"SUCCESS","result":"Context initialized"}')
    assert name in (await rest("GET", "/contexts")).json
    shown = (await rest("GET", f"/contexts/{name}")).json
    assert list(shown)[:5] == ["id", "name", "startTime", "endTime", "state"]
    assert (shown["name"], shown["endTime"], shown["state"]) == (name, "Empty", "RUNNING")
    assert INSTANT.fullmatch(shown["startTime"])
    deleted = await rest("DELETE", f"/contexts/{name}/")
    assert (deleted.status, deleted.text) == (200, '{"status":"SUCCESS","result":"Context stopped"}')


async def test_an_ended_context_can_still_be_read(rest: Rest) -> None:
    name = await rest.context()
    await rest("DELETE", f"/contexts/{name}")
    shown = await rest("GET", f"/contexts/{name}")
    assert shown.status == 200
    assert shown.json["state"] == "FINISHED"
    assert INSTANT.fullmatch(shown.json["endTime"])
    assert "applicationId" not in shown.json
    assert name not in (await rest("GET", "/contexts")).json


async def test_our_own_keys_of_a_context_come_after_those_of_the_contract(rest: Rest) -> None:
    shown = (await rest("GET", f"/contexts/{await rest.context()}")).json
    ours = ["epoch", "owner", "standbys", "lastFailover", "data"]
    assert list(shown)[-5:] == ours


async def test_a_living_context_cannot_be_created_again_but_an_ended_one_can(rest: Rest) -> None:
    name = await rest.context()
    again = await rest("POST", f"/contexts/{name}")
    assert (again.status, again.text) == (400, f'{{"status":"ERROR","result":"context {name} exists"}}')
    first = (await rest("GET", f"/contexts/{name}")).json["id"]
    await rest("DELETE", f"/contexts/{name}")
    assert (await rest("POST", f"/contexts/{name}")).status == 200
    assert (await rest("GET", f"/contexts/{name}")).json["id"] != first


@pytest.mark.parametrize("name", ["1abc", "-a", "_a", "%20a", "%2F"])
async def test_a_context_name_starts_with_a_letter(rest: Rest, name: str) -> None:
    reply = await rest("POST", f"/contexts/{name}", "this { is no config")
    assert reply.status == 400
    assert reply.text == '{"status":"ERROR","result":"context name must start with letters"}'


@pytest.mark.parametrize(
    "body", ["a = {", "[1]", "a = ${nothing}", "spark.context-settings = 3", 'include "/etc/passwd"']
)
async def test_a_context_body_that_cannot_be_read_is_a_400(rest: Rest, body: str) -> None:
    reply = await rest("POST", f"/contexts/{unique('c')}", body)
    assert reply.status == 400
    assert reply.json["result"].startswith("Cannot parse config: ")


async def test_unknown_contexts_are_404_in_the_words_of_the_contract(rest: Rest) -> None:
    got = await rest("GET", "/contexts/nobody")
    assert (got.status, got.json["result"]) == (404, "can't find context with name nobody")
    deleted = await rest("DELETE", "/contexts/nobody")
    assert (deleted.status, deleted.json["result"]) == (404, "context nobody not found")
    objects = await rest("GET", "/contexts/nobody/objects")
    assert objects.status == 404


async def test_a_new_context_has_no_named_objects(rest: Rest) -> None:
    reply = await rest("GET", f"/contexts/{await rest.context()}/objects")
    assert (reply.status, reply.text) == (200, "[]")


async def test_reset_needs_its_parameter_and_knows_one_value(rest: Rest) -> None:
    missing = await rest("PUT", "/contexts")
    assert missing.status == 404
    assert missing.text == "Request is missing required query parameter 'reset'"
    assert (await rest("PUT", "/contexts?reset=other")).status == 400


# jobs


async def test_a_sync_job_answers_with_its_id_and_value_alone(rest: Rest) -> None:
    reply = await rest.run("WordCount", query="&sync=true", body="input.string = a b c a b see")
    assert reply.status == 200
    assert list(reply.json) == ["jobId", "result"]
    assert reply.json["result"] == {"a": 2, "b": 2, "c": 1, "see": 1}
    shown = (await rest("GET", f"/jobs/{reply.json['jobId']}")).json
    keys = ["jobId", "startTime", "classPath", "context", "contextId", "duration", "status", "result"]
    assert list(shown) == keys
    assert (shown["status"], shown["result"]) == ("FINISHED", reply.json["result"])
    assert JOB_TIME.fullmatch(shown["startTime"])
    assert re.fullmatch(r"\d+\.\d+ secs", shown["duration"])


async def test_an_async_job_answers_202_in_the_words_of_its_start(rest: Rest) -> None:
    reply = await rest.run("WordCount", body='{"input":{"string":"a b"}}')
    assert reply.status == 202
    keys = ["jobId", "startTime", "classPath", "context", "contextId", "duration", "status"]
    assert list(reply.json) == keys
    assert reply.json["status"] == "STARTED"
    assert reply.json["duration"] == "Job not done yet"
    assert reply.json["classPath"] == "contract_jobs.WordCount"


async def test_a_job_that_returns_none_has_the_result_null(rest: Rest) -> None:
    reply = await rest.run("Nothing", query="&sync=true")
    assert reply.text == f'{{"jobId":"{reply.json["jobId"]}","result":null}}'


async def test_a_sync_job_that_raises_is_a_200_with_its_error(rest: Rest) -> None:
    reply = await rest.run("Failing", query="&sync=true")
    assert reply.status == 200
    assert list(reply.json) == ["jobId", "status", "result"]
    assert reply.json["status"] == "ERROR"
    assert list(reply.json["result"]) == ["message", "errorClass", "stack"]
    assert "this job fails" in reply.json["result"]["message"]
    assert isinstance(reply.json["result"]["stack"], str)


@pytest.mark.parametrize("sync", ["true", "false"])
async def test_a_validate_that_raises_answers_like_a_failed_sync_job(rest: Rest, sync: str) -> None:
    reply = await rest.run("FailingValidate", query=f"&sync={sync}")
    assert reply.status == 200
    assert list(reply.json) == ["jobId", "status", "result"]


@pytest.mark.parametrize("sync", ["true", "false"])
async def test_problems_of_validate_are_a_400_that_shows_them(rest: Rest, sync: str) -> None:
    reply = await rest.run("WordCount", query=f"&sync={sync}")
    assert reply.status == 400
    assert reply.json == {
        "status": "VALIDATION FAILED",
        "result": {
            "message": "One(SparkJobInvalid(No input.string config param))",
            "errorClass": "java.lang.Throwable",
            "stack": "",
        },
    }


async def test_an_unknown_main_class_is_a_404_with_its_name(rest: Rest) -> None:
    reply = await rest.run("NoSuchClass", query="&sync=true")
    assert (reply.status, reply.json["result"]) == (404, "classPath contract_jobs.NoSuchClass not found")


async def test_a_job_without_context_runs_in_one_of_its_own(rest: Rest) -> None:
    reply = await rest.run("WordCount", query="&sync=true", body="input.string = a", context=False)
    shown = (await rest("GET", f"/jobs/{reply.json['jobId']}")).json
    assert shown["context"].endswith("-contract_jobs.WordCount")


async def test_the_legacy_pair_names_binary_and_class(rest: Rest) -> None:
    name, context = await rest.upload(), await rest.context()
    query = f"appName={name}&classPath=contract_jobs.WordCount&context={context}&sync=true"
    reply = await rest("POST", f"/jobs?{query}", "input.string = a b a")
    assert reply.json["result"] == {"a": 2, "b": 1}


async def test_code_can_be_named_in_the_body(rest: Rest) -> None:
    name, context = await rest.upload(), await rest.context()
    for code in (f"cp = {name}", f'cp = ["{name}"]'):
        body = f"{code}\nmainClass = contract_jobs.WordCount\ninput.string = x"
        reply = await rest("POST", f"/jobs?context={context}&sync=true", body)
        assert reply.json["result"] == {"x": 1}, reply.text


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "application/json", "a/b;q"])
async def test_the_body_is_a_configuration_whatever_its_content_type(rest: Rest, content_type: str) -> None:
    name, context = await rest.upload(), await rest.context()
    path = f"/jobs?cp={name}&mainClass=contract_jobs.WordCount&context={context}&sync=true"
    reply = await rest("POST", path, "input.string = a", {"Content-Type": content_type})
    assert reply.json["result"] == {"a": 1}


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("", "To start the job appName or cp parameters should be configured!"),
        ("cp=x", "mainClass parameter is missing!"),
        ("cp=,", "To start the job appName or cp parameters should be configured!"),
        ("appName=x", "classPath parameter is missing!"),
        ("appName=x&mainClass=y", "classPath parameter is missing!"),
    ],
)
async def test_a_job_without_code_is_a_400_that_names_what_is_missing(
    rest: Rest, query: str, sentence: str
) -> None:
    reply = await rest("POST", f"/jobs?{query}")
    assert reply.status == 400
    assert reply.json == {"status": "ERROR", "result": f"Cannot parse config: {sentence}"}


@pytest.mark.parametrize(
    "body",
    [
        "a = {",
        "[1, 2]",
        "a = ${b}",
        "a = ${PATH}",
        "a = ${HOME}",
        b"\xff\xfe\xfa",
        'include "/etc/passwd"',
        'include url("http://127.0.0.1:1/")',
        "{" * 3000,
        '{"a":' * 3000 + "1" + "}" * 3000,
        '{"a": "\\ud800"}',
        '{"a": 1e999}',
        '{"a": ' + "9" * 5000 + "}",
        "cp = 3",
    ],
)
async def test_a_body_that_cannot_be_used_is_a_400_that_says_so(rest: Rest, body: str | bytes) -> None:
    reply = await rest("POST", "/jobs?mainClass=M", body)
    assert reply.status == 400
    assert reply.json["status"] == "ERROR"
    assert reply.json["result"].startswith("Cannot parse config: ")


async def test_unknown_names_are_404_and_the_binary_is_looked_up_first(rest: Rest) -> None:
    reply = await rest("POST", "/jobs?appName=nobody&classPath=M&context=noone")
    assert (reply.status, reply.json["result"]) == (404, "appName nobody not found")
    reply = await rest("POST", f"/jobs?appName={await rest.upload()}&classPath=M&context=noone")
    assert (reply.status, reply.json["result"]) == (404, "context noone not found")


async def test_urls_on_the_class_path_are_refused_by_kind(rest: Rest) -> None:
    reply = await rest("POST", "/jobs?cp=hdfs://h/x.jar&mainClass=M")
    assert (reply.status, reply.json["status"]) == (400, "JOB LOADING FAILED: Malformed URL")
    assert list(reply.json["result"]) == ["message", "errorClass", "stack"]
    reply = await rest("POST", f"/jobs?cp=file:///nothing/x.jar&mainClass=M&context={await rest.context()}")
    assert (reply.status, reply.json["status"]) == (400, "JOB LOADING FAILED")
    assert "cannot be loaded" in reply.json["result"]["message"]


async def test_the_list_of_jobs_is_newest_first_and_has_no_results(rest: Rest) -> None:
    name, context = await rest.upload(), await rest.context()
    path = f"/jobs?cp={name}&mainClass=contract_jobs.WordCount&context={context}&sync=true"
    ids = [(await rest("POST", path, "input.string = a")).json["jobId"] for _ in range(3)]
    listed = (await rest("GET", "/jobs?limit=2")).json
    assert [job["jobId"] for job in listed] == [ids[2], ids[1]]
    assert "result" not in listed[0]
    finished = (await rest("GET", "/jobs?status=finished&limit=3")).json
    assert [job["jobId"] for job in finished] == ids[::-1]
    assert (await rest("GET", "/jobs?status=nonsense")).text == "[]"
    assert (await rest("GET", "/jobs/?limit=0")).text == "[]"


async def test_the_posted_configuration_can_be_read_back(rest: Rest) -> None:
    reply = await rest.run("WordCount", query="&sync=true", body='input { string = "a", list = [1, "x"] }')
    config = await rest("GET", f"/jobs/{reply.json['jobId']}/config")
    assert config.status == 200
    assert config.json == {"input": {"string": "a", "list": [1, "x"]}}
    assert config.text.startswith('{\n  "input": {\n    "string": "a"')


async def test_unknown_jobs_are_404(rest: Rest) -> None:
    for method, path in (("GET", "/jobs/x"), ("GET", "/jobs/x/config"), ("DELETE", "/jobs/x")):
        reply = await rest(method, path)
        assert (reply.status, reply.text) == (404, '{"status":"ERROR","result":"No such job ID x"}')


async def test_a_running_job_is_killed_once(rest: Rest) -> None:
    job = (await rest.run("Sleeping")).json["jobId"]
    killed = await rest("DELETE", f"/jobs/{job}")
    assert (killed.status, killed.text) == (200, '{"status":"KILLED"}')
    again = await rest("DELETE", f"/jobs/{job}")
    assert (again.status, again.json["result"]) == (404, f"No running job with ID {job}")
    shown = (await rest("GET", f"/jobs/{job}")).json
    assert shown["status"] == "KILLED"
    assert list(shown["result"]) == ["message", "errorClass", "stack"]


async def test_killing_a_failed_job_shows_its_error_under_the_odd_key(rest: Rest) -> None:
    job = (await rest.run("Failing", query="&sync=true")).json["jobId"]
    reply = await rest("DELETE", f"/jobs/{job}")
    assert reply.status == 200
    assert list(reply.json) == ["status", "ERROR"]
    assert list(reply.json["ERROR"]) == ["message", "errorClass", "stack"]


async def test_a_sync_wait_that_ends_names_the_job_which_goes_on(rest: Rest) -> None:
    reply = await rest.run("Sleeping", query="&sync=true&timeout=1")
    assert reply.status == 500
    assert reply.json["status"] == "ERROR"
    assert reply.json["result"]["errorClass"] == "akka.pattern.AskTimeoutException"
    job = reply.json["jobId"]
    assert (await rest("GET", f"/jobs/{job}")).json["status"] == "RUNNING"
    await rest("DELETE", f"/jobs/{job}")


# the same submission again


async def test_a_repeated_key_gets_the_same_job(rest: Rest) -> None:
    name, context = await rest.upload(), await rest.context()
    path = f"/jobs?cp={name}&mainClass=contract_jobs.WordCount&context={context}&sync=true"
    key = {"Idempotency-Key": unique("key")}
    first = await rest("POST", path, "input.string = a", key)
    again = await rest("POST", path, "input.string = a", key)
    assert (first.status, first.text) == (200, again.text)


@pytest.mark.parametrize("change", ["body", "query"])
async def test_a_key_used_for_another_request_is_refused(rest: Rest, change: str) -> None:
    name, context = await rest.upload(), await rest.context()
    path = f"/jobs?cp={name}&mainClass=contract_jobs.WordCount&context={context}&sync=true"
    key = {"Idempotency-Key": unique("key")}
    await rest("POST", path, "input.string = a", key)
    other = (path, "input.string = b") if change == "body" else (path + "&priority=1", "input.string = a")
    reply = await rest("POST", *other, key)
    assert (reply.status, reply.json["status"]) == (422, "ERROR")


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9"])
async def test_a_key_is_printable_ascii_of_bounded_length(rest: Rest, key: str) -> None:
    reply = await rest("POST", "/jobs?appName=x&classPath=y", "", {"Idempotency-Key": key})
    assert reply.status == 400
    assert reply.json["result"] == "Idempotency-Key must be 1 to 255 printable ASCII characters"


async def test_two_submissions_without_key_are_two_jobs(rest: Rest) -> None:
    name, context = await rest.upload(), await rest.context()
    path = f"/jobs?cp={name}&mainClass=contract_jobs.Nothing&context={context}&sync=true"
    replies = await asyncio.gather(rest("POST", path), rest("POST", path))
    assert replies[0].json["jobId"] != replies[1].json["jobId"]


# the framework's own answers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("GET", "/binaries/a/b"),
        ("GET", "/jobs/a/b"),
        ("GET", "/jobs//config"),
        ("GET", "//jobs"),
        ("POST", "/binaries"),
        ("POST", "/jobs/anything"),
        ("POST", "/contexts"),
        ("DELETE", "/contexts"),
        ("PUT", "/contexts/x"),
        ("GET", "/Jobs"),
    ],
)
async def test_a_path_that_leads_nowhere_is_a_404_text(rest: Rest, method: str, path: str) -> None:
    reply = await rest(method, path)
    assert (reply.status, reply.text, reply.type) == (404, NOT_FOUND, "text/plain; charset=UTF-8")


@pytest.mark.parametrize(
    ("method", "path", "methods"),
    [
        ("PUT", "/binaries/x", "GET, POST, DELETE"),
        ("PATCH", "/jobs", "GET, POST, DELETE"),
        ("PUT", "/jobs/x", "GET, POST, DELETE"),
        ("POST", "/healthz", "GET"),
        ("DELETE", "/cluster", "GET, POST"),
        ("OPTIONS", "/jobs", "GET, POST, DELETE"),
    ],
)
async def test_a_wrong_method_is_a_405_with_the_right_ones(
    rest: Rest, method: str, path: str, methods: str
) -> None:
    reply = await rest(method, path)
    assert (reply.status, reply.headers["Allow"]) == (405, methods)
    assert reply.text == f"HTTP method not allowed, supported methods: {methods}"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "/jobs?limit=abc",
            "The query parameter 'limit' was malformed:\n'abc' is not a valid 32-bit signed integer value",
        ),
        (
            "/jobs?limit=2147483648",
            "The query parameter 'limit' was malformed:\n'2147483648' is not a valid 32-bit signed integer value",
        ),
    ],
)
async def test_a_malformed_number_is_a_400_text(rest: Rest, path: str, text: str) -> None:
    reply = await rest("GET", path)
    assert (reply.status, reply.text, reply.type) == (400, text, "text/plain; charset=UTF-8")


async def test_a_malformed_boolean_is_a_400_text(rest: Rest) -> None:
    reply = await rest("POST", "/jobs?appName=x&classPath=y&sync=maybe")
    assert reply.status == 400
    assert reply.text == "The query parameter 'sync' was malformed:\n'maybe' is not a valid Boolean value"


@pytest.mark.parametrize("query", ["timeout=0", "timeout=-1", "maxAttempts=0", "onFailover=sometimes"])
async def test_a_number_or_word_out_of_range_is_a_400_with_a_sentence(rest: Rest, query: str) -> None:
    reply = await rest("POST", f"/jobs?appName=x&classPath=y&{query}")
    assert (reply.status, reply.json["status"]) == (400, "ERROR")
    assert "must be" in reply.json["result"]


async def test_the_method_can_be_overridden_in_the_query(rest: Rest) -> None:
    name = await rest.context()
    reply = await rest("POST", f"/contexts/{name}?_method=delete")
    assert reply.json["result"] == "Context stopped"
    unknown = await rest("GET", "/jobs?_method=fly")
    assert unknown.status == 501
    assert unknown.text.startswith("The server either does not recognize the request method")


async def test_head_is_answered_like_get_without_a_body(rest: Rest) -> None:
    reply = await rest("HEAD", "/healthz")
    assert (reply.status, reply.text) == (200, "")
    assert reply.headers["Content-Length"] == str(len(OK))


async def test_a_healthy_server_says_success(rest: Rest) -> None:
    reply = await rest("GET", "/healthz")
    assert (reply.status, reply.text, reply.type) == (200, OK, "application/json")


async def test_the_cluster_is_shown_as_one_object(rest: Rest) -> None:
    reply = await rest("GET", "/cluster")
    assert reply.status == 200
    assert isinstance(reply.json, dict)


async def test_pages_of_other_origins_may_call(rest: Rest) -> None:
    reply = await rest("GET", "/healthz", None, {"Origin": "http://ui.example"})
    assert reply.headers["Access-Control-Allow-Origin"] == "http://ui.example"
    asked = {"Origin": "http://ui.example", "Access-Control-Request-Method": "POST"}
    preflight = await rest("OPTIONS", "/jobs", None, asked)
    assert (preflight.status, preflight.headers["Access-Control-Max-Age"]) == (200, "1800")
    assert preflight.headers["Access-Control-Allow-Methods"] == "GET, POST, HEAD, OPTIONS"
    plain = await rest("GET", "/healthz")
    assert "Access-Control-Allow-Origin" not in plain.headers
