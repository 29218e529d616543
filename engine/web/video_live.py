"""Live video for Media Source: one tail for each camera that is watched feeds all viewers of its ``live.mp4``.

    Redis ─> tail: access units ─> samples, also of the GOP so far ─> queue of each viewer ─> fragments, its socket

A unit becomes a sample when the next one is stored, because only then it is known how long it is shown. A viewer begins
with the GOP so far. Its queue is bounded: a viewer that falls behind loses what waits, and goes on at the next key
frame. Samples are shared; what is a viewer's own is the 120 bytes before each. The tail ends with its last viewer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from starlette.exceptions import HTTPException

from engine.client.access_units import Continuity, Reordering, Step
from engine.client.async_store import AsyncFrameStore
from engine.client.film_track import TICKS
from engine.client.video import VideoUnit
from engine.errors import EngineError, RedisUnavailable, WireError
from engine.web.streams_answer import end
from engine.web.video_boxes import Sample, fragment
from engine.web.video_codecs import Track, payload_of, track_of
from engine.wire.rfc3339 import NANO

#: Bytes and samples that wait for one viewer, and bytes of a GOP that is kept for viewers that come.
_WAITING_BYTES_MAX = 4 * 2**20
_WAITING_SAMPLES_MAX = 1_000
#: Entries that are looked at for B-frames before a viewer begins.
_LOOK_BACK = 64
#: Seconds that a viewer waits for the first key frame.
_BEGIN_SECONDS = 10.0
#: Seconds after which a Redis that did not answer is asked again.
_AWAY_SECONDS = 0.5
_TICK_NANO = NANO // TICKS

Name = tuple[str, str]


class LiveSample(NamedTuple):
    """A sample, and when it is decoded and shown: in ticks since the epoch, and in nanoseconds by its time stamp."""

    sample: Sample
    tick: int
    unix_nano: int


class View:
    """One viewer."""

    def __init__(self, tail: LiveTail, leave: Callable[[View], None]) -> None:
        self._tail = tail
        self._leave = leave
        self._waiting: deque[LiveSample] = deque()
        self._bytes = 0
        #: True until the next key frame.
        self._skips = True
        self._ended = False
        self._changed = asyncio.Event()
        self._number = 0
        self._begin_tick = 0

    def put(self, item: LiveSample) -> None:
        """Give the viewer a sample. After the film's end it gets no more: they would be another film's."""
        if self._ended:
            return
        if self._skips and not item.sample.keyframe:
            return
        full = self._bytes + len(item.sample.data) > _WAITING_BYTES_MAX or len(self._waiting) >= _WAITING_SAMPLES_MAX
        if full and self._waiting:
            self._waiting.clear()
            self._bytes = 0
            self._skips = not item.sample.keyframe
            if self._skips:
                return
        self._skips = False
        self._waiting.append(item)
        self._bytes += len(item.sample.data)
        self._changed.set()

    def end(self) -> None:
        """The tail cannot go on in this film."""
        self._ended = True
        self._changed.set()

    def close(self) -> None:
        """The viewer is gone."""
        self._leave(self)

    async def begin(self) -> tuple[Track, int]:
        """The film's track, and the time stamp of its first unit. Raises HTTPException if there is no such film."""
        try:
            await asyncio.wait_for(self._wait(), _BEGIN_SECONDS)
        except TimeoutError:
            self._tail.check()
            raise HTTPException(
                503, f"camera {self._tail.camera} stored no key frame within {_BEGIN_SECONDS:g} s", {"Retry-After": "5"}
            ) from None
        self._tail.check()
        track = self._tail.track
        if track is None or not self._waiting or self._ended:
            raise HTTPException(503, f"camera {self._tail.camera} changes its codec; try again", {"Retry-After": "1"})
        self._begin_tick = self._waiting[0].tick
        return track, self._waiting[0].unix_nano

    async def take(self) -> bytes:
        """The fragments that wait; empty at the film's end."""
        await self._wait()
        pieces: list[bytes] = []
        while self._waiting:
            item = self._waiting.popleft()
            self._number += 1
            pieces.append(fragment(self._number, item.tick - self._begin_tick, [item.sample]))
        self._bytes = 0
        return b"".join(pieces)

    async def _wait(self) -> None:
        while not self._waiting and not self._ended:
            self._changed.clear()
            await self._changed.wait()


class LiveTail:
    """Follows one camera's video for its viewers. ``may_come``: the site file says that its video is stored."""

    def __init__(self, store: AsyncFrameStore, camera: str, *, may_come: bool) -> None:
        self.camera = camera
        self._may_come = may_come
        self.track: Track | None = None
        self.views: set[View] = set()
        self._store = store
        self._refusal: HTTPException | EngineError | None = None
        self._continuity = Continuity()
        self._reordering = Reordering()
        self._gop: list[LiveSample] = []
        self._gop_bytes = 0
        #: The newest unit, until the next one says how long it is shown; its tick, and its payload.
        self._held: tuple[VideoUnit, int, bytes] | None = None
        self._task = asyncio.ensure_future(self._run())

    @property
    def over(self) -> bool:
        """True if no viewer can join any more."""
        return self._task.done()

    def check(self) -> None:
        """Raises why there is no film, if there is none."""
        if self._refusal is not None:
            raise self._refusal

    def add(self, view: View) -> None:
        """Give samples to one more viewer."""
        self.views.add(view)
        for item in self._gop:
            view.put(item)

    async def close(self) -> None:
        """End the tail."""
        await end(self._task)
        await self._store.close()

    async def _run(self) -> None:
        try:
            await self._follow(await self._look_back())
        except (HTTPException, EngineError) as error:
            self._refusal = error
        finally:
            for view in self.views:
                view.end()

    async def _look_back(self) -> dict[str, str]:
        """See how the camera's pictures are ordered, and read the GOP so far; where the tail goes on."""
        entries = [entry async for entry in self._store.video_entries(self.camera, limit=_LOOK_BACK, reverse=True)]
        if not entries and self._may_come:
            raise HTTPException(
                503, f"camera {self.camera} has no video stored now; try again once it sends some", {"Retry-After": "5"}
            )
        if not entries:
            raise HTTPException(
                409, f"camera {self.camera} stores no video (video = false); watch stream.mjpeg in place of live.mp4"
            )
        for entry in reversed(entries):
            self._reordering.see(entry)
        self._check_order()
        position = {self.camera: entries[0].entry_id}
        async for unit in self._store.video(self.camera, entries[0].shown_nano, from_key=True):
            self._take(unit)
            position[self.camera] = unit.entry_id
        return position

    async def _follow(self, position: dict[str, str]) -> None:
        while True:
            try:
                tail = self._store.tail_video(self.camera, position)
                async for unit in tail:
                    self._take(unit)
                    position = tail.position
            except RedisUnavailable:
                # Viewers wait.
                await asyncio.sleep(_AWAY_SECONDS)

    def _check_order(self) -> None:
        if self._reordering.depth:
            raise HTTPException(
                422,
                f"camera {self.camera} sends pictures out of order (B-frames), which live.mp4 does not take; watch "
                "stream.mjpeg, or video.mp4 of what is stored",
            )

    def _take(self, unit: VideoUnit) -> None:
        self._reordering.see(unit)
        self._check_order()
        if self._continuity.step(unit) is Step.SKIP:
            return
        if unit.keyframe:
            try:
                track = track_of(unit)
            except WireError:
                self._continuity.break_off()
                return
            if self.track is not None and track != self.track:
                # Another codec, size or set of parameters: another film.
                for view in self.views:
                    view.end()
                self._gop, self._gop_bytes, self._held = [], 0, None
            self.track = track
        if self.track is None:
            return
        tick = unit.shown_nano // _TICK_NANO
        if self._held is not None:
            held, held_tick, data = self._held
            tick = max(tick, held_tick + 1)
            duration = min(tick - held_tick, 2**32 - 1)
            self._give(LiveSample(Sample(data, duration, 0, held.keyframe), held_tick, held.unix_nano))
        self._held = (unit, tick, payload_of(self.track, unit))

    def _give(self, item: LiveSample) -> None:
        if item.sample.keyframe:
            self._gop, self._gop_bytes = [], 0
        if item.sample.keyframe or self._gop:
            self._gop.append(item)
            self._gop_bytes += len(item.sample.data)
            if self._gop_bytes > _WAITING_BYTES_MAX or len(self._gop) > _WAITING_SAMPLES_MAX:
                # Too much to keep: viewers that come wait for the next key frame.
                self._gop, self._gop_bytes = [], 0
        for view in self.views:
            view.put(item)


class LiveViews:
    """The tails of one web process, by tenant and camera."""

    def __init__(self) -> None:
        self._tails: dict[Name, LiveTail] = {}
        #: Tails that are being closed. Referenced here, so that they are not collected before.
        self._closing: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._tails)

    def open(self, name: Name, make_store: Callable[[], AsyncFrameStore], *, may_come: bool) -> View:
        """A viewer of a camera, until its ``close``."""
        tail = self._tails.get(name)
        if tail is None or tail.over:
            tail = self._tails[name] = LiveTail(make_store(), name[1], may_come=may_come)
        of_view = tail

        def leave(view: View) -> None:
            of_view.views.discard(view)
            if of_view.views:
                return
            if self._tails.get(name) is of_view:
                del self._tails[name]
            closing = asyncio.ensure_future(of_view.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

        view = View(tail, leave)
        tail.add(view)
        return view
