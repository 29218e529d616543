"""Frames of events, many per round trip."""

from __future__ import annotations

from collections.abc import Sequence

from engine.client.frame import Frame
from engine.servers.redis.session import Session
from engine.wire import jpeg
from engine.wire.events import key_of
from engine.wire.metadata import FrameEvent
from engine.wire.urls import RedisAddress

#: Bounds of one round trip: frames, and their bytes as the events give them. Together they bound the payloads held.
FRAMES_MAX = 32
BYTES_MAX = 8 * 1024 * 1024
#: Expected of a frame whose event does not say its size.
_UNKNOWN_BYTES = 256 * 1024


def expected_bytes(event: FrameEvent) -> int:
    """What a frame counts against BYTES_MAX."""
    return event.size_bytes or _UNKNOWN_BYTES


def announced_frame(event: FrameEvent, data: bytes) -> Frame:
    """The frame that an event announces. Where the event does not say its width and height, its bytes do."""
    width, height = event.width, event.height
    if not (width and height):
        width, height, _ = jpeg.describe(data)
    return Frame(
        event.vhost,
        key_of(event.redis_key).prefix,
        event.camera_id,
        event.timestamp_nano,
        int(event.sequence),
        len(data),
        width,
        height,
        event.encoding,
        True,
        data,
    )


class Fetcher:
    """The frames of a consumer's events, over one session. For one thread.

    Nothing is tried twice here: the caller knows whether to wait.
    """

    def __init__(self, address: RedisAddress, timeout_seconds: float) -> None:
        self.address = address
        self._session = Session(address, timeout_seconds)

    def fetch(self, events: Sequence[FrameEvent]) -> list[Frame | None]:
        """The events' frames in their order, None for each that is gone; without events, whether Redis answers.

        Raises RedisUnavailable, ServerRefused.
        """
        # The keys as the events have them: those of older editions are not what this engine would build.
        command = ("MGET", *(event.redis_key for event in events)) if events else ("PING",)
        (found,) = self._session.call(command)
        if not events:
            return []
        return [
            None if data is None else announced_frame(event, data) for event, data in zip(events, found, strict=True)
        ]

    def close(self) -> None:
        """Drop the connection."""
        self._session.close()
