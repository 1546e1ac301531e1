"""Whether the checkpoint store takes data, looked for now and then: one that is full, or that refuses writes, still lists.

A look writes, reads and removes a file of a few bytes. It belongs to no request: who asks for a server's health is told what
the last look found. There is one look at a time; of one that does not end that is told, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable

from checkpoint import layout
from checkpoint.errors import CheckpointError
from checkpoint.files import FileStore

log = logging.getLogger(__name__)

EVERY = 60.0
"""Seconds between two looks."""
AGAIN = 10.0
"""Seconds between two looks while there is trouble."""
PATIENCE = 15.0
"""Seconds after which a look that has not ended is trouble."""
CONTENT = b"written to see whether the store takes data\n"
_SO = "updates of named data, large results and uploads fail"


class WriteWatch:
    """One per server, `me`: its files lie in a folder of its own, so whatever a look had to leave goes with the next."""

    def __init__(self, files: FileStore, me: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._folder = layout.probe_folder(me)
        self._clock = clock
        self._found: str | None = None
        self._begun: float | None = None

    def trouble(self) -> str | None:
        """Why the store takes no data, in one sentence; None while it does, and before the first look has ended."""
        begun = self._begun
        waited = 0.0 if begun is None else self._clock() - begun
        if waited > PATIENCE:
            return f"the checkpoint store has not taken a small file for {waited:.0f} s: updates of named data wait or fail"
        return self._found

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                # a watch that ended for good would call the store well for ever
                log.exception("whether the checkpoint store takes data could not be looked at")
            await asyncio.sleep(EVERY if self._found is None else AGAIN)

    async def look(self) -> None:
        """One look. A store that hangs holds up a thread, and whoever waits for this."""
        before, self._begun = self._found, self._clock()
        try:
            self._found = await asyncio.to_thread(self._try)
        finally:
            self._begun = None
        if self._found is not None and before is None:
            log.warning("%s", self._found)
        elif self._found is None and before is not None:
            log.info("the checkpoint store takes data again")

    def _try(self) -> str | None:
        path = f"{self._folder}/{uuid.uuid4().hex}"
        try:
            self._files.write_new(path, CONTENT)
            read = self._files.read(path)
            self._files.remove(self._folder)
        except CheckpointError as error:
            with contextlib.suppress(CheckpointError):  # a few bytes, for the next look
                self._files.remove(self._folder)
            return f"the checkpoint store takes no data: {_SO} ({error})"
        if read != CONTENT:
            return f"the checkpoint store gives back other bytes than were written: {_SO}, or are damaged"
        return None
