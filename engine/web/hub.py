"""Follows the journals of the cameras that somebody watches, once for all viewers.

One tail reads all watched cameras of a tenant; it begins with the first viewer and ends with the last. Each viewer has
a place of its own for what it has not taken yet, and that place is bounded: a slow viewer loses frames, and nobody else
notices. While Redis is away the tail tries again, and goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

from structlog.typing import FilteringBoundLogger

from engine.backoff import Backoff
from engine.client.frame import FrameEntry
from engine.client.iterators import AsyncFrames
from engine.errors import EngineError

Item = TypeVar("Item", bound=FrameEntry)
Taken_contra = TypeVar("Taken_contra", bound=FrameEntry, contravariant=True)
#: Pauses, in seconds, before a tail that failed is tried again.
_BACKOFF_SECONDS_MIN, _BACKOFF_SECONDS_MAX = 0.1, 2.0


class Viewer(Protocol[Taken_contra]):
    """Somebody who watches a camera. ``take`` must return at once."""

    camera: str

    def take(self, item: Taken_contra) -> None:
        """The next frame or access unit of the camera."""
        ...


class Tail(Protocol[Item]):
    """Makes a tail over some cameras, from a position on: ``AsyncFrameStore.tail`` and its like."""

    def __call__(self, cameras: list[str], since: Mapping[str, str]) -> AsyncFrames[Item]:
        """A new tail."""
        ...


class Hub(Generic[Item]):
    """The viewers of one tenant's cameras."""

    def __init__(self, tail: Tail[Item], log: FilteringBoundLogger) -> None:
        self._tail = tail
        self._log = log
        self._viewers: defaultdict[str, set[Viewer[Item]]] = defaultdict(set)
        self._position: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def viewers(self) -> int:
        """The number of viewers now."""
        return sum(map(len, self._viewers.values()))

    def join(self, viewer: Viewer[Item], newest: FrameEntry | None) -> None:
        """``viewer`` gets what is stored after ``newest``, the last that it has; or all, if it has none."""
        camera = viewer.camera
        if camera not in self._viewers:
            self._position[camera] = newest.entry_id if newest else "0-0"
        self._viewers[camera].add(viewer)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def leave(self, viewer: Viewer[Item]) -> None:
        """``viewer`` gets no more."""
        viewers = self._viewers[viewer.camera]
        viewers.discard(viewer)
        if not viewers:
            del self._viewers[viewer.camera]

    async def close(self) -> None:
        """End the tail."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        backoff = Backoff(_BACKOFF_SECONDS_MIN, _BACKOFF_SECONDS_MAX)
        try:
            while self._viewers:
                try:
                    await self._follow(backoff)
                except EngineError as error:
                    if not backoff.failures:
                        self._log.warning("live pictures wait for Redis", error=error)
                    await asyncio.sleep(backoff.next_seconds())
        finally:
            self._task = None

    async def _follow(self, backoff: Backoff) -> None:
        """Read until the set of watched cameras changes."""
        watched = set(self._viewers)
        tail = self._tail(sorted(watched), {camera: self._position[camera] for camera in watched})
        while self._viewers.keys() == watched:
            item = await tail.poll()
            backoff.reset()
            if item is None:
                continue
            self._position[item.camera] = item.entry_id
            for viewer in tuple(self._viewers.get(item.camera, ())):
                viewer.take(item)
