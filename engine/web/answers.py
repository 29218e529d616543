"""Answers in JSON, and errors as problem documents (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from engine.errors import EngineError, QueryError, RedisUnavailable, UnknownName
from engine.wire.urls import mask


def json_answer(value: Any, status: int = 200) -> Response:
    """A value as JSON; never cached."""
    return Response(msgspec.json.encode(value), status, {"Cache-Control": "no-store"}, media_type="application/json")


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error: its status and one sentence. Secrets in addresses are masked."""
    body = {"title": HTTPStatus(status).phrase, "status": status, "detail": mask(detail)}
    return Response(msgspec.json.encode(body), status, headers, media_type="application/problem+json")


async def on_http_error(_: Request, error: Exception) -> Response:
    """The answer to a request that no route takes, or that a route refused."""
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, dict(error.headers or {}))


async def on_engine_error(_: Request, error: Exception) -> Response:
    """The answer to a request that failed with an error of the engine's."""
    assert isinstance(error, EngineError)
    return problem(_status_of(error), str(error))


def _status_of(error: EngineError) -> int:
    if isinstance(error, UnknownName):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, QueryError):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    if isinstance(error, RedisUnavailable):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.BAD_GATEWAY
