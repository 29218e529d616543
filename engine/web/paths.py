"""Names in paths. A camera's id is one segment, percent-encoded once: ``a%2Fb`` is camera ``a/b``.

uvicorn decodes the path before it is routed, and then an encoded slash looks like one between two segments. So paths of
the API are routed as they were sent, and a route decodes its own segments: it names them with ``CAMERA`` and ``KEY``.
"""

from __future__ import annotations

from urllib.parse import unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.errors import QueryError, WireError
from engine.wire.keys import encode_part

_API = b"/api/"


class _Segment(Convertor[str]):
    """One segment of a path, decoded."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        """The name. Raises HTTPException if it is not UTF-8."""
        return _decoded(value)

    def to_string(self, value: str) -> str:
        """Not used: no address is made from a route."""
        raise NotImplementedError


class _Key(Convertor[str]):
    """A frame's key: as it is, or with all of it percent-encoded once more, so that its colons are ``%3A``."""

    # A camera's id may contain slashes, and keys have them as they are.
    regex = ".+"

    def convert(self, value: str) -> str:
        """The key as Redis has it; not checked further. Raises HTTPException if it is not UTF-8, QueryError if a part
        of it is empty."""
        key = value if ":" in value else _decoded(value)
        try:
            # Clients encode what is not ASCII, and keys have it as it is.
            return ":".join(encode_part(_decoded(part)) for part in key.split(":"))
        except WireError as error:
            raise QueryError(f"key {key!r}: {error}") from None

    def to_string(self, value: str) -> str:
        """Not used: no address is made from a route."""
        raise NotImplementedError


def _decoded(segment: str) -> str:
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise HTTPException(404, f"the path's part {segment!r} is not UTF-8") from None


register_url_convertor("segment", _Segment())
register_url_convertor("key", _Key())

#: The part of a route's path that is a camera's id, and the one that is a frame's key.
CAMERA, KEY = "{camera:segment}", "{key:key}"


class RawPaths:
    """Has paths of the API routed as they were sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        raw: bytes = scope.get("raw_path") or b""
        if b"%" in raw and raw.startswith(_API):
            scope["path"] = raw.decode("latin-1")
        await self._app(scope, receive, send)
