"""What existing clients rely on, request by request, on the wire (rest_contract sections 1 to 7 and 12): jobs.

Binaries, contexts and what the framework answers have files of their own (`test_rest_binaries.py` and so on). All speak HTTP
only: with JOBSERVER_URL set they run against that server, with real jobs.
"""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.contract.conftest import Rest, unique

OK = '{"status":"SUCCESS"}'
JOB_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d)")


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
