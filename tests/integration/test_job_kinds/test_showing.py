"""What a running job shows: progress, events, output, also after its driver and its server have died. The last test ends them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from typing import Any

import pytest
from live_cluster import Live, Reply

SHOWING = """
import logging, sys, threading, time

def reports(spark, env, config):
    print("before", flush=True)
    env.report(0.25, "warming up")
    while env.named_objects.get("go-" + config["name"]) is None:
        time.sleep(0.02)
    env.report(0.5, "counting")
    def slowly(x):
        time.sleep(config["task"])
        return x
    count = spark.sparkContext.parallelize(range(8), 8).map(slowly).count()
    print("after")
    return count

def go(spark, env, config):
    env.named_objects.update("go-" + config["name"], lambda: True)

def talks(spark, env, config):
    for number in range(config["lines"]):
        print(config["name"], number)
    print("to stderr", file=sys.stderr)
    logging.getLogger("mine").warning("a line of the log: %s", config["name"])
    helper = threading.Thread(target=lambda: print(config["name"], "from a thread"))
    helper.start()
    helper.join()
    if config.get("fails", False):
        raise ValueError("and then it failed")

def floods(spark, env, config):
    block = "x" * 99 + "\\\\n"
    for _ in range(60_000):
        sys.stdout.write(block)
"""


@pytest.fixture(scope="module")
def showing(live: Live, context: str) -> str:
    return live.upload(SHOWING, name="showing")


def owner_and_other(live: Live, context: str) -> tuple[str, str]:
    owner = live.running(context)["owner"]
    return owner, next(name for name in live.ids if name != owner)


def output(live: Live, job_id: str, server: str | None = None, query: str = "", **headers: str) -> Reply:
    return live.ask("GET", f"/jobs/{job_id}/log{query}", server=server, headers=headers)


def test_a_running_job_shows_its_own_progress_and_sparks_through_any_server(
    live: Live, context: str, showing: str
) -> None:
    job_id = live.start(showing, "showing:reports", context, {"name": "progress", "task": 0.4})
    for server in owner_and_other(live, context):
        seen = live.eventually(
            lambda s=server: live.get(f"/jobs/{job_id}/progress", s), lambda p: p["fraction"]
        )
        assert (seen["jobId"], seen["status"], seen["fraction"], seen["message"]) == (
            job_id, "RUNNING", 0.25, "warming up")  # fmt: skip
    live.value(showing, "showing:go", context, {"name": "progress"})
    seen = live.eventually(
        lambda: live.get(f"/jobs/{job_id}/progress"), lambda p: 0 < p["tasks"]["done"] < p["tasks"]["total"]
    )
    assert (seen["tasks"]["total"], seen["stages"]["total"], seen["message"]) == (8, 1, "counting")
    assert seen["activeStages"][0]["tasks"]["total"] == 8
    assert live.ended(job_id)["result"] == 8
    ended = live.get(f"/jobs/{job_id}/progress")
    assert (ended["status"], ended["fraction"]) == ("FINISHED", 1.0)


class Events:
    """A client of server-sent events: reads in a thread of its own until the stream ends."""

    def __init__(self, live: Live, job_id: str, server: str, last: str = "") -> None:
        self.seen: list[tuple[str, str, Any]] = []
        self.ended = threading.Event()
        host = live.cluster.url(server).removeprefix("http://")
        self._connection = http.client.HTTPConnection(host, timeout=60)
        self._connection.request(
            "GET", f"/jobs/{job_id}/events", headers={"Last-Event-ID": last} if last else {}
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        fields: dict[str, str] = {}
        try:
            response = self._connection.getresponse()
            for line in iter(response.readline, b""):
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "id" in fields:
                    self.seen.append((fields["id"], fields["event"], json.loads(fields["data"])))
                    fields = {}
        except (OSError, http.client.HTTPException):
            pass  # the server was killed; what was seen stays
        finally:
            self.ended.set()

    @property
    def states(self) -> list[str]:
        return [data["state"] for _, kind, data in self.seen if kind == "state"]


def test_events_tell_states_and_progress_and_go_on_behind_the_last_that_was_seen(
    live: Live, context: str, showing: str
) -> None:
    job_id = live.start(showing, "showing:reports", context, {"name": "events", "task": 0.1})
    owner, other = owner_and_other(live, context)
    first = Events(live, job_id, other)
    live.eventually(lambda: first.seen, lambda seen: any(kind == "progress" for _, kind, _ in seen))
    assert first.states == ["RUNNING"]
    last = first.seen[-1][0]
    resumed = Events(live, job_id, owner, last)
    live.value(showing, "showing:go", context, {"name": "events"})
    assert resumed.ended.wait(60)
    assert first.ended.wait(60)
    for stream in (first, resumed):
        assert stream.states[-1] == "FINISHED"
        ids = [tuple(map(int, seen[0].split("."))) for seen in stream.seen]
        assert ids == sorted(set(ids)), "every event once, in order"
    assert resumed.states == ["FINISHED"]
    assert any(data["message"] == "counting" for _, kind, data in resumed.seen if kind == "progress")
    again = Events(live, job_id, owner)
    assert again.ended.wait(60)
    assert again.states == ["RUNNING", "FINISHED"]
    assert live.ask("GET", f"/jobs/{job_id}/events?lastEventId=x").status == 400
    assert live.ask("GET", "/jobs/nothing/events").status == 404


def test_what_a_job_writes_is_its_own_output_on_every_server(live: Live, context: str, showing: str) -> None:
    jobs = {
        name: live.start(showing, "showing:talks", context, {"name": name, "lines": 50})
        for name in ("one", "two")
    }
    for name, job_id in jobs.items():
        assert live.ended(job_id)["status"] == "FINISHED"
        for server in live.ids:
            text = output(live, job_id, server).body.decode()
            lines = text.splitlines()
            assert [line for line in lines if line.startswith(name)] == [
                *(f"{name} {number}" for number in range(50)), f"{name} from a thread"]  # fmt: skip
            assert "to stderr" in lines
            assert f"WARNING mine: a line of the log: {name}" in text
            assert ("two" if name == "one" else "one") not in text


def test_the_output_of_a_running_job_is_served_in_ranges(live: Live, context: str, showing: str) -> None:
    job_id = live.start(showing, "showing:reports", context, {"name": "ranges", "task": 0})
    for server in owner_and_other(live, context):
        live.eventually(lambda s=server: output(live, job_id, s).body, lambda body: body == b"before\n")
    live.value(showing, "showing:go", context, {"name": "ranges"})
    live.ended(job_id)
    assert output(live, job_id).body == b"before\nafter\n"
    part = output(live, job_id, Range="bytes=7-9")
    assert (part.status, part.body) == (206, b"aft")
    assert output(live, job_id, Range="bytes=-6").body == b"after\n"
    assert output(live, job_id, Range="bytes=13-").status == 416
    assert output(live, job_id, query="?offset=3&limit=5").body == b"ore\na"
    assert output(live, job_id, query="?offset=-6").body == b"after\n"
    assert output(live, job_id, Range="bytes=x-y").status == 400
    assert live.ask("GET", "/jobs/nothing/log").status == 404


def test_a_failed_job_ends_its_output_with_its_stack(live: Live, context: str, showing: str) -> None:
    job_id = live.start(showing, "showing:talks", context, {"name": "bad", "lines": 1, "fails": True})
    assert live.ended(job_id)["status"] == "ERROR"
    text = output(live, job_id).body.decode()
    assert text.startswith("bad 0\n")
    assert text.rstrip().endswith("ValueError: and then it failed")


def test_output_beyond_the_limit_is_dropped_and_says_so(live: Live, context: str, showing: str) -> None:
    job_id = live.start(showing, "showing:floods", context)
    assert live.ended(job_id)["status"] == "FINISHED"
    body = output(live, job_id).body
    assert 4 * 2**20 < len(body) < 4 * 2**20 + 200
    assert body.endswith(b"is over the limit of 4194304 bytes\n")


def test_output_and_events_outlive_the_driver_and_its_server(live: Live, context: str, showing: str) -> None:
    config = {"name": "outlive", "task": 0}
    job_id = live.start(showing, "showing:reports", context, config)
    owner, other = owner_and_other(live, context)
    watching = Events(live, job_id, other)
    live.eventually(lambda: output(live, job_id, other).body, lambda body: body == b"before\n")
    stored = live.cluster.layout.root
    live.eventually(lambda: list(stored.rglob(f"logs/{job_id}/*/*")), len)
    live.cluster.servers[owner].handle.kill()
    live.eventually(lambda: live.running(context)["owner"], lambda now: now == other)
    os.kill(live.driver(context).pid, signal.SIGKILL)
    live.eventually(
        lambda: output(live, job_id, other).body, lambda body: body.startswith(b"before\nbefore\n")
    )
    live.value(showing, "showing:go", context, config)
    assert watching.ended.wait(90)
    assert watching.states == ["RUNNING", "RESTARTING", "RUNNING", "FINISHED"]
    assert output(live, job_id, other).body == b"before\nbefore\nafter\n"
