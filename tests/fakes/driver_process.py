"""A driver process without Spark, started as a real one is: for tests of real servers that need no JVM.

Jobs: `t.Answer` returns 1 at once, `t.Wait` returns "waited" after a second and a half.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from dataclasses import replace
from pathlib import Path

from jobserver.driver.lifetime import Lifetime
from jobserver.model import AttemptRef, OutcomeKind
from jobserver.processes import own_start_ticks
from jobserver.protocol import Message
from tests.fakes.driver import FakeDriver

WAIT = 1.5
LOOK = 0.25


class ProcessDriver(FakeDriver):
    """Ends its process where the other fakes only close their sockets."""

    def kill(self) -> None:
        os._exit(0)

    def connected(self) -> bool:
        """Whether any server is connected."""
        return bool(self._writers)

    def _on_run(self, message: Message, writer: asyncio.StreamWriter) -> Message | None:
        main = message["main_class"]
        reply = super()._on_run({**message, "main_class": "answer:1" if main == "t.Answer" else main}, writer)
        if main == "t.Wait":
            attempt = AttemptRef(message["job_id"], message["attempt"])
            asyncio.get_running_loop().call_later(WAIT, self._waited, attempt)
        return reply

    def _waited(self, attempt: AttemptRef) -> None:
        if self.jobs.get(attempt, 0) is None:
            self._end(attempt, OutcomeKind.FINISHED, '"waited"')

    def _answer(self, message: Message, writer: asyncio.StreamWriter) -> None:
        self.heard_at = time.monotonic()
        super()._answer(message, writer)


async def live(config: dict[str, object], ready: int) -> None:
    """Until nobody needs it."""
    driver = ProcessDriver(os.getpid())
    driver.heard_at = time.monotonic()
    driver.record = replace(driver.record, driver_id=str(config["driver_id"]), secret=str(config["secret"]))
    await driver.start()
    line = {
        "host": "127.0.0.1",
        "port": driver.record.port,
        "pid": os.getpid(),
        "pid_started": own_start_ticks(),
    }
    with os.fdopen(ready, "w") as pipe:
        pipe.write(json.dumps(line) + "\n")
    now = time.monotonic()
    lifetime = Lifetime(float(str(config["orphan_timeout"])), 5.0, now, now)
    while True:
        await asyncio.sleep(LOOK)
        active = driver.context_id is not None
        lifetime.last_heard = max(lifetime.last_heard, driver.heard_at)
        if lifetime.reason_to_end(time.monotonic(), active, driver.connected()):
            os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", dest="module")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--ready-fd", type=int)
    options = parser.parse_args()
    asyncio.run(live(json.loads(options.config.read_text()), options.ready_fd))


if __name__ == "__main__":
    main()
