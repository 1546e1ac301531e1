"""``python -m jobserver.driver --config FILE --ready-fd N``: the life of a driver process, from start to end."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jobserver.driver import archive, forks, jobthreads, output, waits
from jobserver.driver.config import BrokenConfig, DriverConfig
from jobserver.driver.courtesy import Courtesy
from jobserver.driver.java import find_java
from jobserver.driver.job_log import job_log_handler, worth_telling
from jobserver.driver.jvm import Jvm, JvmFailed
from jobserver.driver.lifetime import Lifetime
from jobserver.driver.listener import Listener
from jobserver.driver.startup import read_config, start_spark_jvm, write_private
from jobserver.protocol import HURRY

log = logging.getLogger("jobserver.driver")

JVM_DIED = 70
"""Exit code when the JVM ended by itself."""
JVM_PATIENCE = 5.0
"""Seconds for the JVM to end by itself."""
FLUSH_LIMIT = 30.0
"""Seconds for async objects to be sealed at a planned end."""
LOGS_LIMIT = 3.0
"""Seconds for the output of jobs to be stored at the end."""
TICK = 0.5
MARKERS_EVERY = 2.0
JVM_ASKED_EVERY = 1.0
REFUSALS = 3
"""Calls that the JVM may refuse one after the other until its gateway counts as closed."""


class Ending:
    """The one way to a clean end: whoever asks first gives the reason; the main thread carries it out."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.reason = ""

    def ask(self, reason: str) -> None:
        """Begin the end."""
        self.reason = self.reason or reason
        self._asked.set()

    def wait(self, seconds: float) -> bool:
        """Whether it was asked for."""
        return self._asked.wait(seconds)


def main() -> None:
    """Start, tell the server, serve until the end is asked for."""
    parser = argparse.ArgumentParser(prog="jobserver.driver")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int, default=1)
    options = parser.parse_args()
    output.keep_open()
    logging.basicConfig(
        stream=output.log_stream(),
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(threadName)s %(message)s",
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(worth_telling)
    logging.getLogger().addHandler(job_log_handler())
    logging.raiseExceptions = False  # what a job does to the log's stream must not fail who logs
    ending = Ending()
    signal.signal(signal.SIGTERM, lambda *_: ending.ask("SIGTERM"))
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    try:
        config = read_config(options.config)
        serve(config, options, ending)
    except (BrokenConfig, JvmFailed, OSError) as error:
        fail(options.ready_fd, str(error))
    except Exception as error:
        # Spark's own failures have no common class; whatever it is, the server must hear of it
        log.exception("the driver could not start")
        fail(options.ready_fd, f"{type(error).__name__}: {error}")


def serve(config: DriverConfig, options: argparse.Namespace, ending: Ending) -> None:
    """Everything between a good configuration and the end of the process."""
    listener = Listener(
        config.bind_host, config.secret
    )  # early: a connection may wait for us, not the other way
    courtesy = Courtesy()
    if config.warm_up:
        # not in the main thread, which may be in the middle of a change
        hurry = partial(threading.Thread, target=courtesy.end, name="hurry", daemon=True)
        signal.signal(HURRY, lambda *_: hurry().start())
        courtesy.begin()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {HURRY})  # whoever starts a driver blocks it until here
    jvm = start_spark_jvm(config)
    jvm.watch(
        lambda code: leave(0 if ending.reason else JVM_DIED, ending.reason or f"the JVM ended with {code}")
    )
    importlib.import_module(
        "jobserver.driver.commands"
    )  # all imports, Spark's first, happen while the JVM starts
    from jobserver.driver.spark import check_user, connect

    spark = connect(jvm, config)
    check_user(spark, config.proxy_user)
    jobthreads.install()
    waits.install()
    run(config, options, ending, listener, jvm, spark, courtesy)


def run(
    config: DriverConfig,
    options: argparse.Namespace,
    ending: Ending,
    listener: Listener,
    jvm: Jvm,
    spark: Any,
    courtesy: Courtesy,
) -> None:
    """Serve requests until the end."""
    from jobserver.driver import callbacks
    from jobserver.driver.commands import Commands
    from jobserver.driver.driver import Driver
    from jobserver.driver.sessions import install_patches
    from jobserver.driver.spark import shut_down, spark_runs

    sys.setswitchinterval(
        0.001
    )  # a job that computes in Python holds up the answers of others no longer than this
    install_patches(spark)
    callbacks.install(spark)
    now = time.monotonic()
    driver = Driver(config, spark, Lifetime(config.orphan_timeout, config.unbound_timeout, now, now))
    silence = watch_spark(lambda: spark_runs(spark), ending.ask)
    forks.install(spark.context._gateway._gateway_client, lambda: let_go(listener, jvm))
    driver.end = ending.ask
    driver.hurry = courtesy.end if config.warm_up else jvm.optimizer.activated
    driver.yield_more, driver.yield_less = courtesy.resume, courtesy.pause
    driver.rehearsal.warmed = courtesy.resume
    listener.serve(Commands(driver, ending.ask, jvm.process.pid, silence).received)
    facts = process_facts(config, listener.port, jvm, spark)
    write_private(config.dir / "driver.json", json.dumps(facts))
    driver.lifetime.heard(time.monotonic())
    if config.warm_up:
        driver.rehearsal.begin()
    tell_server(options.ready_fd, facts)
    maker = make_archive_beside(config, options.config)
    live(driver, listener, ending)
    log.info("ending: %s", ending.reason)
    driver.rehearsal.end()
    driver.logs.flush(LOGS_LIMIT)
    if ending.reason == "switchover":
        driver.flush(FLUSH_LIMIT)
    threading.Thread(target=lambda: shut_down(spark.context), name="spark-stop", daemon=True).start()
    jvm.end(JVM_PATIENCE)
    if maker is not None:
        maker.kill()
    leave(0, ending.reason)


def live(driver: Any, listener: Listener, ending: Ending) -> None:
    """Watch whether anybody still needs this driver, and whether it was superseded, until it is to end."""
    from jobserver.driver.binding import Role

    # in a thread of its own: a store that hangs is neither a freeze of this process nor a reason to live on
    threading.Thread(target=watch_markers, args=(driver, ending), name="markers", daemon=True).start()
    while not ending.wait(TICK):
        now = time.monotonic()
        active = driver.binding.role is Role.ACTIVE
        reason = driver.lifetime.reason_to_end(now, active, listener.connected)
        if reason is not None:
            ending.ask(reason)


def watch_markers(driver: Any, ending: Ending) -> None:
    """Look every few seconds whether a driver that may have been replaced was, and ask for its end then."""
    from jobserver.driver.binding import Role

    while not ending.wait(MARKERS_EVERY):
        try:
            active = driver.binding.role is Role.ACTIVE
            if active and (driver.streaming.any or not driver.has_owner):
                reason = driver.check_markers()
                if reason is not None:
                    ending.ask(reason)
        except Exception:
            # nothing is proven by it, and the watch must go on
            log.exception("the markers could not be looked at")


def watch_spark(runs: Callable[[], bool], end: Callable[[str], None]) -> Callable[[], float]:
    """Ask Spark every few seconds whether it runs; without it this driver is of no use and ends.

    Answers how many seconds ago the JVM answered last: one that is frozen is the owner's to judge.
    """
    from py4j.protocol import Py4JError

    last = [time.monotonic()]

    def ask() -> None:
        refusals = 0
        while refusals < REFUSALS:
            try:
                if not runs():
                    end("Spark was stopped")
                    return
                last[0], refusals = time.monotonic(), 0
            except (Py4JError, OSError) as error:
                refusals += 1
                log.warning("the JVM does not take a call: %s", error)
            time.sleep(JVM_ASKED_EVERY)
        end("the JVM takes no calls any more")

    threading.Thread(target=ask, name="jvm-asked", daemon=True).start()
    return lambda: max(time.monotonic() - last[0] - JVM_ASKED_EVERY, 0.0)


def make_archive_beside(config: DriverConfig, config_file: Path) -> Any:
    """Start making the class-data archive if it is wanted and missing; later starts then use it."""
    path = archive.path_for(config, find_java(config))
    if path is None or path.exists():
        return None
    return archive.start_maker(config_file, config.dir)


def let_go(listener: Listener, jvm: Jvm) -> None:
    """In a forked child: close its copies of what tells others that the driver lives."""
    listener.let_go()
    if jvm.process.stdin is not None:
        jvm.process.stdin.close()


def process_facts(config: DriverConfig, port: int, jvm: Jvm, spark: Any) -> dict[str, Any]:
    """What the server records, enough to find this process and to tell it from a later one with its pid."""
    return {
        "host": config.reached_at,
        "port": port,
        "pid": os.getpid(),
        "pid_started": start_ticks(os.getpid()),
        "jvm_pid": jvm.process.pid,
        "application_id": spark.application_id,
        "ui_url": spark.ui_url,
    }


def start_ticks(pid: int) -> int:
    """When the kernel started the process, in clock ticks since boot."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19])


def tell_server(descriptor: int, message: dict[str, Any]) -> None:
    """Write the one line to the ready descriptor and close it."""
    with (
        contextlib.suppress(OSError),
        os.fdopen(descriptor, "w") as ready,
    ):  # nobody listens: nothing to be done
        ready.write(json.dumps(message) + "\n")


def fail(descriptor: int, why: str) -> None:
    """Tell the server that there will be no driver, and end; the kernel ends the JVM with us."""
    log.error("the driver could not start: %s", why)
    tell_server(descriptor, {"error": why})
    leave(1, "failed to start")


def leave(code: int, reason: str) -> None:
    """End this process at once, whatever its threads do."""
    try:
        log.info("leaving with %d: %s", code, reason)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # jobs may have done anything to these streams
        os._exit(code)


if __name__ == "__main__":
    main()
