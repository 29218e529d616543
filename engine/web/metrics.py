"""``/metrics``: the site for Prometheus, in its text format or as OpenMetrics.

Scrapes that come together share one collection. It runs in a thread, so the event loop goes on serving others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.web import metrics_cameras, metrics_redis, metrics_rings, metrics_site
from engine.web.metrics_facts import Collector, Facts
from engine.web.metrics_text import OPENMETRICS_TYPE, TEXT_TYPE, Family, Samples, prefers_openmetrics, render
from engine.web.site import WebSite, site_of

#: Seconds for which a collection answers further scrapes.
_AGE_SECONDS = 0.5
_COLLECTING = Family(
    "edge_video_metrics_collect_cpu_seconds", "gauge", (), "CPU time that the collection of these metrics took."
)

#: All metrics, by subject, in the order in which ``/metrics`` has them.
FAMILIES: dict[str, list[Family]] = {
    "Cameras": metrics_cameras.FAMILIES,
    "Rings and tenants": metrics_rings.FAMILIES,
    "Site, its roles and processes": [*metrics_site.FAMILIES, _COLLECTING],
    "Redis": metrics_redis.FAMILIES,
}


class _Form(NamedTuple):
    """What a text of metrics depends on, besides the facts."""

    openmetrics: bool
    site_wide: bool


class SiteMetrics:
    """The metrics of one site, for its web process."""

    def __init__(self, site: WebSite) -> None:
        self._site = site
        self._collector = Collector(site.config, local=site.local)
        self._lock = asyncio.Lock()
        self._facts: Facts | None = None
        self._until = 0.0
        self._texts: dict[_Form, bytes] = {}

    async def text(self, *, openmetrics: bool, site_wide: bool) -> bytes:
        """The metrics, at most half a second old. Without ``site_wide``, only those of the site's cameras."""
        form = _Form(openmetrics, site_wide)
        async with self._lock:
            if self._facts is None or time.monotonic() >= self._until:
                self._collector.local = self._site.local
                self._facts = await asyncio.to_thread(self._collector.collect)
                self._texts.clear()
                self._until = time.monotonic() + _AGE_SECONDS
            if form not in self._texts:
                self._texts[form] = await asyncio.to_thread(exposition, self._facts, form.openmetrics, form.site_wide)
            return self._texts[form]


def exposition(facts: Facts, openmetrics: bool, site_wide: bool = True) -> bytes:
    """The text of one collection."""
    metrics = _samples(facts)
    return render((one for one in metrics if site_wide or not one[0].site_wide), openmetrics=openmetrics)


def _samples(facts: Facts) -> Iterator[tuple[Family, Samples]]:
    if look := facts.look:
        yield from metrics_cameras.samples(look.cameras)
        yield from metrics_rings.samples(look.cameras, look.report.vhost)
        yield from metrics_site.samples(look)
        yield from metrics_site.count_samples(facts.counts, facts.latency)
        yield from metrics_site.process_samples(look.report.processes, facts.memory)
    yield from metrics_site.build_samples()
    yield _COLLECTING, [("", facts.cpu_seconds)]
    yield from metrics_redis.samples(facts.redis, answers=facts.redis_answers, nodes=facts.redis_nodes)


def _sees_all(request: Request) -> bool:
    """Whether this reader sees the whole site, and not only its tenant's cameras. Raises HTTPException for a reader of
    another tenant: the site's counters are only of its own."""
    reader = getattr(request.state, "reader", None)
    if reader is None or reader.all_tenants:
        return True
    if reader.vhost != site_of(request).config.vhost:
        raise HTTPException(403, "this token sees another tenant than the site's")
    return False


async def metrics(request: Request) -> Response:
    """All metrics that the reader may see."""
    site_wide = _sees_all(request)
    state = request.app.state
    if not hasattr(state, "metrics"):
        state.metrics = SiteMetrics(site_of(request))
    openmetrics = prefers_openmetrics(request.headers.get("accept", ""))
    text = await state.metrics.text(openmetrics=openmetrics, site_wide=site_wide)
    headers = {"Cache-Control": "no-store", "Content-Type": OPENMETRICS_TYPE if openmetrics else TEXT_TYPE}
    return Response(text, headers=headers)


ROUTES = [Route("/metrics", metrics)]
