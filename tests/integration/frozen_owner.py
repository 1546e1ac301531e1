"""An owner that stops in the middle of a transaction, with locks on its fence and a job; then it goes on.

Its argument is the address of the metadata. Prints `holds` before it stops; afterwards how the write ended, and whether
its next one was done.
"""

import asyncio
import os
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from sqlalchemy import Connection

from jobserver.errors import JobServerError
from jobserver.model import AttemptOutcome, ContextRecord, ContextState, Fence, JobRecord, JobSpec, JobState
from jobserver.model import OutcomeKind as Kind
from jobserver.store.metadata import Metadata

GOES_ON = threading.Event()
T0 = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def hold(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT epoch FROM fences WHERE context_id = 'c1' LOCK IN SHARE MODE")
    connection.exec_driver_sql("UPDATE jobs SET state = 'ERROR' WHERE id = 'j1'")
    print("holds", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    GOES_ON.wait()  # the signal reaches the other threads first: this one must not run on to its commit


async def main(url: str) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGCONT, GOES_ON.set)
    store = await Metadata.open(url, timeout=60)
    await store.create_context(ContextRecord("c1", "ctx", {}, ContextState.STARTED, False, T0))
    assert await store.grant("c1", 0, "s1", "i1", "t1")
    fence = Fence("c1", 1, "t1")
    await store.insert_job(JobRecord("j1", "c1", "ctx", JobSpec("d", ()), JobState.QUEUED, T0), queue_limit=9)
    assert await store.start_attempt(fence, "j1", 1, T0)
    try:
        await store._database.write(hold)
        ended = "done"
    except JobServerError as error:
        ended = type(error).__name__
    again = await store.finish_job(fence, AttemptOutcome("j1", 1, Kind.FINISHED, "2"), JobState.FINISHED, T0)
    print(ended, again, flush=True)
    await store.close()


asyncio.run(main(sys.argv[1]))
