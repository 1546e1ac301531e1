"""Two processes race on a real HDFS: one commits, the other begins the next epoch somewhere in between."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from racing_writer import SECRET

from checkpoint import catalog
from checkpoint.epoch import begin_epoch
from checkpoint.stores import HdfsAccess, open_store
from jobserver.local.hdfs import LocalHdfs

ROUNDS = 20
SPREAD = 0.013
"""Seconds by which the new owner of each round comes later than that of the round before: through a whole commit."""


@pytest.fixture
def writer(hdfs: LocalHdfs) -> Iterator[subprocess.Popen[str]]:
    module = Path(__file__).with_name("racing_writer.py")
    process = subprocess.Popen(
        [sys.executable, str(module), f"{hdfs.url}/races", hdfs.web_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def test_what_the_old_writer_was_told_is_durable_is_in_the_base_of_the_new_owner_in_every_round(
    hdfs: LocalHdfs, writer: subprocess.Popen[str]
) -> None:
    files = open_store(f"{hdfs.url}/races", "race", HdfsAccess((hdfs.web_url,)))
    assert writer.stdin is not None
    assert writer.stdout is not None
    acknowledged, refused = 0, 0
    for number in range(ROUNDS):
        context = f"round-{number}"
        writer.stdin.write(f"{context}\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "began\n"
        first = writer.stdout.readline()  # the race is on
        time.sleep(number * SPREAD % 0.1)
        base = begin_epoch(files, context, 2, "new", SECRET)
        told = [first, *iter(writer.stdout.readline, "superseded\n")]
        names = {line.split()[1] for line in told if line.startswith("ack ")}
        assert names, told
        assert names <= set(base.objects), (
            f"{context}: {names - set(base.objects)} was acknowledged and is not there"
        )
        assert base.damaged == ()
        acknowledged += len(names)
        sealed = [
            name for name in catalog.find(files, context, SECRET).manifests if name.startswith(f"{1:012d}")
        ]
        refused += len(sealed) - 1 - len(names)
    assert acknowledged >= ROUNDS
    assert refused > 0, "no round came between a seal and its acknowledgement: this test proves nothing"
