"""The old writer of a race, as a process of its own: begins epoch 1 of each context that it is told, commits until it may not.

Reads `<context>` lines; answers `began`, then `ack <name>` for each commit that was acknowledged, then `superseded`.
"""

from __future__ import annotations

import sys

from checkpoint.epoch import begin_epoch
from checkpoint.errors import StoreUnavailable, Superseded
from checkpoint.files import FileStore
from checkpoint.manifest import Kind, NamedObject
from checkpoint.stores import HdfsAccess, open_store
from checkpoint.writer import Changes, CheckpointWriter

SECRET = b"secret"


def race(files: FileStore, context_id: str) -> None:
    base = begin_epoch(files, context_id, 1, "old", SECRET)
    writer = CheckpointWriter(files, context_id, 1, "old", base, SECRET)
    say("began")
    for number in range(10_000):
        item = NamedObject(f"o{number}", Kind.VALUE, "v", "materialize", "sync", inline=b"x")
        try:
            writer.commit(Changes(put=[item]))
        except Superseded:
            break
        except StoreUnavailable:
            continue
        say(f"ack o{number}")
    say("superseded")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    store = open_store(sys.argv[1], "race", HdfsAccess((sys.argv[2],)))
    for line in sys.stdin:
        race(store, line.strip())
