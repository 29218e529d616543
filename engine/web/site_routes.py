"""What the site does now: ``/api/v1/status`` and ``/api/v1/cameras``."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.web.answers import json_answer
from engine.web.site import site_of


async def status(request: Request) -> Response:
    """The report of ``edge-video status --json``."""
    report = await site_of(request).report()
    if report is None:
        raise HTTPException(404, "this web process does not run beside the site, so it has no site counters")
    return json_answer(report)


async def cameras(request: Request) -> Response:
    """The cameras and their states."""
    report = await site_of(request).report()
    assert report is not None
    return json_answer({"cameras": report.cameras})


ROUTES = [Route("/api/v1/status", status), Route("/api/v1/cameras", cameras)]
