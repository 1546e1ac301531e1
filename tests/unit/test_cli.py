"""The commands: what they print, how they end, and how they ask a cluster that is failing over."""

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from jobserver.cli import db, demo, demo_steps, status
from jobserver.cli.client import Client
from jobserver.cli.demo_steps import Cluster, StepFailed
from jobserver.cli.up import Stopped, base_sections, ending_signals, ignoring_signals
from jobserver.errors import BadRequest, LocalPartFailed, SettingsRefused, Unavailable, WrongSchema
from jobserver.local.layout import ClusterPicture, Layout, ServerPicture, write_picture
from jobserver.local.ports import free_ports
from jobserver.settings.document import default_file


def jobserver(*words):
    return subprocess.run(
        [sys.executable, "-m", "jobserver.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def service(tmp_path):
    """An HTTP service that gives the prepared answers, one after another, and notes what it was asked."""
    answers, asked = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.path, dict(self.headers), body))
            code, answer = answers.pop(0)
            if code is None:
                return  # the connection closes without an answer, as when a server is killed
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.answers, server.asked = answers, asked
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def cluster(service, tmp_path):
    """The demo's view of a cluster whose only server is the prepared service."""
    servers = (ServerPicture("s1", service.url, os.getpid()),)
    write_picture(Layout(tmp_path), ClusterPicture(servers, "z", "d", "c"))
    return Cluster(Layout(tmp_path), tmp_path)


PICTURE = {
    "servers": [
        {"id": "s1", "url": "http://a:1", "pid": 11, "state": "alive"},
        {"id": "s2", "url": "http://a:2", "pid": 12, "state": "draining"},
    ],
    "leader": "s2",
    "contexts": [
        {
            "name": "demo",
            "id": "x",
            "state": "RUNNING",
            "epoch": 3,
            "owner": "s1",
            "driver": {"host": "a", "pid": 21, "jvm_pid": 22},
            "standbys": [{"server": "s2", "mode": "hot"}],
            "last_failover": {"at": "2026-01-31T12:00:00Z", "kind": "adopted", "seconds": 0.213},
        }
    ],
}


def cells(table):
    return [list(column.cells) for column in table.columns]


def test_a_good_settings_file_is_called_good(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("ha: {claim_stagger: 50ms}\n")
    done = jobserver("config", "check", file)
    assert (done.returncode, done.stdout) == (0, f"{file} is good.\n")


def test_a_bad_settings_file_is_refused_with_its_sentences_and_no_stack(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("ha: {claim_stager: 50ms}\n")
    for command in (("config", "check", file), ("serve", "--config", file), ("up", "--config", file)):
        done = jobserver(*command)
        assert done.returncode == 1
        assert done.stderr == "ha.claim_stager is not a setting; did you mean ha.claim_stagger?\n"


def test_the_default_settings_file_can_be_printed():
    assert jobserver("config", "default").stdout == default_file()


def test_the_command_starts_without_loading_what_it_does_not_need():
    code = (
        "import sys, jobserver.cli.main;"
        "print([m for m in ('aiohttp', 'sqlalchemy', 'pydantic', 'kazoo', 'pyspark') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_schema_is_made_and_told(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(f"database: {{url: 'sqlite:///{tmp_path}/j.db'}}\n")
    with pytest.raises(WrongSchema, match="jobserver db upgrade"):
        db.check(file)
    assert "no tables yet" in db.current(file)
    assert "at revision" in db.upgrade(file)
    assert "at revision" in db.current(file)
    assert "as this version needs it" in db.check(file)


def test_status_of_nobody_is_one_sentence():
    port = free_ports(1)[0]
    done = jobserver("status", "--url", f"http://127.0.0.1:{port}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"http://127.0.0.1:{port} does not answer: ")
    assert done.stderr.count("\n") == 1


def test_status_as_json_is_the_answer_as_it_is(service):
    service.answers.append((200, PICTURE))
    done = jobserver("status", "--json", "--url", service.url)
    assert json.loads(done.stdout) == PICTURE


def test_status_shows_leader_owner_driver_standbys_and_the_last_failover():
    servers, contexts = cells(status.servers_table(PICTURE)), cells(status.contexts_table(PICTURE))
    assert servers[0] == ["s1", "s2"]
    assert servers[4] == ["", "yes"]
    assert [column[0] for column in contexts] == [
        "demo",
        "RUNNING",
        "3",
        "s1",
        "a pid 21 (JVM 22)",
        "s2 (hot)",
        "adopted in 0.21 s, 2026-01-31T12:00:00Z",
    ]


def test_status_shows_dashes_for_what_a_starting_context_does_not_have():
    empty = {"name": "x", "state": "STARTED", "epoch": 0, "owner": None, "driver": None, "standbys": []}
    contexts = cells(status.contexts_table({"contexts": [{**empty, "last_failover": None}]}))
    assert [column[0] for column in contexts] == ["x", "STARTED", "0", "-", "-", "-", "-"]


def test_a_refused_picture_is_an_error_with_its_status(service):
    service.answers.append((503, {"status": "ERROR", "result": "no"}))
    with pytest.raises(Unavailable, match="answers 503 to GET /cluster"):
        status.cluster_picture(Client(service.url))


@pytest.mark.parametrize("url", ["127.0.0.1:8090", "https://a", "", "http://"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(BadRequest, match="is not the address of a server"):
        Client(url).get("/x")


def test_a_job_is_repeated_with_the_same_key_while_the_service_asks_for_it(service, cluster):
    service.answers += [(503, {"result": "later"}), (None, None), (200, {"jobId": "j", "result": [1]})]
    assert cluster.run("b", "m:f", {"a": 1}) == [1]
    keys = {headers["Idempotency-Key"] for _, headers, _ in service.asked}
    assert len(service.asked) == 3
    assert len(keys) == 1
    assert service.asked[0][0].startswith("/jobs?cp=b&mainClass=m%3Af&context=demo&sync=true")


def test_a_job_that_fails_is_not_repeated(service, cluster):
    service.answers.append((200, {"jobId": "j", "status": "ERROR", "result": {"message": "boom"}}))
    with pytest.raises(StepFailed, match="boom"):
        cluster.run("b", "m:f", {})
    assert len(service.asked) == 1


def test_a_wrong_answer_makes_a_step_fail_with_both_values(service, cluster):
    cluster.totals = {"north": 1}
    service.answers.append((200, {"jobId": "j", "result": {"north": 2}}))
    with pytest.raises(StepFailed, match=r"expected \{'north': 1\}, got \{'north': 2\}"):
        demo_steps.query(cluster)


def test_a_driver_that_is_the_same_after_its_kill_makes_a_step_fail():
    context = {"driver": {"pid": 5}}
    with pytest.raises(StepFailed, match="pid 5"):
        demo_steps._replaced(context, context)


def test_an_epoch_that_did_not_grow_makes_a_step_fail():
    context = {"epoch": 2, "owner": "s1"}
    with pytest.raises(StepFailed, match="the epoch did not grow"):
        demo_steps._moved(context, context)


def test_what_goes_wrong_in_a_step_is_its_result(cluster):
    def broken(_):
        raise StepFailed("no")

    result = demo.timed("a step", broken, cluster)
    assert (result.good, result.note) == (False, "no")
    assert cells(demo.table([result]))[2] == ["NO"]


def test_the_demo_refuses_a_directory_with_the_data_of_another_cluster(tmp_path):
    (tmp_path / "jobserver.db").touch()
    with pytest.raises(LocalPartFailed, match="needs an empty directory"):
        demo.run(tmp_path, 3, 18000, None, keep=False)


def test_the_standby_option_goes_over_the_settings_file(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("ha: {standby: hot, claim_stagger: 50ms}\n")
    assert base_sections("cold", file) == {"ha": {"standby": "cold", "claim_stagger": "50ms"}}
    assert base_sections(None, file)["ha"]["standby"] == "hot"
    assert base_sections(None, None) == {}


def test_settings_are_checked_before_anything_is_started(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("driver: {warm_drivers: 0}\n")
    with pytest.raises(SettingsRefused, match="none would ever be ready"):
        base_sections("warm", file)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_that_asks_for_the_end_ends_the_command_the_same_way(number):
    with pytest.raises(Stopped), ending_signals():
        signal.raise_signal(number)


def test_a_second_signal_does_not_disturb_the_cleaning_up():
    with ending_signals(), ignoring_signals():
        signal.raise_signal(signal.SIGINT)
