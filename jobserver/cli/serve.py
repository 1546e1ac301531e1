"""`jobserver serve`: settings from the file, then the server until it is told to end."""

from __future__ import annotations

from pathlib import Path

from jobserver.settings import load


def serve(config: Path) -> None:
    """Runs a server. Raises SettingsRefused before anything is started."""
    settings = load(config)
    from jobserver.server import run  # only now: a bad settings file should be refused at once

    run(settings)
