"""A bare aiohttp server that reads bodies and answers the same bytes to all: what no service over HTTP can be quicker than."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web


@contextmanager
def bare_server(answer: bytes, status: int = 200) -> Iterator[str]:
    """Its address; `POST /jobs` is answered with those bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(listener, answer, status), daemon=True
        )
        process.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            process.join()


def _serve(listener: socket.socket, answer: bytes, status: int) -> None:
    async def answered(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=answer, status=status, content_type="application/json")

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/jobs", answered)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        await asyncio.Event().wait()

    asyncio.run(serve())
