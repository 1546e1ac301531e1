"""Both clients and the commands against the API: they say what a server understands, and understand what it says."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from jobserver.api import make_app
from jobserver.cli.main import app
from jobserver.client import ARROW, PARQUET, EndedJob, JobClient, Refused, Work
from jobserver.client.aio import AsyncJobClient
from jobserver.errors import JobServerError, Unavailable
from jobserver.model import JobRecord, JobState
from tests.contract.situation import JOBS
from tests.fakes.service import FakeService

DEAD = "http://127.0.0.1:1"
Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
async def url(service: FakeService) -> AsyncIterator[str]:
    async with TestServer(make_app(service), host="127.0.0.1") as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture(params=["blocking", "asyncio"])
async def ask(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Ask]:
    """`ask("submit", work)`: a method of either client, whose first server is dead."""
    servers = [DEAD, url]
    if request.param == "blocking":
        client = JobClient(servers, patience=10)
        yield lambda name, *given, **more: asyncio.to_thread(getattr(client, name), *given, **more)
        return
    async with AsyncJobClient(servers, patience=10) as other:
        yield lambda name, *given, **more: getattr(other, name)(*given, **more)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    file = tmp_path / "contract_jobs.py"
    file.write_bytes(JOBS)
    return file


def work(job: str, **config: Any) -> Work:
    return Work(f"contract_jobs.{job}", ("contract_jobs",), context="ctx", config=config)


async def test_code_is_uploaded_run_and_answered_although_a_server_is_dead(ask: Ask, code: Path) -> None:
    assert await ask("upload", code) == "contract_jobs"
    await ask("create_context", "ctx", {"num-cpu-cores": 2})
    job = await ask("run", work("WordCount", input={"string": "a b a"}))
    assert (job.status, job.value) == ("FINISHED", {"a": 2, "b": 1})
    assert await ask("read", "/contexts") == ["ctx"]
    assert await ask("delete_context", "ctx") is True


async def test_failed_and_killed_jobs_are_told_apart(ask: Ask, code: Path, service: FakeService) -> None:
    await ask("upload", code)
    await ask("create_context", "ctx")
    failed: EndedJob = await ask("run", work("Failing"))
    assert (failed.status, (failed.error or {})["message"]) == ("ERROR", "this job fails")
    sleeping = await ask("submit", work("Sleeping"))
    await ask("kill", sleeping)
    assert (await ask("end", sleeping)).status == "KILLED"


async def test_problems_of_validate_are_a_refusal(ask: Ask, code: Path) -> None:
    await ask("upload", code)
    await ask("create_context", "ctx")
    with pytest.raises(Refused) as told:
        await ask("run", work("WordCount"))
    assert (told.value.status, told.value.title) == (400, "VALIDATION FAILED")


async def test_one_key_is_one_job(ask: Ask, code: Path) -> None:
    await ask("upload", code)
    await ask("create_context", "ctx")
    first = await ask("submit", work("Nothing"), key="k")
    assert await ask("submit", work("Nothing"), key="k") == first
    assert await ask("submit", work("Nothing")) != first


async def test_nobody_there_is_one_sentence() -> None:
    with pytest.raises(Unavailable, match=r"no server could answer within 0\.1 s"):
        await asyncio.to_thread(JobClient([DEAD], patience=0.1).read, "/jobs")


# commands


async def command(url: str, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, in this process; errors end it as `main` ends them."""

    def run() -> tuple[int, str, str]:
        done = CliRunner().invoke(app, [*words, "--url", DEAD, "--url", url])
        if isinstance(done.exception, JobServerError):
            return 1, done.stdout, f"{done.exception.message}\n"
        return done.exit_code, done.stdout, done.stderr

    return await asyncio.to_thread(run)


async def process(url: str, *words: str) -> tuple[int, str, str]:
    """The same as a process of its own."""
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jobserver.cli.main", *words, "--url", DEAD, "--url", url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await made.communicate()
    return made.returncode or 0, out.decode(), err.decode()


async def test_submit_uploads_waits_and_prints_the_value(url: str, code: Path) -> None:
    found = await process(
        url, "submit", str(code), "--main", "contract_jobs.WordCount",
        "--conf", "input.string=a b a", "--sync", "--json",
    )  # fmt: skip
    assert (found[0], found[2]) == (0, "")
    assert json.loads(found[1])["result"] == {"a": 2, "b": 1}


async def test_exit_codes_tell_how_a_job_ended(url: str, code: Path, service: FakeService) -> None:
    def killed(job: JobRecord) -> JobRecord:
        return replace(job, state=JobState.KILLED, ended_at=job.submitted_at)

    words = ("submit", str(code), "--sync", "--main")
    failed = await command(url, *words, "contract_jobs.Failing")
    assert failed[0] == 3
    assert "this job fails" in failed[2]
    over = await command(url, *words, "contract_jobs.Sleeping", "--timeout", "0.1")
    assert over[0] == 5
    assert "it goes on" in over[2]
    refused = await command(url, *words, "contract_jobs.Absent")
    assert (refused[0], refused[2]) == (1, "classPath contract_jobs.Absent not found\n")
    absent = await command(url, "submit", "no/such/file.py", "--main", "x")
    assert (absent[0], absent[2]) == (1, "there is no file no/such/file.py\n")
    service.ends_meanwhile = killed
    assert (await command(url, *words, "contract_jobs.Sleeping"))[0] == 4


async def test_lists_are_for_people_and_for_programs(url: str, code: Path) -> None:
    job = (await command(url, "submit", str(code), "--main", "contract_jobs.Sleeping"))[1].strip()
    assert job in (await command(url, "jobs", "--status", "running"))[1]
    listed = json.loads((await command(url, "jobs", "--json"))[1])
    assert [each["jobId"] for each in listed] == [job]
    assert "contract_jobs" in (await command(url, "binaries"))[1]
    assert json.loads((await command(url, "contexts", "--json"))[1]) == []
    assert await command(url, "kill", job) == (0, f"Job {job} is killed.\n", "")
    again = await command(url, "kill", job)
    assert (again[0], again[2]) == (1, f"No running job with ID {job}\n")


async def test_each_command_tells_programs_what_it_did(url: str, code: Path) -> None:
    async def told(*words: str) -> object:
        found = await command(url, *words, "--json")
        assert found[0] == 0, found
        return json.loads(found[1])

    assert await told("upload", str(code), "--name", "mine") == {"binary": "mine"}
    assert await told("create", "ctx", "--conf", "num-cpu-cores=1") == {"context": "ctx", "state": "RUNNING"}
    job = await told("submit", "mine", "--main", "contract_jobs.Sleeping", "--context", "ctx")
    assert isinstance(job, dict)
    assert await told("kill", job["jobId"]) == {"jobId": job["jobId"], "status": "KILLED"}
    assert await told("delete", "ctx") == {"context": "ctx", "ended": True}
    refused = await command(url, "create", "1ctx")
    assert (refused[0], refused[2]) == (1, "context name must start with letters\n")
    assert (await command(url, "create", "ctx", "--conf", "nonsense"))[0] == 1


async def test_output_comes_in_pieces_that_programs_can_read(
    url: str, code: Path, service: FakeService
) -> None:
    job = (await command(url, "submit", str(code), "--main", "contract_jobs.Nothing"))[1].strip()
    service.outputs[job] = b"one\ntwo\n"
    assert (await command(url, "logs", job, "-f"))[1] == "one\ntwo\n"
    piece = {"jobId": job, "offset": 0, "text": "one\ntwo\n"}
    assert json.loads((await command(url, "logs", job, "--json"))[1]) == piece


async def test_rows_of_a_query_go_to_a_file_in_the_format_of_its_ending(url: str, tmp_path: Path) -> None:
    for ending in ("parquet", "arrow"):
        file = tmp_path / f"rows.{ending}"
        done = await command(url, "sql", "select 1", "--out", str(file), "--json")
        assert (done[0], json.loads(done[1])["bytes"]) == (0, 4), done
        assert file.read_bytes() == b"ROWS"
    await command(url, "sql", "select 1", "--out", str(tmp_path / "rows.json"))
    assert json.loads((tmp_path / "rows.json").read_bytes())["rows"] == [[1]]
    refused = await command(url, "sql", "select 1", "--out", str(tmp_path / "rows.xls"))
    assert (refused[0], "none of the endings" in refused[2]) == (1, True)


async def test_rows_of_a_query_are_a_table_for_people(url: str) -> None:
    done = await command(url, "sql", "select 1")
    assert [line.split() for line in done[1].splitlines()] == [["[n]"], ["1"]]
    assert done[2] == "the first 1 rows; there are more\n"
    assert json.loads((await command(url, "sql", "select 1", "--json"))[1])["result"]["rows"] == [[1]]


async def test_the_client_reads_rows_in_the_format_that_it_submitted_for(url: str) -> None:
    async with AsyncJobClient([DEAD, url]) as client:
        job = await client.run(Work(sql="select 1", accept=ARROW))
        assert job.value == {"rowCount": 1}
        assert await client.result(job.id, ARROW) == b"ROWS"
        with pytest.raises(Refused) as refused:
            await client.result(job.id, PARQUET)
        assert refused.value.status == 406
