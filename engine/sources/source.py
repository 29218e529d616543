"""The interface of every source that capture reads from: methods, results and errors.

``grab`` waits for the next frame, which gets its time stamp on arrival. ``retrieve`` then makes a JPEG of it.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

from engine.errors import CameraUnavailable
from engine.wire.state import Mode

#: Longest sleep of a paced source before it returns to its caller, in seconds.
PACE_SECONDS_MAX = 0.2
#: Seconds that a paced source may fall behind before it stops catching up.
_LAG_SECONDS_MAX = 1.0


class SourceEnded(CameraUnavailable):
    """A source that does not loop has delivered its last frame."""


class NotOpened(CameraUnavailable):
    """A network camera was asked for its stream and sent none; FFmpeg does not say why."""


class CapturedFrame(NamedTuple):
    """A JPEG: the joined bytes of ``parts``, valid until the next grab. Width and height in pixels."""

    parts: tuple[bytes | memoryview, ...]
    width: int
    height: int


class Source(Protocol):
    """A source that capture reads from."""

    codec: str
    mode: Mode

    def grab(self) -> bool:
        """Wait for a frame; False if none has arrived yet. Raises CameraUnavailable, SourceEnded."""
        ...

    def retrieve(self, unix_nano: int, sequence: int) -> CapturedFrame:
        """The grabbed frame, which has this time stamp and sequence. Raises WireError if it is no whole JPEG."""
        ...

    def close(self) -> None:
        """Release the connection."""
        ...


class Pacer:
    """Limits a source without its own clock to ``fps`` frames per second."""

    def __init__(self, fps: float) -> None:
        self._interval = 1 / fps
        self._due = time.monotonic()

    def wait(self) -> bool:
        """Sleep until the next frame is due, PACE_SECONDS_MAX at most; True if it is due now."""
        early = self._due - time.monotonic()
        if early > 0:
            time.sleep(min(early, PACE_SECONDS_MAX))
            if early > PACE_SECONDS_MAX:
                return False
        elif early < -_LAG_SECONDS_MAX:
            self._due -= early
        self._due += self._interval
        return True
