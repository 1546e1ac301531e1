"""`jobserver up`: a whole cluster from one command, and nothing left of it afterwards."""

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from jobserver.local.layout import Layout, read_picture
from jobserver.local.processes import identify, naming, session_of, wait_until
from jobserver.local.up import healthy

STARTED = 60
ENDED = 40


@pytest.fixture
def up(tmp_path, row_of_ports):
    """Starts `jobserver up` on a directory; `.picture` is cluster.json once all servers answer. Ends all of them."""
    running = []

    def begin(folder=tmp_path / "c", servers=2):
        command = [sys.executable, "-m", "jobserver.cli.main", "up", "--dir", folder, "--standby", "cold"]
        command += ["--servers", servers, "--port", row_of_ports(servers)]
        with (tmp_path / "up.log").open("a") as log:
            process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, text=True)
        process.layout = Layout(folder)
        running.append(process)
        known = (tmp_path / "up.log").stat().st_size
        told = lambda: "Ctrl-C ends all of it" in (tmp_path / "up.log").read_text()[known:]  # noqa: E731
        assert wait_until(lambda: told() or process.poll() is not None, STARTED)
        assert process.poll() is None, (tmp_path / "up.log").read_text()
        process.picture = read_picture(process.layout)
        process.told = lambda: (tmp_path / "up.log").read_text()
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.terminate()
            process.wait(ENDED)


def end(process, number=signal.SIGTERM):
    process.send_signal(number)
    return process.wait(ENDED)


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def post(url, body=b"", kind="text/plain"):
    request = urllib.request.Request(url, data=body, headers={"Content-Type": kind}, method="POST")
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_process_and_the_picture(up, number):
    process = up()
    pids = [server.pid for server in process.picture.servers]
    assert len(naming(process.layout.root)) >= 3  # two servers and ZooKeeper
    assert end(process, number) == 0
    assert naming(process.layout.root) == []
    assert [identify(pid) for pid in pids] == [None, None]
    assert not process.layout.picture.exists()


def test_every_server_answers_once_the_picture_is_there(up):
    process = up()
    assert [server.id for server in process.picture.servers] == ["s1", "s2"]
    assert all(healthy(server.url) for server in process.picture.servers)
    seen = get(process.picture.servers[1].url + "/cluster")
    assert {(s["id"], s["url"], s["pid"]) for s in seen["servers"]} == {
        (s.id, s.url, s.pid) for s in process.picture.servers
    }


def test_a_directory_of_a_living_up_is_refused(up, tmp_path):
    process = up()
    again = subprocess.run(
        [sys.executable, "-m", "jobserver.cli.main", "up", "--dir", process.layout.root, "--port", "17990"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 1
    assert again.stderr == f"{process.layout.root} is in use by another `jobserver up` that is running.\n"
    assert healthy(process.picture.servers[0].url)


def test_what_a_killed_up_has_left_is_ended_by_the_next_one_in_the_directory(up):
    first = up()
    end(first, signal.SIGKILL)
    assert len(naming(first.layout.root)) >= 3  # two servers and ZooKeeper live on
    second = up(first.layout.root)
    assert all(healthy(server.url) for server in second.picture.servers)
    assert not {server.pid for server in first.picture.servers} & {p.pid for p in naming(first.layout.root)}
    assert "Ended what a killed `jobserver up` had left" in second.told()


def test_a_server_that_dies_is_told_and_not_started_again(up):
    process = up()
    os.kill(process.picture.servers[0].pid, signal.SIGKILL)
    assert wait_until(lambda: "Server s1 has ended (killed by SIGKILL)" in process.told(), 10)
    assert process.poll() is None
    assert healthy(process.picture.servers[1].url)
    assert not healthy(process.picture.servers[0].url)


def test_up_ends_when_its_last_server_has_ended(up):
    process = up(servers=1)
    os.kill(process.picture.servers[0].pid, signal.SIGKILL)
    assert process.wait(ENDED) == 1
    assert naming(process.layout.root) == []


def test_a_reused_directory_has_its_binaries_still(up):
    first = up(servers=1)
    code = b"def f(spark, env, config):\n    return 1\n"
    assert post(first.picture.servers[0].url + "/binaries/kept", code, "text/x-python") == 201
    end(first)
    second = up(first.layout.root, servers=1)
    assert list(get(second.picture.servers[0].url + "/binaries")) == ["kept"]


def test_nothing_is_left_of_a_driver_its_jvm_and_its_workers(up):
    process = up()
    url = process.picture.servers[0].url
    assert post(url + "/contexts/c1") == 200
    (context,) = get(url + "/cluster")["contexts"]
    driver = identify(context["driver"]["pid"])
    members = session_of(driver)
    assert context["driver"]["jvm_pid"] in [each.pid for each in members]
    assert end(process) == 0
    assert [each for each in members if identify(each.pid) == each] == []
    assert session_of(driver) == []
