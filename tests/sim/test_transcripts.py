"""Failovers told as texts are still true. `REWRITE_TRANSCRIPTS=1` writes them anew: read the difference."""

import os
from pathlib import Path

import pytest

from tests.sim.transcript import play, transcripts

FOLDER = Path(__file__).parent.parent / "transcripts"
TEXTS = transcripts(FOLDER)


def test_there_are_at_least_twelve_named_failovers():
    assert len(TEXTS) >= 12


@pytest.mark.parametrize("name", TEXTS)
def test_it_happens_as_it_is_told(name):
    path = TEXTS[name]
    now = play(path.read_text())
    assert now == play(now), "what is told depends on chance"
    if os.environ.get("REWRITE_TRANSCRIPTS") == "1":
        path.write_text(now)
    assert path.read_text() == now


@pytest.mark.parametrize("name", TEXTS)
def test_no_told_failover_breaks_a_promise(name):
    text = TEXTS[name].read_text()
    assert text.rstrip().endswith("end\n----\n  every promise was kept")
    assert text.startswith("# ")
