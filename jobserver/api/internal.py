"""The routes that servers call on each other. Never part of the public contract; refused without the cluster's secret.

An error that means "look for the owner again" is answered 409, so that the caller cannot take it for a result.
"""

from __future__ import annotations

import hmac

from aiohttp import web
from aiohttp.typedefs import Handler

from ha.coordination import OwnerNode
from jobserver.api.job_records import accepted_bytes, driver_fields, job_fields, offer_of
from jobserver.api.offers import OfferDesk
from jobserver.api.peers import SECRET_HEADER
from jobserver.contexts.drain import Drainer
from jobserver.contexts.peers import MoveOrder
from jobserver.contexts.pool import DriverPool
from jobserver.contexts.registry import ContextRegistry
from jobserver.contexts.standbys import HotStandbys
from jobserver.contexts.waiters import Until
from jobserver.errors import ContextInitFailed, JobServerError, MoveRefused, NotFound, ObjectRefused, TimedOut
from jobserver.job_events import EventId
from jobserver.model import ObjectDeed, ObjectOrder
from jobserver.progress import progress_fields


class InternalRoutes:
    """Handlers over the registry of this server."""

    def __init__(
        self,
        registry: ContextRegistry,
        standbys: HotStandbys,
        pool: DriverPool,
        drainer: Drainer,
        *,
        incarnation: str,
        secret: str,
    ) -> None:
        self._drainer = drainer
        self._registry = registry
        self._standbys = standbys
        self._pool = pool
        self._incarnation = incarnation
        self._secret = secret.encode()

    def application(self) -> web.Application:
        """To be mounted under /internal."""
        app = web.Application(middlewares=[self._guard])
        OfferDesk(self._registry.submit).add_routes(app)
        app.router.add_get("/incarnation", self._own_incarnation)
        app.router.add_get("/standbys", self._behind)
        app.router.add_post("/contexts/{context}/claim", self._claim)
        app.router.add_post("/contexts/{context}/stop", self._stop)
        app.router.add_post("/contexts/{context}/take-hot", self._take_hot)
        app.router.add_post("/take-warm", self._take_warm)
        app.router.add_get("/contexts/{context}/objects", self._objects)
        app.router.add_get("/contexts/{context}/data", self._data)
        app.router.add_post("/contexts/{context}/object", self._object)
        app.router.add_post("/contexts/{context}/make-ready", self._make_ready)
        app.router.add_post("/contexts/{context}/move", self._move)
        app.router.add_post("/contexts/{context}/take-over", self._take_over)
        app.router.add_post("/drain", self._drain)
        app.router.add_post("/undrain", self._undrain)
        app.router.add_post("/contexts/{context}/jobs", self._submit)
        app.router.add_post("/contexts/{context}/jobs/{job}/follow", self._follow)
        app.router.add_post("/contexts/{context}/jobs/{job}/kill", self._kill)
        app.router.add_post("/contexts/{context}/jobs/{job}/look", self._look)
        app.router.add_get("/contexts/{context}/jobs/{job}/tails", self._tails)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(SECRET_HEADER, "").encode(errors="replace")
        if not hmac.compare_digest(given, self._secret):
            return web.json_response({"message": "the cluster's secret is missing or wrong"}, status=401)
        try:
            return await handler(request)
        except MoveRefused as error:
            return web.json_response({"refused": error.message})
        except JobServerError as error:
            return web.json_response({"message": error.message}, status=409)
        except (ValueError, KeyError) as error:
            return web.json_response({"message": f"the call cannot be used: {error!r}"}, status=400)

    async def _own_incarnation(self, request: web.Request) -> web.Response:
        return web.json_response({"incarnation": self._incarnation})

    async def _behind(self, request: web.Request) -> web.Response:
        return web.json_response({"standbys": await self._standbys.behind()})

    async def _claim(self, request: web.Request) -> web.Response:
        try:
            await self._registry.claim(request.match_info["context"], float(request.query["seconds"]))
        except ContextInitFailed as error:
            return web.json_response({"failed": "init", "message": error.message})
        except TimedOut as error:
            return web.json_response({"failed": "time", "message": error.message})
        return web.json_response({})

    async def _stop(self, request: web.Request) -> web.Response:
        ended = await self._registry.stop(
            request.match_info["context"],
            float(request.query["seconds"]),
            force=request.query.get("force") == "true",
        )
        return web.json_response({"ended": ended})

    async def _take_hot(self, request: web.Request) -> web.Response:
        driver = await self._standbys.hand_over(request.match_info["context"])
        return web.json_response({"driver": driver_fields(driver) if driver else None})

    async def _take_warm(self, request: web.Request) -> web.Response:
        driver = self._pool.hand_over(request.query["spec"])
        return web.json_response({"driver": driver_fields(driver) if driver else None})

    async def _make_ready(self, request: web.Request) -> web.Response:
        await self._standbys.make_ready(request.match_info["context"], float(request.query["seconds"]))
        return web.json_response({})

    async def _move(self, request: web.Request) -> web.Response:
        query = request.query
        order = MoveOrder(
            query["to"], float(query["grace"]), query["keep_driver"] == "True", float(query["seconds"])
        )
        await self._registry.move(request.match_info["context"], order)
        return web.json_response({})

    async def _take_over(self, request: web.Request) -> web.Response:
        query = request.query
        node = OwnerNode(
            request.match_info["context"], query["server"], query["incarnation"], int(query["election"])
        )
        await self._registry.take_over(node, adopt=query["adopt"] == "True")
        return web.json_response({})

    async def _drain(self, request: web.Request) -> web.Response:
        await self._drainer.begin(
            grace=float(request.query["grace"]), keep_drivers=request.query["keep_drivers"] == "True"
        )
        return web.json_response({})

    async def _undrain(self, request: web.Request) -> web.Response:
        await self._drainer.end()
        return web.json_response({})

    async def _objects(self, request: web.Request) -> web.Response:
        return web.json_response({"objects": await self._registry.objects(request.match_info["context"])})

    async def _data(self, request: web.Request) -> web.Response:
        return web.json_response({"data": await self._registry.data(request.match_info["context"])})

    async def _object(self, request: web.Request) -> web.Response:
        query = request.query
        order = ObjectOrder(
            query["name"], ObjectDeed(query["do"]), float(query["seconds"]), query.get("version", "")
        )
        try:
            found = await self._registry.object(request.match_info["context"], order)
        except NotFound as error:
            return web.json_response({"failed": "absent", "message": error.message})
        except ObjectRefused as error:
            return web.json_response({"failed": "refused", "message": error.message})
        return web.json_response({"object": found})

    async def _submit(self, request: web.Request) -> web.Response:
        """For servers of an older release: newer ones offer jobs as `offers.py` tells."""
        accepted = await self._registry.submit(
            offer_of(await request.read()), Until(request.query["until"]), float(request.query["seconds"])
        )
        return web.Response(body=accepted_bytes(accepted), content_type="application/json")

    async def _follow(self, request: web.Request) -> web.Response:
        news = await self._registry.follow_id(
            request.match_info["context"],
            request.match_info["job"],
            Until(request.query["until"]),
            float(request.query["seconds"]),
        )
        return web.json_response({"job": job_fields(news.job) if news else None})

    async def _look(self, request: web.Request) -> web.Response:
        seen = await self._registry.look_id(
            request.match_info["context"],
            request.match_info["job"],
            EventId.parse(request.query["after"]),
            float(request.query["seconds"]),
        )
        progress = None if seen is None or seen.progress is None else progress_fields(seen.progress)
        return web.json_response({"job": job_fields(seen.job) if seen else None, "progress": progress})

    async def _tails(self, request: web.Request) -> web.Response:
        found = await self._registry.tails(request.match_info["context"], request.match_info["job"])
        return web.json_response({"tails": found})

    async def _kill(self, request: web.Request) -> web.Response:
        killed = await self._registry.kill(request.match_info["context"], request.match_info["job"])
        return web.json_response({"killed": killed})
