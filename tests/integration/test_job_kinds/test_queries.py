"""SQL jobs: rows and schema of queries over named objects, through a real cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from live_cluster import Live

from test_job_kinds.asking import sql

EXAMPLES = Path(__file__).parents[3] / "examples"


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


def test_the_example_in_sql_sums_the_rows_of_the_cached_query(live: Live, context: str) -> None:
    code = live.upload((EXAMPLES / "cached_query.py").read_text(), name="cached_query")
    totals = live.value(code, "cached_query:build", context, {"rows": 1000})
    reply = live.ask(
        "POST", f"/jobs?context={context}&sync=true&timeout=60", (EXAMPLES / "region_totals.conf").read_text()
    )
    rows = reply.json["result"]["rows"]
    assert {region: {"rows": count, "amount": amount} for region, count, amount in rows} == totals, str(reply)


def test_views_of_a_query_are_its_own(live: Live, context: str) -> None:
    assert sql(live, context, "create temporary view mine as select 1").json["result"]["rows"] == []
    assert sql(live, context, "select * from mine").json["status"] == "VALIDATION FAILED"


def test_a_query_is_listed_with_its_text_in_its_configuration(live: Live, context: str) -> None:
    job_id = sql(live, context, "select 1", a=1).json["jobId"]
    assert live.job(job_id)["classPath"] == "sql"
    assert live.get(f"/jobs/{job_id}/config")["a"] == 1
