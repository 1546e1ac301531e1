"""Processes are known by pid and start time, and ended for certain, with all they have started."""

import os
import signal
from pathlib import Path

import pytest

from jobserver.errors import LocalPartFailed
from jobserver.local.ports import busy_ports, free_ports
from jobserver.local.processes import (
    ProcessId,
    alive,
    end_all,
    end_children,
    identify,
    naming,
    send,
    session_of,
    start,
    wait_until,
)


@pytest.fixture
def shell(tmp_path):
    """Starts a shell script that makes the file `ready` when it is; everything in its session ends with the test."""
    children = []

    def begin(script):
        ready = tmp_path / f"ready{len(children)}"
        command = ["/bin/sh", "-c", script.format(ready=f": > {ready}")]
        child = start("a shell", command, log=tmp_path / "log", cwd=tmp_path, env=os.environ)
        children.append(child)
        assert wait_until(lambda: ready.exists() or not child.running, 10)
        return child

    yield begin
    for child in children:
        for member in session_of(child.id):
            send(member, signal.SIGKILL)
        child.handle.wait()


def test_a_process_is_recognised_and_its_end_too(shell):
    child = shell("{ready}; sleep 60")
    assert identify(child.id.pid) == child.id
    child.handle.kill()
    child.handle.wait()
    assert identify(child.id.pid) is None
    assert not alive(child.id)


def test_a_zombie_counts_as_ended(shell):
    child = shell("{ready}")
    assert wait_until(lambda: not alive(child.id), 10)  # nobody has reaped it yet


def test_a_process_with_the_same_pid_and_another_start_is_never_signalled(shell):
    child = shell("{ready}; sleep 60")
    stranger = ProcessId(child.id.pid, child.id.started - 1)
    assert not alive(stranger)
    assert not send(stranger, signal.SIGKILL)
    assert end_all([stranger], grace=0) == []
    assert child.running


def test_a_process_is_asked_to_end_before_it_is_killed(shell):
    child = shell("trap 'exit 7' TERM; {ready}; while :; do sleep 0.01; done")
    end_children([child], grace=10)
    assert child.handle.returncode == 7


def test_a_process_that_does_not_listen_is_killed_after_the_grace(shell):
    child = shell("trap '' TERM; {ready}; while :; do sleep 0.01; done")
    end_children([child], grace=0.1)
    assert child.handle.returncode == -signal.SIGKILL


def test_a_frozen_process_is_ended_too(shell):
    child = shell("{ready}; sleep 60")
    send(child.id, signal.SIGSTOP)
    stat = Path(f"/proc/{child.id.pid}/stat")
    assert wait_until(
        lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", 5
    )  # the signal takes its time
    end_children([child], grace=0.1)
    assert child.handle.returncode == -signal.SIGKILL


def test_a_session_is_its_leader_and_all_it_has_started(shell):
    child = shell("sleep 60 & sleep 61 & {ready}; wait")
    members = session_of(child.id)
    assert len(members) == 3
    assert child.id in members


def test_what_a_dead_leader_has_left_behind_is_found(shell):
    child = shell("sleep 60 & {ready}; wait")
    before = set(session_of(child.id))
    child.handle.kill()
    child.handle.wait()
    left = session_of(child.id)
    assert set(left) == before - {child.id}
    assert end_all(left, grace=5) == []
    assert session_of(child.id) == []


def test_a_session_of_another_process_with_the_same_pid_is_not_ours(shell):
    child = shell("{ready}; sleep 60")
    assert session_of(ProcessId(child.id.pid, child.id.started - 1)) == []


def test_processes_are_found_by_a_folder_in_their_arguments(shell, tmp_path):
    child = shell(f"{{ready}}; exec tail -f {tmp_path}/deep/none /dev/null")
    assert wait_until(lambda: naming(tmp_path / "deep") == [child.id], 10)
    assert naming(tmp_path / "dee") == []


def test_a_command_that_does_not_exist_is_one_sentence(tmp_path):
    with pytest.raises(LocalPartFailed, match=r"^ZooKeeper cannot be started: .*no-such-command"):
        start("ZooKeeper", ["/no-such-command"], log=tmp_path / "log", cwd=tmp_path, env={})


def test_the_last_words_of_a_process_are_the_end_of_its_log(shell):
    child = shell("echo one; echo two >&2; {ready}")
    child.handle.wait()
    assert child.last_words(lines=1) == "two"
    assert child.last_words() == "one\ntwo"


def test_free_ports_differ_and_can_be_listened_on():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert busy_ports(ports) == []


def test_a_port_that_is_listened_on_is_busy():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert busy_ports([*free_ports(1), taken]) == [taken]
