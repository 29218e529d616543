"""Where events come from: one coroutine for each type reads Redis and puts events into a reader's queue, for ever.

To add a type, write a coroutine like these and put it into ``SOURCES``.

Redis may go away: a source goes on where it was when it answers again. What was stored meanwhile is read then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from engine.client.async_store import AsyncFrameStore
from engine.client.frame import FrameEntry
from engine.errors import RedisUnavailable, ServerRefused, WireError
from engine.shm.alerts_file import AlertsReader
from engine.web.events_gops import GopBuilder
from engine.web.events_position import Position
from engine.web.events_queue import EventQueue, sse
from engine.wire.alert import AlertKey, encode_alert_event
from engine.wire.journal import JournalEntry
from engine.wire.metadata import FrameEvents, GopEvents, StatusEvent, encode_event
from engine.wire.rfc3339 import NANO

#: Seconds between two looks at the cameras' states, and at alerts.
_STATES_SECONDS = 1.0
#: Seconds after which a source asks a Redis again that did not answer.
_AWAY_SECONDS = 1.0
#: An entry older than this is history: the source waits until the reader has room, instead of dropping events.
_HISTORY_NANO = 2 * NANO
#: Entries between two positions that the reader is told. After a broken connection it gets as many again at most.
_POSITION_EVERY = 50


class Wanted(NamedTuple):
    """What one reader gets. ``cameras`` is None for all, also later ones. ``ttl_seconds``, ``video_ttl_seconds``: how
    long Redis keeps a frame and a unit of video. ``alerts`` reads the alerts of ``site``; None for a reader who may not
    see them."""

    store: AsyncFrameStore
    queue: EventQueue
    position: Position
    cameras: list[str] | None
    ttl_seconds: int
    video_ttl_seconds: int
    site: str = ""
    alerts: AlertsReader | None = None


async def frames(wanted: Wanted) -> None:
    """An event for each stored frame."""
    store, queue, position = wanted.store, wanted.queue, wanted.position
    makers: dict[str, FrameEvents] = {}
    tail = store.tail_entries(wanted.cameras, position.frames or None)
    count = 0
    while True:
        entry = await tail.poll()
        if not position.frames:
            # From here on a reader can continue, also if no frame has come yet.
            position.frames.update(tail.position)
        if entry is None:
            count = 0
            continue
        if entry.camera not in makers:
            makers[entry.camera] = FrameEvents(store.vhost, store.prefix, entry.camera, wanted.ttl_seconds)
        position.frames[entry.camera] = entry.entry_id
        data = encode_event(makers[entry.camera].event(_journal_entry(entry)))
        if time.time_ns() - entry.unix_nano > _HISTORY_NANO:
            await queue.room()
        queue.put(sse("frame", data, str(position) if count % _POSITION_EVERY == 0 else ""))
        count += 1


async def gops(wanted: Wanted) -> None:
    """An event for each GOP of stored video, when the next one begins."""
    store, queue, position = wanted.store, wanted.queue, wanted.position
    makers: dict[str, GopEvents] = {}
    builders: dict[str, GopBuilder] = {}
    tail = store.tail_video_entries(wanted.cameras, position.video or None)
    while True:
        unit = await tail.poll()
        if not position.video:
            position.video.update(tail.position)
        if unit is None:
            continue
        gop = builders.setdefault(unit.camera, GopBuilder()).add(unit)
        if gop is None:
            continue
        if unit.camera not in makers:
            makers[unit.camera] = GopEvents(store.vhost, store.prefix, unit.camera, wanted.video_ttl_seconds)
        # The key frame that ended this GOP begins the next, so a reader continues before it.
        position.video[unit.camera] = f"{gop.last.unix_nano}-{gop.last.sequence}"
        if time.time_ns() - unit.unix_nano > _HISTORY_NANO:
            await queue.room()
        queue.put(sse("gop", encode_event(makers[unit.camera].event(gop)), str(position)))


async def states(wanted: Wanted) -> None:
    """An event for the state of each camera, and one for each change."""
    told: dict[str, tuple[str, int]] = {}
    while True:
        for camera, status in (await wanted.store.cameras()).items():
            change = (status.state, status.timestamp_nano)
            if wanted.cameras is not None and camera not in wanted.cameras:
                continue
            if status.state == "connecting" or told.get(camera) == change:
                continue
            told[camera] = change
            event = StatusEvent.of(camera, status)
            wanted.queue.put(sse("status", encode_event(event)))
        await asyncio.sleep(_STATES_SECONDS)


async def alerts(wanted: Wanted) -> None:
    """An event for each alert that is raised, and one for each change. With ``cameras``, only for alerts about one of
    them."""
    told: dict[AlertKey, tuple[str, int]] | None = None
    while wanted.alerts is not None:
        found = wanted.alerts.states()
        for state in found:
            # An alert that was cleared before the reader came is no news.
            known = told.get(state.key) if told is not None else None if state.state == "raised" else state.change
            if known != state.change and (wanted.cameras is None or state.subject in wanted.cameras):
                wanted.queue.put(sse("alert", encode_alert_event(wanted.site, state)))
        told = {state.key: state.change for state in found}
        await asyncio.sleep(_STATES_SECONDS)


#: Type of event -> its source.
SOURCES: dict[str, Callable[[Wanted], Coroutine[Any, Any, None]]] = {
    "frame": frames,
    "gop": gops,
    "status": states,
    "alert": alerts,
}


async def persistent(source: Callable[[Wanted], Awaitable[None]], wanted: Wanted) -> None:
    """Run a source until it ends, and again whenever Redis fails."""
    while True:
        try:
            await source(wanted)
            return
        except (RedisUnavailable, ServerRefused, WireError):
            await asyncio.sleep(_AWAY_SECONDS)


def _journal_entry(entry: FrameEntry) -> JournalEntry:
    return JournalEntry(
        entry.unix_nano,
        entry.sequence,
        entry.size,
        entry.width,
        entry.height,
        entry.encoding,
        entry.keyframe,
        camera_time_nano=entry.camera_time_nano,
    )
