"""The bounds of the REST API, as one frozen value. Seconds and bytes."""

from __future__ import annotations

from dataclasses import dataclass

from jobserver.proxy_users import ProxyUsers


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """What a request may ask for. The defaults are those of rest_contract 1.7 where it fixes one."""

    max_body: int = 31_457_280
    """Largest request body in bytes (30 MiB); beyond it 413."""
    max_hocon: int = 262_144
    """Largest configuration in bytes that is not plain JSON; beyond it 400."""
    max_python_source: int = 262_144
    """Largest single-file Python binary in bytes. Checking its syntax can cost a second and 200 MB at this size."""
    read_timeout: float = 60.0
    """A body that has not arrived by then ends the request with 408."""
    default_wait: float = 10.0
    """`timeout` of POST /jobs when the client names none."""
    max_wait: float = 86_400.0
    """A longer `timeout` is cut to this; the answer of a wait that ended names the job."""
    default_list: int = 50
    max_list: int = 10_000
    """A larger `limit` is cut to this."""
    private_callbacks: bool = True
    """Whether `callbackUrl` may name loopback and private addresses."""
    proxy_users: ProxyUsers = ProxyUsers.NONE
    """Whom requests may have Spark work for."""
    max_binaries: int = 100
    """Names that one job may load."""
    max_sql: int = 1_000_000
    """Longest text of an SQL job, in characters."""
    default_rows: int = 10_000
    """`limit` of an SQL job when the client names none."""
