"""What a server counts and measures, and the two routes that show it: `/metricz` (rest_contract 7 and 9) and `/metrics`.

`/metricz` speaks the dialect of existing monitors, `/metrics` that of Prometheus. Gauges are read when they are asked for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobserver.api.calls import Call
from jobserver.api.envelopes import TEXT, Answer, encoded
from jobserver.api.meters import Timer
from jobserver.api.routes import Route
from jobserver.service import Service

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
WEB = "spark.jobserver.WebApi"
STATUS = "spark.jobserver.JobStatusActor"
OWN = "jobserver"

_TIMERS = {
    Route.LIST_BINARIES: "binary-get-duration",
    Route.GET_BINARY: "binary-get-single-duration",
    Route.POST_BINARY: "binary-post-duration",
    Route.DELETE_BINARY: "binary-delete-duration",
    Route.LIST_CONTEXTS: "context-get-duration",
    Route.GET_CONTEXT: "context-get-single-duration",
    Route.POST_CONTEXT: "context-post-duration",
    Route.DELETE_CONTEXT: "context-delete-duration",
    Route.RESET_CONTEXTS: "context-put-duration",
    Route.LIST_JOBS: "job-get-duration",
    Route.GET_JOB: "job-get-single-duration",
    Route.POST_JOB: "job-post-duration",
    Route.DELETE_JOB: "job-delete-duration",
    Route.GET_JOB_CONFIG: "config-get-duration",
}
"""Routes that existing servers time, under the names that dashboards ask for."""
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Metrics:
    """One per server. `service` is asked for its gauges when a monitor looks."""

    def __init__(self, service: Service) -> None:
        self.requests = self.internal_errors = 0
        self._reads = self._writes = self._failed = 0
        self._service = service
        now = time.monotonic()
        self._timers = {route: Timer(now) for route in _TIMERS}
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "jobserver_request_seconds",
            "Duration of requests.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._answers = Counter(
            "jobserver_answers", "Answers by route and status.", ("route", "status"), registry=self._registry
        )
        self._errors = Counter(
            "jobserver_internal_errors",
            "Requests that ended in an error nobody foresaw; each is a bug.",
            registry=self._registry,
        )
        self._series: dict[tuple[Route | None, int], tuple[Histogram, Counter]] = {}
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(_Gauges(service))

    def answered(self, route: Route | None, method: str, status: int, seconds: float) -> None:
        """One request ended. `route` None: it was refused before one was found."""
        self.requests += 1
        if method in _READS:
            self._reads += 1
        else:
            self._writes += 1
        if status >= 500:
            self._failed += 1
        duration, count = self._series_of(route, status)
        duration.observe(seconds)
        count.inc()
        timer = None if route is None else self._timers.get(route)
        if timer is not None:
            timer.update(seconds, time.monotonic())

    def _series_of(self, route: Route | None, status: int) -> tuple[Histogram, Counter]:
        """Those of one route and status; finding them by their labels costs more than counting."""
        series = self._series.get((route, status))
        if series is None:
            name = "none" if route is None else route.value
            series = self._seconds.labels(name), self._answers.labels(name, str(status))
            self._series[route, status] = series
        return series

    def unforeseen(self) -> None:
        """A request ended in an error nobody foresaw."""
        self.internal_errors += 1
        self._errors.inc()

    def prometheus(self) -> bytes:
        """The text of `/metrics`."""
        return generate_latest(self._registry)

    def metricz(self) -> dict[str, dict[str, object]]:
        """The object of `/metricz`: class, metric, values."""
        now = time.monotonic()
        web: dict[str, object] = {_TIMERS[route]: timer.shown(now) for route, timer in self._timers.items()}
        web["total-read-requests"] = _counter(self._reads)
        web["total-write-requests"] = _counter(self._writes)
        web["internal-server-error-status-code"] = _counter(self._failed)
        own: dict[str, object] = {"internal-errors": _counter(self.internal_errors)}
        running = 0.0
        for gauge in self._service.gauges():
            own[gauge.name.replace("_", "-")] = {"type": "gauge", "value": gauge.value}
            running += gauge.value if gauge.name == "jobs_running" else 0
        return {WEB: web, STATUS: {"num-running-jobs": {"type": "gauge", "value": running}}, OWN: own}


class _Gauges(Collector):
    """The service's gauges for Prometheus."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        for gauge in self._service.gauges():
            yield GaugeMetricFamily(f"jobserver_{gauge.name}", gauge.meaning, value=gauge.value)

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time: the parts of the server may not be there yet."""
        return ()


async def metricz(call: Call) -> Answer:
    """GET /metricz: pretty JSON under a text type, as existing monitors get it."""
    return Answer(200, encoded(json.dumps(call.metrics.metricz(), indent=2)), TEXT)


async def prometheus(call: Call) -> Answer:
    """GET /metrics (ours): the same and more for Prometheus."""
    return Answer(200, call.metrics.prometheus(), PROMETHEUS)


def _counter(count: int) -> dict[str, object]:
    return {"type": "counter", "count": count}
