"""What monitors see: health, metricz in the dialect of existing servers, and Prometheus' text."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.conftest import Rest
from tests.fakes.service import FakeService


async def test_a_server_that_does_without_a_part_is_well_and_says_what_is_missing(
    rest: Rest, fake: FakeService
) -> None:
    fake.degraded = ("ZooKeeper does not answer",)
    reply = await rest("GET", "/healthz")
    assert (reply.status, reply.json) == (
        200,
        {"status": "SUCCESS", "degraded": ["ZooKeeper does not answer"]},
    )


async def test_metricz_has_the_names_and_types_that_dashboards_ask_for(rest: Rest) -> None:
    await rest("GET", "/binaries")
    reply = await rest("GET", "/metricz")
    assert (reply.status, reply.type) == (200, "text/plain; charset=UTF-8")
    web = reply.json["spark.jobserver.WebApi"]
    assert web["binary-get-duration"]["type"] == "timer"
    assert web["binary-get-duration"]["rate"]["count"] >= 1
    assert web["binary-get-duration"]["duration"]["p999"] > 0
    assert set(web["job-post-duration"]["rate"]) == {"type", "units", "count", "mean", "m1", "m5", "m15"}
    assert reply.json["spark.jobserver.JobStatusActor"]["num-running-jobs"]["type"] == "gauge"


async def test_reads_and_writes_are_counted_once_each(rest: Rest, fake: FakeService) -> None:
    await rest("GET", "/jobs")
    await rest("DELETE", "/jobs/none")
    await rest("GET", "/nowhere")
    web = (await rest("GET", "/metricz")).json["spark.jobserver.WebApi"]
    assert (web["total-read-requests"]["count"], web["total-write-requests"]["count"]) == (2, 1)
    assert web["internal-server-error-status-code"]["count"] == 0


async def test_prometheus_reads_what_metrics_says(rest: Rest) -> None:
    await rest("GET", "/jobs/none")
    reply = await rest("GET", "/metrics")
    assert reply.status == 200
    assert reply.type.startswith("text/plain; version=0.0.4")
    found = {family.name: family for family in text_string_to_metric_families(reply.text)}
    answers = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in found["jobserver_answers"].samples
        if sample.name == "jobserver_answers_total"
    }
    assert answers["get_job", "404"] >= 1
    assert "jobserver_jobs_running" in found
    assert "process_resident_memory_bytes" in found


@pytest.mark.parametrize("path", ["/metricz", "/metrics"])
async def test_monitors_only_read(rest: Rest, path: str) -> None:
    reply = await rest("POST", path)
    assert (reply.status, reply.headers["Allow"]) == (405, "GET")


async def test_counting_is_right_with_many_requests_at_once(rest: Rest, fake: FakeService) -> None:
    await asyncio.gather(*(rest("GET", "/jobs") for _ in range(50)))
    web = (await rest("GET", "/metricz")).json["spark.jobserver.WebApi"]
    assert web["job-get-duration"]["rate"]["count"] == 50
