"""The site's raised alerts: ``/api/v1/alerts``."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.shm import alerts_file
from engine.shm.site import SitePaths
from engine.web import openapi_parts as parts
from engine.web.answers import json_answer
from engine.web.site import site_of
from engine.wire.alert import raised


async def alerts(request: Request) -> Response:
    """The alerts that are raised now; critical ones first, then the oldest."""
    site = site_of(request)
    if not site.local:
        raise HTTPException(404, "this web process does not run beside the site, so it has no alerts")
    if not site.config.alerts.enabled:
        return json_answer({"alerts": []})
    # A page of shared memory, read in microseconds: no thread is needed.
    return json_answer({"alerts": raised(alerts_file.read(SitePaths.of(site.config)))})


_ALERT = {
    "type": "object",
    "required": ["name", "subject", "severity", "since_nano", "value", "threshold", "text", "advice"],
    "properties": {
        "name": {"type": "string", "description": "The rule (docs/alerts.md)."},
        "subject": {"type": "string", "description": "What it is about, such as a camera's id."},
        "severity": {"enum": ["warning", "critical"]},
        "since_nano": {"type": "integer", "description": "When it was raised, in nanoseconds since the epoch, UTC."},
        "value": {"type": "number"},
        "threshold": {"type": "number"},
        "text": {"type": "string"},
        "advice": {"type": "string"},
    },
}
OPENAPI: dict[str, parts.Part] = {
    "/api/v1/alerts": parts.get(
        "The alerts that are raised now, critical ones first, then the oldest.",
        {
            200: parts.json_of(
                {
                    "type": "object",
                    "required": ["alerts"],
                    "properties": {"alerts": {"type": "array", "items": _ALERT}},
                },
                "The alerts.",
            )
        },
        problems=[404],
    )
}
ROUTES = [Route("/api/v1/alerts", alerts)]
