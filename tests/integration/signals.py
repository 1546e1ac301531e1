"""What befalls processes of a live cluster: killed, or frozen for a while."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3

from live_cluster import Live

from jobserver.local.processes import ProcessId, identify


def kill_server(live: Live, server: str) -> None:
    """SIGKILL; returns when the process is gone."""
    child = live.cluster.servers[server]
    child.handle.kill()
    child.handle.wait()


def other_than(live: Live, *servers: str) -> str:
    """A running server that is none of these."""
    return next(server for server in live.ids if server not in servers)


def process(pid: int) -> ProcessId:
    """The living process of that pid."""
    found = identify(pid)
    assert found is not None, f"process {pid} has ended"
    return found


def freeze_between_writes(live: Live, pid: int) -> None:
    """Stops a server, but not inside a transaction of SQLite: its lock on the file would last as long as the freeze.

    SQL servers end the connections of a frozen owner; with SQLite nobody can.
    """
    for _ in range(100):
        os.kill(pid, signal.SIGSTOP)
        with contextlib.closing(sqlite3.connect(live.cluster.layout.root / "jobserver.db", timeout=1)) as sql:
            try:
                sql.execute("begin immediate")
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
            else:
                return
    raise AssertionError("the server could not be stopped outside of a transaction")
