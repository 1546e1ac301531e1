"""Binaries in the REST dialect, request by request. See `test_rest_jobs.py`."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from tests.contract.conftest import JOBS, Rest, unique

OK = '{"status":"SUCCESS"}'
ZIP = b"PK\x03\x04" + b"\0" * 26
JAR = {"Content-Type": "application/java-archive"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


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
