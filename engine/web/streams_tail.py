"""One tail for each camera that is watched, shared by all viewers of ``stream.mjpeg``.

    Redis ─> tail: waits for entries, fetches the newest frame ─> slot of each viewer that wants it ─> its socket

A slot holds one frame. A newer one replaces it, so a viewer that reads slowly skips frames and costs nothing more. The
tail fetches no frame that nobody wants. It begins with the first viewer and ends with the last.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from engine.client.async_transport import AsyncTransport
from engine.client.frame import Frame, FrameEntry, with_data
from engine.client.tenant import ENTRIES_MAX, Tenant
from engine.client.transport import Query
from engine.errors import EngineError
from engine.web.streams_answer import end
from engine.wire.redis_address import RedisAddress
from engine.wire.rfc3339 import NANO

#: The longest wait for an entry in one round trip, in milliseconds.
_BLOCK_MS = 500
#: Seconds after which a Redis that did not answer is asked again.
_AWAY_SECONDS = 0.5


class Viewer:
    """One viewer's slot. ``fps`` bounds its frames a second; 0 means all."""

    def __init__(self, fps: float) -> None:
        self._interval = round(NANO / fps) if fps else 0
        #: The capture time from which on the next frame is due.
        self._due = 0
        self._frame: Frame | None = None
        self._filled = asyncio.Event()

    def wants(self, unix_nano: int) -> bool:
        """True if a frame of this time is due. Half an interval early is in time, because frames do not come evenly."""
        return unix_nano >= self._due - self._interval // 2

    def put(self, frame: Frame) -> None:
        """Give the viewer a frame."""
        self._due = max(self._due + self._interval, frame.unix_nano)
        self._frame = frame
        self._filled.set()

    async def take(self) -> Frame:
        """The newest frame that was not taken yet."""
        while self._frame is None:
            self._filled.clear()
            await self._filled.wait()
        frame, self._frame = self._frame, None
        return frame


class CameraTail:
    """Follows the frames of one camera for its viewers."""

    def __init__(self, address: RedisAddress, timeout_seconds: float, tenant: Tenant, camera: str) -> None:
        self._transport = AsyncTransport(address, timeout_seconds)
        self._tenant = tenant
        self._camera = camera
        self._after = ""
        #: The newest frame, for a viewer that comes.
        self._newest: Frame | None = None
        self.viewers: set[Viewer] = set()
        self._task = asyncio.ensure_future(self._run())

    def add(self, viewer: Viewer) -> None:
        """Give frames to one more viewer, beginning with the newest."""
        self.viewers.add(viewer)
        if self._newest is not None:
            viewer.put(self._newest)

    async def close(self) -> None:
        """End the tail."""
        await end(self._task)
        await self._transport.close()

    async def _run(self) -> None:
        while True:
            try:
                frame = await self._transport.run(self._next())
            except EngineError:
                # Away, or not ready yet after a restart. Viewers wait.
                await asyncio.sleep(_AWAY_SECONDS)
                continue
            if frame is not None:
                self._newest = frame
                for viewer in self.viewers:
                    if viewer.wants(frame.unix_nano):
                        viewer.put(frame)

    def _next(self) -> Query[Frame | None]:
        journal = self._tenant.journal(self._camera)
        if self._after:
            (reply,) = yield [("XREAD", "COUNT", ENTRIES_MAX, "BLOCK", _BLOCK_MS, "STREAMS", journal, self._after)]
            found = reply[0][1] if reply else []
        else:
            (found,) = yield [("XREVRANGE", journal, "+", "-", "COUNT", 1)]
            self._after = "0-0"
        if not found:
            return None
        self._after = found[-1][0].decode()
        entries, _ = self._tenant.parse(self._camera, found[-1:])
        if not entries or not self._wanted(entries[0]):
            return None
        (data,) = yield [("GET", entries[0].key)]
        return None if data is None else with_data(entries[0], data)

    def _wanted(self, entry: FrameEntry) -> bool:
        return any(viewer.wants(entry.unix_nano) for viewer in self.viewers)


class Tails:
    """The tails of one web process, by tenant and camera."""

    def __init__(self, address: RedisAddress, timeout_seconds: float) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._tails: dict[tuple[Tenant, str], CameraTail] = {}
        #: Tails that are being closed. Referenced here, so that they are not collected before.
        self._closing: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._tails)

    @contextlib.contextmanager
    def viewer(self, tenant: Tenant, camera: str, fps: float) -> Iterator[Viewer]:
        """A viewer of a camera, while the block lasts."""
        name, viewer = (tenant, camera), Viewer(fps)
        tail = self._tails.get(name)
        if tail is None:
            tail = self._tails[name] = CameraTail(self._address, self._timeout_seconds, tenant, camera)
        tail.add(viewer)
        try:
            yield viewer
        finally:
            tail.viewers.discard(viewer)
            if not tail.viewers:
                del self._tails[name]
                closing = asyncio.ensure_future(tail.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
