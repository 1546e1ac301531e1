"""One request as the handlers see it: what was asked, by whom, and a way to read the body."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from jobserver.api.limits import ApiLimits
from jobserver.api.parameters import Query
from jobserver.api.principals import ANONYMOUS
from jobserver.api.rejections import broken_body, too_large, too_slow
from jobserver.service import Service
from jobserver.users import Caller

if TYPE_CHECKING:
    from jobserver.api.metrics import Metrics


@dataclass(slots=True, eq=False)
class Call:
    """A routed request. `name` is the decoded name or id in its path, `item` that of something inside it, `caller` who asks.

    What a handler does not ask for is not computed.
    """

    service: Service
    limits: ApiLimits
    name: str
    query: Query
    request: web.Request
    metrics: Metrics
    item: str = ""
    caller: Caller = ANONYMOUS

    @property
    def principal(self) -> str:
        """The name of who asks."""
        return self.caller.name

    @property
    def query_text(self) -> str:
        """The query as sent."""
        return self.request.rel_url.raw_query_string

    @property
    def uri(self) -> str:
        """Path and query as sent."""
        return self.request.rel_url.raw_path_qs

    @property
    def content_type(self) -> str | None:
        """The header as sent, or None."""
        return self.request.headers.get("Content-Type")

    @property
    def charset(self) -> str | None:
        """The charset of the content type, or None."""
        header = self.content_type
        # aiohttp parses the header like an e-mail's; most have no charset
        return self.request.charset if header is not None and "charset" in header.lower() else None

    @property
    def idempotency_key(self) -> str | None:
        """The header as sent, or None."""
        return self.request.headers.get("Idempotency-Key")

    async def body(self) -> bytes:
        """The whole body. Raises Rejected when it is too large, too slow, or not what its headers say."""
        request, limit = self.request, self.limits.max_body
        announced = request.content_length
        if announced is not None and announced > limit:
            raise too_large(announced, limit)
        if not request.can_read_body:
            return b""
        try:
            if request.content.is_eof():  # all of it came with the head: nothing to wait for
                return await request.read()
            async with asyncio.timeout(self.limits.read_timeout):
                return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise too_large(limit + 1, limit) from error
        except TimeoutError as error:
            raise too_slow(self.limits.read_timeout) from error
        except (web.RequestPayloadError, ConnectionError) as error:  # the latter: the client has hung up
            raise broken_body() from error
