"""Large results, limits of size and time, and pools that keep quick jobs quick."""

from __future__ import annotations

import time
from pathlib import Path

from live_cluster import Live

from test_job_kinds.asking import sql


def peak_memory(live: Live) -> dict[str, int]:
    """Bytes that each server has had resident at most."""
    found = {}
    for name, child in live.cluster.servers.items():
        status = Path(f"/proc/{child.handle.pid}/status").read_text()
        found[name] = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return found


def test_a_result_of_100_mb_passes_through_servers_without_growing_them(
    live: Live, context: str, large: str
) -> None:
    size = 100 * 10**6
    live.value(large, "large:large", context, {"size": 5 * 2**20})
    before = peak_memory(live)
    job_id = live.start(large, "large:large", context, {"size": size})
    assert (
        live.eventually(lambda: live.get(f"/jobs/{job_id}/progress"), lambda job: job["status"] != "RUNNING")[
            "status"
        ]
        == "FINISHED"
    )
    for server in live.ids:
        whole = live.ask("GET", f"/jobs/{job_id}/result", server=server)
        assert (whole.status, len(whole.body), whole.body[:3], whole.body[-2:]) == (
            200,
            size + 2,
            b'"xx',
            b'x"',
        )
        part = live.ask("GET", f"/jobs/{job_id}/result", server=server, headers={"Range": "bytes=99999999-"})
        assert (part.status, part.body) == (206, b'xx"')
        shown = live.ask("GET", f"/jobs/{job_id}", server=server)
        assert shown.body.endswith(b'xxx"}')
        assert len(shown.body) > size
    grown = {name: peak - before[name] for name, peak in peak_memory(live).items()}
    assert max(grown.values()) < 48 * 2**20, f"grown by {grown}"


def test_a_sync_job_answers_a_large_result_and_one_beyond_the_limit_is_its_error(
    live: Live, context: str, large: str
) -> None:
    assert len(live.value(large, "large:large", context, {"size": 3 * 2**20})) == 3 * 2**20
    reply = live.submit(large, "large:large", context, {"size": 130 * 2**20})
    assert (reply.json["status"], reply.json["result"]["errorClass"]) == ("ERROR", "ResultTooLarge"), str(
        reply
    )
    assert live.ask("GET", "/jobs/nothing/result").status == 404


def test_a_job_ends_when_its_time_limit_is_over(live: Live, context: str, large: str) -> None:
    reply = live.submit(large, "large:sleeps", context, timeoutRun=1)
    assert (reply.status, reply.json["status"]) == (200, "KILLED"), str(reply)
    assert "ran longer than its time limit of 1 s" in reply.json["result"]["message"]
    assert live.value(large, "large:nothing", context, timeoutRun=60) is None


def test_a_quick_query_is_not_delayed_by_long_jobs_of_another_pool(
    live: Live, context: str, large: str
) -> None:
    def quickest(count: int = 7) -> float:
        """The median of some quick queries over shared data, seconds."""
        taken = []
        for _ in range(count):
            begun = time.monotonic()
            assert sql(live, context, "select count(*) from amounts where part = 1").json["result"][
                "rows"
            ] == [[25]]
            taken.append(time.monotonic() - begun)
        return sorted(taken)[count // 2]

    def quick_job(count: int = 7) -> float:
        """The median of some jobs that need no Spark."""
        taken = []
        for _ in range(count):
            begun = time.monotonic()
            assert live.value(large, "large:nothing", context) is None
            taken.append(time.monotonic() - begun)
        return sorted(taken)[count // 2]

    quickest(2)
    alone, job_alone = quickest(), quick_job()
    jobs = [live.start(large, "large:long_tasks", context, pool="batch") for _ in range(3)]
    live.eventually(  # one of them: within its pool Spark serves the first that came to it, which need not be the first started
        lambda: [live.get(f"/jobs/{job}/progress")["tasks"] for job in jobs],
        lambda seen: any(tasks["active"] and tasks["done"] for tasks in seen),
    )
    beside, job_beside = quickest(), quick_job()
    assert all(live.job(job)["status"] == "RUNNING" for job in jobs)
    for job in jobs:
        live.ask("DELETE", f"/jobs/{job}")
    print(f"quick query: {alone * 1000:.0f} ms alone, {beside * 1000:.0f} ms beside three long jobs")
    # without fair pools it would wait for all three, which take minutes; other work on this machine costs seconds at most
    assert beside < 5 * alone + 5.0, f"{alone:.3f} s alone, {beside:.3f} s beside long jobs"
    assert job_beside < 10 * job_alone + 5.0, f"{job_alone:.4f} s alone, {job_beside:.4f} s beside long jobs"
