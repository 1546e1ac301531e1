"""Who asks, for commands: `--user` or JOBSERVER_USER, and JOBSERVER_PASSWORD or a question. Credentials in a URL win."""

from __future__ import annotations

import functools
import getpass
import os
import sys
from collections.abc import Mapping, Sequence

from jobserver.client import Credentials, JobClient
from jobserver.errors import BadRequest

USER, PASSWORD = "JOBSERVER_USER", "JOBSERVER_PASSWORD"
PATIENCE = 15.0
"""Seconds that a command looks for a server that answers; longer than a failover takes."""


def client(urls: Sequence[str], patience: float = PATIENCE) -> JobClient:
    """A client of these servers for a command."""
    return JobClient(urls, patience=patience, credentials=chosen())


@functools.cache
def chosen() -> Credentials | None:
    """What the environment names; the password is asked for once. None: nobody is named. Raises BadRequest."""
    return of(os.environ)


def of(environment: Mapping[str, str]) -> Credentials | None:
    """The credentials in an environment. Raises BadRequest when the password can neither be found nor asked for."""
    name = environment.get(USER)
    if not name:
        return None
    password = environment.get(PASSWORD)
    if password is None:
        if not sys.stdin.isatty():
            raise BadRequest(
                f"the password of {name} is not in {PASSWORD}, and there is no terminal to ask for it"
            )
        password = getpass.getpass(f"Password of {name}: ")
    return Credentials(name, password)
