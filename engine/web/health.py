"""Health of the site, for supervisors and load balancers: ``/live``, ``/ready``, ``/health``.

``/live`` says that the web process answers. ``/ready`` says which stage of a frame's journey is not ready, and why.
``/health`` sums up in the JSON of the Go edition. Stages are judged by what the site's own processes noted, and no
server is asked. Only a web process on another machine, which sees none of them, asks Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.errors import EngineError
from engine.runtime.site_report import SiteReport
from engine.runtime.status_outages import HEALTHY_SHARE
from engine.web.answers import json_answer
from engine.web.metrics_site import FAILED_STATES
from engine.web.site import WebSite, site_of
from engine.wire.urls import mask

#: Seconds that Redis may take to answer a web process on another machine.
_REDIS_SECONDS = 2.0

StageName = Literal["supervisor", "writer", "publisher", "capture", "redis", "broker"]


class Stage(msgspec.Struct, frozen=True):
    """A stage, whether it works, and why it does not; empty if it does."""

    stage: StageName
    ready: bool
    why: str


class Readiness(msgspec.Struct, frozen=True):
    """The answer of ``/ready``."""

    status: Literal["ready", "not ready"]
    stages: list[Stage]


class CameraTotals(msgspec.Struct, frozen=True):
    """Cameras of the site. ``active`` ones deliver. ``failed`` ones do not, and should; a file that was read to its end
    is neither."""

    total: int
    active: int
    failed: int


class Connected(msgspec.Struct, frozen=True):
    """A server. ``error`` says why it is away; empty if it is not."""

    configured: bool
    connected: bool
    error: str


class Health(msgspec.Struct, frozen=True):
    """The answer of ``/health``. ``uptime`` is in seconds. A ``degraded`` site stores frames, and something needs
    attention; of a site that is ``down`` none are stored."""

    status: Literal["ok", "degraded", "down"]
    uptime: float
    cameras: CameraTotals
    amqp: Connected
    redis: Connected


def stages_of(report: SiteReport, heartbeat_seconds: float, *, publishes: bool) -> list[Stage]:
    """The stages of a site, in the order in which they start. A site that does not publish has neither publisher nor
    broker. A process that has not beaten for ``heartbeat_seconds`` hangs."""
    why: dict[StageName, str] = {"supervisor": "" if report.running else "the site does not run"}
    if publishes:
        why["publisher"] = _why_not_running(report, "publisher", heartbeat_seconds)
    why["writer"] = _why_not_running(report, "writer", heartbeat_seconds)
    why["capture"] = _why_no_cameras(report)
    why["redis"] = _why_away(report, "redis")
    if publishes:
        connected = report.publisher is not None and report.publisher.connected
        why["broker"] = _why_away(report, "rabbitmq") or ("" if connected else "the publisher is not connected to it")
    return [Stage(stage, not reason, reason) for stage, reason in why.items()]


def health_of(report: SiteReport, stages: Sequence[Stage], *, publishes: bool) -> Health:
    """The sum of a site's stages and cameras."""
    meant = [camera for camera in report.cameras if not camera.finished]
    active = sum(camera.state == "active" for camera in meant)
    failed = sum(camera.state in FAILED_STATES for camera in meant)
    why = {stage.stage: stage.why for stage in stages}
    stored_nowhere = any(why[stage] for stage in ("supervisor", "writer", "redis")) or (meant and not active)
    broken = failed or any(why.values())
    return Health(
        status="down" if stored_nowhere else "degraded" if broken else "ok",
        uptime=report.uptime_seconds,
        cameras=CameraTotals(len(report.cameras), active, failed),
        amqp=Connected(publishes, not why.get("broker", "off"), why.get("broker", "")),
        redis=Connected(True, report.running and not why["redis"], why["redis"]),
    )


def _why_not_running(report: SiteReport, role: str, heartbeat_seconds: float) -> str:
    processes = [process for process in report.processes if process.role == role]
    if not processes:
        return f"no {role} has been started"
    for process in processes:
        if not process.alive:
            return f"{process.name} is down"
        if process.heartbeat_seconds > heartbeat_seconds:
            return f"{process.name} has done nothing for {process.heartbeat_seconds:,.0f} s"
    return ""


def _why_no_cameras(report: SiteReport) -> str:
    cameras = [camera for camera in report.cameras if not camera.finished]
    active = sum(camera.state == "active" for camera in cameras)
    if active >= HEALTHY_SHARE * len(cameras):
        return ""
    return f"{active} of {len(cameras)} cameras are active, at least {HEALTHY_SHARE:.0%} are wanted"


def _why_away(report: SiteReport, server: str) -> str:
    outages = [outage for outage in report.outages if outage.server == server]
    if not outages:
        return ""
    longest = max(outages, key=lambda outage: outage.seconds)
    return f"away for {longest.seconds:,.0f} s: {longest.error}"


async def _redis_alone(site: WebSite) -> Stage:
    """The one stage that a process on another machine sees: whether Redis answers."""
    try:
        await asyncio.wait_for(site.store().cameras(), _REDIS_SECONDS)
    except TimeoutError:
        return Stage("redis", ready=False, why=f"it did not answer within {_REDIS_SECONDS:g} s")
    except EngineError as error:
        return Stage("redis", ready=False, why=mask(str(error)))
    return Stage("redis", ready=True, why="")


async def live(_: Request) -> Response:
    """200 while the web process answers."""
    return json_answer({"status": "ok"})


async def ready(request: Request) -> Response:
    """200 if all stages are ready, otherwise 503; which is not, and why."""
    site = site_of(request)
    config, report = site.config, await site.report()
    if report:
        stages = stages_of(report, config.site.heartbeat_seconds, publishes=config.publishes)
    else:
        stages = [await _redis_alone(site)]
    is_ready = all(stage.ready for stage in stages)
    return json_answer(Readiness("ready" if is_ready else "not ready", stages), 200 if is_ready else 503)


async def health(request: Request) -> Response:
    """The site in short; 503 if it is down."""
    site = site_of(request)
    config, report = site.config, await site.report()
    if report:
        stages = stages_of(report, config.site.heartbeat_seconds, publishes=config.publishes)
        found = health_of(report, stages, publishes=config.publishes)
    else:
        redis = await _redis_alone(site)
        found = Health(
            status="ok" if redis.ready else "down",
            uptime=0.0,
            cameras=CameraTotals(len(config.cameras), 0, 0),
            amqp=Connected(config.publishes, False, "seen only on the site's machine" if config.publishes else ""),
            redis=Connected(True, redis.ready, redis.why),
        )
    return json_answer(found, 503 if found.status == "down" else 200)


ROUTES = [Route("/live", live), Route("/ready", ready), Route("/health", health)]
