"""Health of the site, for supervisors and load balancers: ``/live``, ``/ready``, ``/health``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.web.answers import json_answer


async def live(_: Request) -> Response:
    """200 while the web process answers."""
    return json_answer({"status": "ok"})


ROUTES = [Route("/live", live)]
