"""Fetches the frames of events, many per round trip."""

from __future__ import annotations

from collections.abc import Sequence

from engine.client.frame import Frame
from engine.servers.redis.session import Session
from engine.wire import jpeg
from engine.wire.events import key_of
from engine.wire.metadata import FrameEvent
from engine.wire.redis_address import RedisAddress

#: Bounds of one round trip: frames, and their bytes according to the events. They bound the payloads held.
FRAMES_MAX = 32
BYTES_MAX = 8 * 1024 * 1024
#: Assumed size of a frame whose event does not give it.
_UNKNOWN_BYTES = 256 * 1024


def expected_bytes(event: FrameEvent) -> int:
    """The bytes that a frame counts against BYTES_MAX."""
    return event.size_bytes or _UNKNOWN_BYTES


def announced_frame(event: FrameEvent, data: bytes) -> Frame:
    """The frame that an event announces. If the event lacks width and height, they are read from ``data``."""
    width, height = event.width, event.height
    if not (width and height):
        width, height, _ = jpeg.describe(data)
    return Frame(
        event.vhost,
        key_of(event.redis_key, event.camera_id).prefix,
        event.camera_id,
        event.timestamp_nano,
        int(event.sequence),
        len(data),
        width,
        height,
        event.encoding,
        True,
        data,
        camera_time_nano=event.camera_time_nano,
    )


class Fetcher:
    """Fetches frames of a consumer's events over one session. For one thread.

    Nothing is tried twice here: the caller decides whether to wait.
    """

    def __init__(self, address: RedisAddress, timeout_seconds: float) -> None:
        self.address = address
        self._session = Session(address, timeout_seconds)

    def fetch(self, events: Sequence[FrameEvent]) -> list[Frame | None]:
        """The events' frames in order, None for each that is gone. Without events, checks that Redis answers.

        Raises RedisUnavailable, ServerRefused.
        """
        # The events' own keys are used: older editions build keys differently from this engine.
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
