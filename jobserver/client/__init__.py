"""The client library: `JobClient` for ordinary code; `jobserver.client.aio.AsyncJobClient` is the same for asyncio.

Both carry out the conversations of `core`: any server of a list, retries under keys, waits through failovers.
"""

from jobserver.client.core import ARROW, PARQUET, Credentials, EndedJob, Refused, Work
from jobserver.client.sync import JobClient

__all__ = ["ARROW", "PARQUET", "Credentials", "EndedJob", "JobClient", "Refused", "Work"]
