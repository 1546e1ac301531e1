"""When a driver whom nobody needs ends itself (pure; the clock is a parameter, seconds on a clock that never jumps)."""

from __future__ import annotations

from dataclasses import dataclass

OWNER_SILENCE = 3.0
"""An owner not heard for so long does not count as present (it pings every second)."""
FROZEN_GAP = 3.0
"""A watch that was not run for so long means that this process was frozen: others' silence then proves nothing."""
THAW = 5.0
"""How long, after such a gap, others get to be heard again."""


@dataclass(slots=True)
class Lifetime:
    """Decides from what was heard and when. `last_heard`: the last message of the owner, or of anyone while unbound."""

    orphan_timeout: float
    unbound_timeout: float
    last_heard: float
    last_check: float
    thawing_until: float = 0.0

    def heard(self, now: float) -> None:
        """Somebody who counts has spoken."""
        self.last_heard = now

    def owner_present(self, now: float) -> bool:
        """Whether the owner was heard a moment ago."""
        return now - self.last_heard <= OWNER_SILENCE

    def reason_to_end(self, now: float, active: bool, connected: bool) -> str | None:
        """Why the driver should end now, or None. `connected`: while not active, whether any server is connected."""
        if now - self.last_check > FROZEN_GAP:
            self.thawing_until = now + THAW
        self.last_check = now
        if not active and connected:
            self.last_heard = now
        silence = now - self.last_heard
        limit = self.orphan_timeout if active else self.unbound_timeout
        if silence <= limit or now < self.thawing_until:
            return None
        what = "its owner was not heard" if active else "it is unbound and no server was connected"
        return f"{what} for {silence:.1f} s (limit {limit:g} s)"
