"""The last quarter of an hour as curves: rates, latencies and drops, sampled while the web process runs."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from array import array
from collections.abc import AsyncIterator, Sequence

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.config.names import suggestion
from engine.runtime.status import SiteLook
from engine.runtime.status_cameras import CameraLook
from engine.shm import histogram
from engine.shm.ring_file import RingCounts
from engine.web import openapi_parts as parts
from engine.web import queries
from engine.web.answers import json_answer
from engine.web.site import WebSite, report_for
from engine.web.site_routes import NOT_LOCAL

#: Seconds between two samples.
INTERVAL_SECONDS = 2
#: Samples that are kept: 15 minutes.
SAMPLES_MAX = 450
MINUTES_MAX = SAMPLES_MAX * INTERVAL_SECONDS // 60
#: The whole site's series; no camera has this name.
_SITE = ""


class Sample(msgspec.Struct, frozen=True):
    """One camera, or the site, in one interval. ``dropped`` and ``stored`` count the frames of the interval. Latencies
    are those of frames, in milliseconds, or of video if no frames came; NaN if neither did."""

    fps: float = math.nan
    packet_fps: float = math.nan
    p50_ms: float = math.nan
    p99_ms: float = math.nan
    dropped: float = math.nan
    stored: float = math.nan
    ring_fill: float = math.nan


_FIELDS = Sample.__struct_fields__
_NO_SAMPLE = msgspec.structs.astuple(Sample())


class History(msgspec.Struct, frozen=True):
    """Series of samples: one value for each of ``times`` (seconds since the epoch), None where nothing is known."""

    interval_seconds: int
    times: list[float]
    fps: list[float | None]
    packet_fps: list[float | None]
    p50_ms: list[float | None]
    p99_ms: list[float | None]
    dropped: list[float | None]
    stored: list[float | None]
    ring_fill: list[float | None]


class Sampler:
    """Samples a site's counters into rings of numbers: 25 KB a camera, whatever happens."""

    def __init__(self, site: WebSite) -> None:
        self._site = site
        self._times = array("d")
        #: By camera: the fields of each sample in turn.
        self._series: dict[str, array[float]] = {}
        self._before: dict[str, CameraLook] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Samples until the end of the block."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def series(self, camera: str, minutes: int) -> History | None:
        """The last minutes of a camera, or of the site if ``camera`` is empty; None if it is unknown."""
        series = self._series.get(camera)
        if series is None:
            return None if camera else History(INTERVAL_SECONDS, [], *([] for _ in _FIELDS))
        first = max(len(self._times) - minutes * 60 // INTERVAL_SECONDS, 0)
        columns: list[list[float | None]] = [
            [*series[first * len(_FIELDS) + place :: len(_FIELDS)]] for place in range(len(_FIELDS))
        ]
        return History(INTERVAL_SECONDS, self._times[first:].tolist(), *columns)

    def compute(self, look: SiteLook) -> dict[str, Sample]:
        """The samples of a look, by camera; that of the site under an empty name."""
        samples, before = {}, self._before
        self._before = {seen.report.id: seen for seen in look.cameras}
        merged = [0] * histogram.BUCKETS
        for name, seen in self._before.items():
            latency = _gained(seen, before.get(name))
            samples[name] = _sample(seen, before.get(name), latency)
            merged = [have + more for have, more in zip(merged, latency, strict=True)]
        every = list(samples.values())
        samples[_SITE] = Sample(
            fps=round(sum(one.fps for one in every), 2),
            packet_fps=round(sum(one.packet_fps for one in every), 2),
            p50_ms=_percentile(merged, 0.5),
            p99_ms=_percentile(merged, 0.99),
            dropped=sum(one.dropped for one in every),
            stored=sum(one.stored for one in every),
            ring_fill=max((one.ring_fill for one in every), default=0.0),
        )
        return samples

    def keep(self, samples: dict[str, Sample], now: float) -> None:
        """Add samples to the series."""
        for name in self._series.keys() - samples.keys():
            del self._series[name]
        for name, sample in samples.items():
            if name not in self._series:
                self._series[name] = array("d", _NO_SAMPLE * len(self._times))
            self._series[name].extend(msgspec.structs.astuple(sample))
        self._times.append(round(now, 1))
        if len(self._times) > SAMPLES_MAX:
            del self._times[0]
            for series in self._series.values():
                del series[: len(_FIELDS)]

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            try:
                if look := await self._site.look():
                    self.keep(await asyncio.to_thread(self.compute, look), time.time())
            except Exception:
                self._site.log.exception("cannot sample the site's counters")
            due = max(due + INTERVAL_SECONDS, time.monotonic())
            await asyncio.sleep(due - time.monotonic())


def _sample(seen: CameraLook, before: CameraLook | None, latency: Sequence[int]) -> Sample:
    report, former = seen.report, before.report if before else seen.report
    dropped = sum(report.dropped.values()) - sum(former.dropped.values())
    video = report.video
    if video and former.video:
        dropped += sum(video.dropped.values()) - sum(former.video.dropped.values())
    return Sample(
        fps=report.fps,
        packet_fps=report.packet_fps,
        p50_ms=_percentile(latency, 0.5),
        p99_ms=_percentile(latency, 0.99),
        dropped=max(dropped, 0),
        stored=max(report.stored_total - former.stored_total, 0),
        ring_fill=max(report.ring.fill, video.ring.fill if video else 0.0),
    )


def _gained(seen: CameraLook, before: CameraLook | None) -> list[int]:
    """The latencies of the interval: those of frames, or of video if no frames came."""
    gained = _since(seen.frames, before.frames if before else None)
    return gained if any(gained) else _since(seen.video, before.video if before else None)


def _since(counts: RingCounts | None, before: RingCounts | None) -> list[int]:
    if counts is None or before is None:
        return [0] * histogram.BUCKETS
    # A ring that was made anew counts from 0.
    return [max(now - then, 0) for now, then in zip(counts.latency, before.latency, strict=True)]


def _percentile(counts: Sequence[int], share: float) -> float:
    return round(histogram.percentile(counts, share), 3) if any(counts) else math.nan


async def history(request: Request) -> Response:
    """The curves of a camera, or of the whole site."""
    camera = queries.text(request, "camera")
    minutes = queries.number(request, "minutes", MINUTES_MAX, 1, MINUTES_MAX)
    report = await report_for(request)
    if report is None:
        raise HTTPException(404, NOT_LOCAL)
    sampler: Sampler = request.app.state.history
    found = sampler.series(camera, minutes)
    if found is None:
        names = [one.id for one in report.cameras]
        raise HTTPException(404, f"no samples of camera {camera!r} yet{suggestion(camera, names)}")
    return json_answer(found)


OPENAPI: dict[str, parts.Part] = {
    "/api/v1/history": parts.get(
        "Rates, latencies and drops of the last minutes.",
        {200: parts.json_of("History", "Series of the same length; null where nothing is known.")},
        parameters=[
            parts.parameter("camera", {"type": "string"}, "The camera; the whole site by default."),
            parts.number_of("minutes", 1, MINUTES_MAX, "The length of the series.", MINUTES_MAX),
        ],
        problems=[404, 422],
    ),
}

ROUTES = [Route("/api/v1/history", history)]
