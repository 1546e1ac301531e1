"""DataFrames as results, in JSON, Arrow and Parquet; code at an address."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow
import pyarrow.parquet
import pytest
from live_cluster import Live, Reply

from jobserver.driver.spark import MAJOR

FRAMES = """
def rows(spark, env, config):
    return spark.table("amounts").where(f"id < {config['below']}")

def kept_by_spark(spark, env, config):
    return spark.sparkContext._jsc.sc().dagScheduler().activeQueryToJobs().size()

def many(spark, env, config):
    return spark.range(300_000).selectExpr("id", "cast(id as string) as name", "id * 0.5 as half")
"""


ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"


@pytest.fixture(scope="module")
def frames(live: Live, context: str) -> str:
    return live.upload(FRAMES, name="frames")


def run_frame(live: Live, context: str, frames: str, function: str, accept: str, body: str = "") -> Reply:
    path = f"/jobs?cp={frames}&mainClass=frames:{function}&context={context}&sync=true&timeout=120"
    return live.ask("POST", path, body, headers={"Accept": accept})


def test_a_python_job_that_returns_a_dataframe_answers_its_rows(
    live: Live, context: str, frames: str
) -> None:
    result = run_frame(live, context, frames, "rows", "*/*", "below = 2").json["result"]
    assert [column["name"] for column in result["schema"]] == ["id", "part", "name"]
    assert (result["rows"], result["truncated"]) == ([[0, 0, "0"], [1, 1, "1"]], False)


@pytest.mark.skipif(MAJOR < 4, reason="Spark 3.5 keeps no such list")
@pytest.mark.parametrize("accept", ["*/*", ARROW])
def test_the_rows_of_an_answer_leave_nothing_in_spark(
    live: Live, context: str, frames: str, accept: str
) -> None:
    before = live.value(frames, "frames:kept_by_spark", context)
    assert run_frame(live, context, frames, "rows", accept, "below = 2").status == 200
    assert live.value(frames, "frames:kept_by_spark", context) <= before


@pytest.mark.parametrize("kind", ["sql", "python"])
@pytest.mark.parametrize("accept", [ARROW, PARQUET])
def test_rows_come_as_arrow_or_parquet_through_either_server(
    live: Live, context: str, frames: str, kind: str, accept: str
) -> None:
    if kind == "sql":
        query = quote("select * from amounts where id < 2")
        path = f"/jobs?sql={query}&context={context}&sync=true&timeout=60"
        reply = live.ask("POST", path, headers={"Accept": accept})
    else:
        reply = run_frame(live, context, frames, "rows", accept, "below = 2")
    assert reply.status == 200, str(reply)
    table = table_of(reply)
    assert table.to_pylist() == [{"id": 0, "part": 0, "name": "0"}, {"id": 1, "part": 1, "name": "1"}]
    job_id = reply.headers["X-Job-Id"]
    for server in live.ids:
        again = live.ask("GET", f"/jobs/{job_id}/result", server=server, headers={"Accept": accept})
        assert again.body == reply.body
    shown = live.get(f"/jobs/{job_id}")["result"]
    assert (shown["format"], shown["rowCount"], shown["truncated"]) == (accept, 2, False)


def test_types_keep_their_meaning_in_arrow(live: Live, context: str) -> None:
    text = """select cast(1.5 as decimal(9,2)) as d, timestamp'2020-01-02 03:04:05' as t, array(1, 2) as a,
        map('k', 1) as m, named_struct('x', 1L) as s, cast(null as string) as n, double('NaN') as nan"""
    path = f"/jobs?sql={quote(text)}&context={context}&sync=true&timeout=60"
    row = table_of(live.ask("POST", path, headers={"Accept": ARROW})).to_pylist()[0]
    assert (row["d"], row["a"], row["m"], row["s"], row["n"]) == (
        Decimal("1.50"), [1, 2], [("k", 1)], {"x": 1}, None,
    )  # fmt: skip
    assert row["nan"] != row["nan"], "what JSON has no word for is whole"
    assert row["t"].isoformat()[:10] in ("2020-01-01", "2020-01-02", "2020-01-03")


def test_a_limit_cuts_rows_in_arrow_and_says_so(live: Live, context: str) -> None:
    path = f"/jobs?sql={quote('select id from range(100000)')}&context={context}&limit=60000&sync=true&timeout=60"
    reply = live.ask("POST", path, headers={"Accept": ARROW})
    assert table_of(reply).num_rows == 60_000
    shown = live.get(f"/jobs/{reply.headers['X-Job-Id']}")["result"]
    assert (shown["rowCount"], shown["truncated"]) == (60_000, True)


def test_many_rows_come_whole_as_arrow(live: Live, context: str, frames: str) -> None:
    reply = run_frame(live, context, frames, "many", ARROW)
    table = table_of(reply)
    assert (table.num_rows, table.column("half")[299_999].as_py()) == (300_000, 149_999.5)


def table_of(reply: Reply) -> Any:
    if reply.headers["Content-Type"] == ARROW:
        return pyarrow.ipc.open_stream(reply.body).read_all()
    assert reply.headers["Content-Type"] == PARQUET, str(reply)
    return pyarrow.parquet.read_table(io.BytesIO(reply.body))


def test_code_is_loaded_from_an_address(live: Live, context: str, tmp_path: Path) -> None:
    file = tmp_path / "lying.py"
    for version in (1, 2):
        file.write_text(f"def run(spark, env, config):\n    return {version}\n")
        assert live.value(f"file://{file}", "lying:run", context) == version
    refused = live.submit("file:///nothing/here.py", "here:run", context)
    assert (refused.status, refused.json["status"]) == (400, "JOB LOADING FAILED"), str(refused)
