"""Fail points are for tests: a server that was told of one by mistake does not start."""

import subprocess
import sys

import pytest

from jobserver.contexts.fail_points import ALLOWED, AT, EXIT_CODE, SWITCH, Point, from_environment, nowhere
from jobserver.errors import SettingsRefused


def test_without_the_variable_nothing_happens_anywhere():
    assert from_environment({}) is nowhere
    assert from_environment({SWITCH: ALLOWED}) is nowhere


@pytest.mark.parametrize("switch", [{}, {SWITCH: ""}, {SWITCH: "1"}])
def test_a_fail_point_without_the_clear_switch_is_refused(switch):
    with pytest.raises(SettingsRefused, match=r"would end itself there\. Unset it"):
        from_environment({AT: Point.GRANTED, **switch})


def test_an_unknown_point_is_refused_with_the_known_ones():
    with pytest.raises(SettingsRefused, match=r"'after lunch', and the points are: after elect, after grant"):
        from_environment({AT: "after lunch", SWITCH: ALLOWED})


def test_the_process_ends_at_its_point_and_at_no_other():
    program = (
        "import os; from jobserver.contexts.fail_points import *;"
        "reached = from_environment(os.environ); reached(Point.ELECTED, 'c'); print('passed', flush=True);"
        "reached(Point.GRANTED, 'c'); print('never')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={AT: Point.GRANTED, SWITCH: ALLOWED, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (EXIT_CODE, "passed\n")
    assert "context c: after grant: this server ends here" in done.stderr
