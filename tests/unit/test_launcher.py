"""What a driver that is being started hears, by a script in its place."""

import asyncio
import sys

import pytest

from jobserver.contexts.launch_spec import LaunchSpec
from jobserver.contexts.launcher import LauncherSettings, ProcessLauncher
from jobserver.errors import ContextInitFailed
from tests.fakes.cluster import until

DRIVER = f"""#!{sys.executable}
import json, os, signal, sys, time

while not os.path.exists("told"):
    time.sleep(0.01)
heard = []
signal.signal(signal.SIGURG, lambda *_: heard.append("a context waits"))
signal.pthread_sigmask(signal.SIG_UNBLOCK, {{signal.SIGURG}})
os.write(int(sys.argv[-1]), json.dumps({{"error": f"heard {{heard}}"}}).encode())
"""


@pytest.fixture
def launcher(tmp_path):
    return ProcessLauncher(
        LauncherSettings(
            folder=tmp_path / "drivers",
            listen_host="127.0.0.1",
            host="127.0.0.1",
            java="java",
            archive_dir=None,
            checkpoint_root=str(tmp_path),
            hdfs=None,
            cluster="test",
            cluster_secret="",
            orphan_timeout=60.0,
            result_limit=1,
            job_log_limit=1,
            kill_grace=1.0,
            async_interval=1.0,
            async_max_lag=1.0,
            start_timeout=30.0,
        )
    )


async def test_a_driver_hears_that_a_context_waits_though_it_was_told_before_it_listened(launcher, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    script.chmod(0o700)
    starting = asyncio.create_task(launcher.start(LaunchSpec((), "1g", str(script)), warm_up=True))
    await until(lambda: launcher._starting, "its process runs")
    launcher.hurry()
    (folder,) = (tmp_path / "drivers").iterdir()
    (folder / "told").touch()
    with pytest.raises(ContextInitFailed, match="'a context waits'"):
        await starting
