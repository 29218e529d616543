"""Requests to an ASGI application, without a server."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def ask(
    app: ASGIApp,
    path: str,
    *,
    method: str = "GET",
    body: bytes = b"",
    client: str = "127.0.0.1",
    host: str = "127.0.0.1:8080",
    scheme: str = "http",
    **headers: str,
) -> Answer:
    """One request; header names with _ for -."""
    return asyncio.run(_ask(app, path, method, body, client, scheme, {"host": host, **headers}))


async def _ask(
    app: ASGIApp, path: str, method: str, body: bytes, client: str, scheme: str, headers: dict[str, str]
) -> Answer:
    sent: list[Message] = []
    left = [body]

    async def receive() -> Message:
        return {"type": "http.request", "body": left.pop(), "more_body": False} if left else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": (client, 40_000),
        "server": ("127.0.0.1", 8080),
        "state": {},
    }
    await app(scope, receive, send)
    start = sent[0]
    answered = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], answered, b"".join(part.get("body", b"") for part in sent[1:]))
