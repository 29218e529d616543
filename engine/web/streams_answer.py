"""An answer that does not end by itself, or that may be long: sent piece by piece, and given up with its reader.

The source of the pieces is a coroutine that writes. A write waits while the reader does not read: uvicorn holds at most
64 KB beside the piece that is being written. When the reader is gone, the coroutine is cancelled at once, so what it
holds is freed by its own ``finally``. When the process ends, ``access.Gate`` cancels the whole answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

#: Seconds after which a task that was cancelled, and still runs, is cancelled again.
_CANCEL_SECONDS = 0.1
#: Sends one piece of an answer.
Write = Callable[[bytes], Awaitable[None]]


class StreamAnswer(Response):
    """An answer whose body ``source`` writes. A HEAD request gets the headers only, and ``source`` is not called.
    ``close`` is called at the end in any case."""

    def __init__(
        self,
        source: Callable[[Write], Awaitable[None]],
        media_type: str,
        headers: Mapping[str, str] | None = None,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(None, 200, headers, media_type)
        self._source = source
        self._close = close
        # The length of an empty body, which this is not.
        del self.headers["content-length"]
        self.headers["Cache-Control"] = "no-store"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, until its end or until the reader is gone."""
        try:
            await self._answer(scope, receive, send)
        finally:
            if self._close is not None:
                await self._close()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        last: Message = {"type": "http.response.body", "body": b"", "more_body": False}
        if scope["method"] == "HEAD":
            await send(last)
            return

        async def write(piece: bytes) -> None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        work = asyncio.ensure_future(self._source(write))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
                await send(last)
        finally:
            await end(work, gone)


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait for their ends. Their results and errors are dropped."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        # A cancellation that meets a timeout of redis-py's is lost in it: then it is repeated.
        done, pending = await asyncio.wait(pending, timeout=_CANCEL_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()


async def _gone(receive: Receive) -> None:
    """Return when the reader has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
