"""What capture reads from: the methods that every source has, and what they give and raise.

A source is grabbed, then retrieved: ``grab`` waits for the next frame to arrive, which is when it gets its time stamp,
and ``retrieve`` makes a JPEG of it.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

from engine.errors import CameraUnavailable
from engine.wire.state import Mode

#: Seconds a paced source sleeps at most before it lets its caller look around.
PACE_SECONDS_MAX = 0.2
#: Seconds that a paced source may fall behind before it gives up catching up.
_LAG_SECONDS_MAX = 1.0


class SourceEnded(CameraUnavailable):
    """A source that does not loop has delivered its last frame."""


class NotOpened(CameraUnavailable):
    """A network camera was asked for its stream, and none came; why, FFmpeg does not say."""


class CapturedFrame(NamedTuple):
    """A JPEG whose bytes are ``parts`` joined; valid until the next grab. Width and height in pixels."""

    parts: tuple[bytes | memoryview, ...]
    width: int
    height: int


class Source(Protocol):
    """What capture reads from."""

    codec: str
    mode: Mode

    def grab(self) -> bool:
        """Wait for a frame; False where none came yet. Raises CameraUnavailable, SourceEnded."""
        ...

    def retrieve(self, unix_nano: int, sequence: int) -> CapturedFrame:
        """The grabbed frame, which got this time stamp and sequence. Raises WireError where it is no whole JPEG."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


class Pacer:
    """Holds a source that has no clock of its own to ``fps`` frames per second."""

    def __init__(self, fps: float) -> None:
        self._interval = 1 / fps
        self._due = time.monotonic()

    def wait(self) -> bool:
        """Sleep until the next frame is due, PACE_SECONDS_MAX at most; True where it is due now."""
        early = self._due - time.monotonic()
        if early > 0:
            time.sleep(min(early, PACE_SECONDS_MAX))
            if early > PACE_SECONDS_MAX:
                return False
        elif early < -_LAG_SECONDS_MAX:
            self._due -= early
        self._due += self._interval
        return True
