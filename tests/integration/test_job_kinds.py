"""SQL, JVM and Python jobs on two real servers with real Spark, submitted and watched through either of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from live_cluster import Live, Reply

CODE = """
def build(spark, env, config):
    frame = spark.range(100).selectExpr("id", "id % 4 as part", "cast(id as string) as name")
    env.named_objects.update("Rows Of All", lambda: frame)
    env.named_objects.update("amounts", lambda: frame)
    return frame.count()
"""


@pytest.fixture(scope="module")
def live(start_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with start_cluster(tmp_path_factory.mktemp("kinds"), servers=2, ha={"standby": "cold"}) as running:
        yield Live(running)


@pytest.fixture(scope="module")
def context(live: Live) -> str:
    name = live.context("kinds")
    code = live.upload(CODE, name="kinds_code")
    assert live.value(code, "kinds_code:build", name) == 100
    return name


def sql(live: Live, context: str | None, text: str, sync: bool = True, **body: Any) -> Reply:
    where = "" if context is None else f"&context={context}"
    query = f"/jobs?sql={quote(text)}&sync={str(sync).lower()}&timeout=60{where}"
    return live.ask("POST", query, json.dumps(body))


# SQL


def test_a_query_over_named_objects_answers_rows_and_schema(live: Live, context: str) -> None:
    text = "select part, count(*) as n from amounts where id < 99 group by part order by part"
    result = sql(live, context, text).json["result"]
    assert result == {
        "schema": [
            {"name": "part", "type": "bigint", "nullable": True},
            {"name": "n", "type": "bigint", "nullable": False},
        ],
        "rows": [[0, 25], [1, 25], [2, 25], [3, 24]],
        "truncated": False,
    }


def test_a_query_in_the_body_takes_named_parameters_and_a_limit(live: Live, context: str) -> None:
    body = 'sql = """select id, name\n from `rows of all` where part = :part\n order by id"""\nargs { part = 2 }\nlimit = 2'
    reply = live.ask("POST", f"/jobs?sync=true&timeout=60&context={context}", body)
    assert reply.json["result"]["rows"] == [[2, "2"], [6, "6"]], str(reply)
    assert reply.json["result"]["truncated"] is True


def test_positional_parameters_keep_text_apart_from_sql(live: Live, context: str) -> None:
    reply = sql(live, context, "select ? as a, ? as b", args=["'; drop table amounts", None])
    assert reply.json["result"]["rows"] == [["'; drop table amounts", None]], str(reply)


def test_a_large_result_of_a_query_is_whole(live: Live, context: str) -> None:
    reply = live.ask("POST", f"/jobs?sync=true&timeout=60&context={context}&limit=20000", json.dumps(
        {"sql": "select id, cast(id as string) as name from range(20001)"}))  # fmt: skip
    result = reply.json["result"]
    assert (len(result["rows"]), result["rows"][-1], result["truncated"]) == (20_000, [19_999, "19999"], True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("selec 1", "PARSE_SYNTAX_ERROR"),
        ("select x from nowhere", "TABLE_OR_VIEW_NOT_FOUND"),
        ("select :a", "UNBOUND_SQL"),
    ],
)
@pytest.mark.parametrize("sync", [True, False])
def test_what_spark_does_not_understand_is_a_failed_validation(
    live: Live, context: str, text: str, words: str, sync: bool
) -> None:
    reply = sql(live, context, text, sync)
    assert (reply.status, reply.json["status"]) == (400, "VALIDATION FAILED"), str(reply)
    assert words in reply.json["result"]["message"]


def test_a_query_that_fails_while_it_runs_is_a_job_in_error(live: Live, context: str) -> None:
    reply = sql(live, context, "select raise_error('spoilt') from amounts")
    assert (reply.status, reply.json["status"]) == (200, "ERROR"), str(reply)
    assert "spoilt" in reply.json["result"]["message"]


def test_views_of_a_query_are_its_own(live: Live, context: str) -> None:
    assert sql(live, context, "create temporary view mine as select 1").json["result"]["rows"] == []
    assert sql(live, context, "select * from mine").json["status"] == "VALIDATION FAILED"


def test_a_query_is_listed_with_its_text_in_its_configuration(live: Live, context: str) -> None:
    job_id = sql(live, context, "select 1", a=1).json["jobId"]
    assert live.job(job_id)["classPath"] == "sql"
    assert live.get(f"/jobs/{job_id}/config")["a"] == 1
