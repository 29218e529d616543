"""The site's raised alerts: ``/api/v1/alerts``."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.shm import alerts_file
from engine.shm.site import SitePaths
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
#: This module's part of the OpenAPI description.
OPENAPI: dict[str, Any] = {
    "/api/v1/alerts": {
        "get": {
            "summary": "The alerts that are raised now.",
            "responses": {
                "200": {
                    "description": "Critical ones first, then the oldest.",
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "required": ["alerts"],
                                "properties": {"alerts": {"type": "array", "items": _ALERT}},
                            }
                        }
                    },
                },
                "404": {
                    "description": "The web process does not run beside the site.",
                    "content": {"application/problem+json": {"schema": {"type": "object"}}},
                },
            },
        }
    }
}
ROUTES = [Route("/api/v1/alerts", alerts)]
