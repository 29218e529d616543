"""The dashboard at ``/``: one page and its files, served from the package."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_STATIC = Path(str(resources.files("engine.web"))) / "static"
#: A file whose name ends otherwise is not served.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: Browsers keep the files, and ask each time whether they have changed. After an update no old script runs.
_CACHE = "no-cache"


class _File(NamedTuple):
    body: bytes
    media_type: str
    etag: str


@lru_cache(maxsize=1)
def _files() -> dict[str, _File]:
    """All files of the dashboard by their path below ``/static/``. Nothing else can be asked for."""
    files = {}
    for path in _STATIC.rglob("*"):
        media_type = _TYPES.get(path.suffix)
        if media_type and path.is_file():
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            files[path.relative_to(_STATIC).as_posix()] = _File(body, media_type, etag)
    return files


def _answer(request: Request, name: str) -> Response:
    file = _files().get(name)
    if file is None:
        raise HTTPException(404, "the dashboard has no such file")
    headers = {"ETag": file.etag, "Cache-Control": _CACHE}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if known & {file.etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)


async def page(request: Request) -> Response:
    """The dashboard's page."""
    return _answer(request, "index.html")


async def static(request: Request) -> Response:
    """A file of the dashboard or of the log-in page. Its ETag is the hash of its content."""
    return _answer(request, request.path_params["path"])


ROUTES = [Route("/", page), Route("/static/{path:path}", static)]
