"""Smaller pictures of stored frames, for walls of many cameras.

A frame is scaled once for all who ask for the same width at about the same time: results are kept by key and width.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from starlette.exceptions import HTTPException

#: Threads that scale. The capture processes need the machine more.
_THREADS = 2
#: Pictures that are being scaled or wait for it. Beyond this, requests are refused.
_WAITING_MAX = 128
#: Scaled pictures that are kept.
_KEPT_BYTES_MAX = 8 * 2**20


class Scaler:
    """Scales frames in threads of its own; used from one event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "scale")
        self._waiting: dict[tuple[str, int], asyncio.Future[bytes]] = {}
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._kept_bytes = 0

    async def scaled(self, key: str, data: bytes, width: int) -> bytes:
        """A frame's JPEG at a smaller width. Raises WireError if it is no picture, HTTPException if too many wait."""
        name = (key, width)
        if (kept := self._kept.get(name)) is not None:
            self._kept.move_to_end(name)
            return kept
        future = self._waiting.get(name)
        if future is None:
            if len(self._waiting) >= _WAITING_MAX:
                raise HTTPException(503, f"{_WAITING_MAX} pictures wait to be scaled", {"Retry-After": "1"})
            future = asyncio.get_running_loop().run_in_executor(self._threads, _scale, data, width)
            self._waiting[name] = future
            future.add_done_callback(lambda done: self._keep(name, done))
        return await asyncio.shield(future)

    def close(self) -> None:
        """Give up what waits."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _keep(self, name: tuple[str, int], done: asyncio.Future[bytes]) -> None:
        del self._waiting[name]
        if done.cancelled() or done.exception():
            return
        self._kept[name] = done.result()
        self._kept_bytes += len(done.result())
        while self._kept_bytes > _KEPT_BYTES_MAX:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])


def _scale(data: bytes, width: int) -> bytes:
    # Loaded at the first picture: many sites never scale any, and cv2 takes memory.
    from engine.client.picture import scaled

    return scaled(data, width)
