"""The dashboard at ``/``: one page and its files, served from the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

_STATIC = Path(str(resources.files("engine.web"))) / "static"


async def page(_: Request) -> Response:
    """The dashboard's page."""
    return FileResponse(_STATIC / "index.html")


ROUTES = [Route("/", page), Mount("/static", StaticFiles(directory=_STATIC))]
