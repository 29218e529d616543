"""An answer that does not end by itself: pieces as they come, until the reader is gone.

Pure ASGI. Every piece is one ``send``, which waits while the reader's connection is full.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from starlette.types import Receive, Scope, Send

Headers = Sequence[tuple[bytes, bytes]]


class StreamAnswer:
    """The answer with ``pieces``; these are closed when the reader leaves or the process ends."""

    def __init__(self, headers: Headers, pieces: AsyncIterator[bytes], status: int = 200) -> None:
        self._start = {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"cache-control", b"no-store")],
        }
        self._pieces = pieces

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the pieces end or the reader is gone."""
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
        if not sending.cancelled():
            sending.result()

    async def _send(self, send: Send) -> None:
        try:
            await send(self._start)
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            closing = getattr(self._pieces, "aclose", None)
            if closing is not None:
                await closing()


async def _left(receive: Receive) -> None:
    """Returns when the reader has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
