"""Named places in a takeover at which a test lets something happen, as a rule the end of this server.

Off in production: `nowhere` is called and returns. A process is told of one by its environment, and refuses to start with
it unless a second variable says that this is a test.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum

from jobserver.errors import SettingsRefused

AT = "JOBSERVER_FAIL_AT"
"""Environment: the point at which this server ends itself."""
SWITCH = "JOBSERVER_FAIL_POINTS"
ALLOWED = "this is a test"
EXIT_CODE = 86
"""Of a server that ended at its fail point."""


class Point(StrEnum):
    """The steps of a takeover (design 4.4), each at the moment after it was done."""

    ELECTED = "after elect"
    GRANTED = "after grant"
    HELLO = "after hello"
    ADOPT_SENT = "after adopt sent"
    ADOPTED = "after adopt"
    MARKED = "after marker"
    BASE_READ = "after base read"
    PINNED = "after pin"
    DRIVER_TAKEN = "after driver taken"
    ACTIVATE_SENT = "after activate sent"
    ACTIVATED = "after activate"
    PLANNED = "after plan"
    RECORDED = "after driver recorded"
    OPENED = "after gate"
    PUBLISHED = "after publish"


Reach = Callable[[Point, str], None]
"""Is told the point and the id of the context."""


def nowhere(point: Point, context_id: str) -> None:
    """Nothing happens."""


def from_environment(environment: Mapping[str, str]) -> Reach:
    """What the environment asks for. Raises SettingsRefused where it asks without the switch, or for an unknown point."""
    name = environment.get(AT)
    if name is None:
        return nowhere
    if environment.get(SWITCH) != ALLOWED:
        raise SettingsRefused(
            f"{AT} is set to {name!r}: this server would end itself there. Unset it; a test that wants it sets "
            f"{SWITCH} to {ALLOWED!r}, too."
        )
    if name not in list(Point):
        raise SettingsRefused(f"{AT} is {name!r}, and the points are: {', '.join(Point)}.")
    return _end_at(Point(name))


def _end_at(chosen: Point) -> Reach:
    def reached(point: Point, context_id: str) -> None:
        if point is chosen:
            sys.stderr.write(f"context {context_id}: {point}: this server ends here, as it was told to\n")
            sys.stderr.flush()
            os._exit(EXIT_CODE)

    return reached
