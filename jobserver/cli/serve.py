"""`jobserver serve`: settings from the file, then the server until it is told to end."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from jobserver.settings import load

LOG_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"


def serve(config: Path) -> None:
    """Runs a server. Raises SettingsRefused before anything is started, and what keeps a server from starting."""
    settings = load(config)
    log_to_stderr(settings.server.log_level)
    from jobserver.serving import run  # only now: a bad settings file should be refused at once

    run(settings)


def log_to_stderr(level: str) -> None:
    """One line per event, times in UTC. What libraries tell at INFO (every reconnect, every plugin) is not for operators."""
    handler = logging.StreamHandler()
    formatter = logging.Formatter(LOG_FORMAT, datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for library in ("kazoo", "alembic"):
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLogger().level))
