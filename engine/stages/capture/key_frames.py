"""Watches the key frames of an H.264 or H.265 stream: how far apart they are, and how long one is awaited."""

from __future__ import annotations

from engine.shm.status_page import CaptureCount, StatusPage
from engine.wire.access_unit import AccessUnit
from engine.wire.state import NO_SETS

#: Nanoseconds for which a stream may begin without a key frame, or go on without one, before ``status`` says so.
_BEGINS_NANO = 2_000_000_000
_GOES_ON_NANO = 30_000_000_000


class KeyFrames:
    """The key frames of one camera; times are monotonic nanoseconds."""

    def __init__(self, page: StatusPage) -> None:
        self._page = page
        self._begun_at = self._last = 0
        self._units = 0
        #: True after a key frame without parameter sets, until one that has them.
        self._lacks_sets = False

    def begin(self, now: int) -> None:
        """A new stream begins."""
        self._begun_at, self._last, self._lacks_sets = now, 0, False

    def arrived(self, unit: AccessUnit, now: int) -> None:
        """An access unit has arrived."""
        self._units += 1
        if unit.lacks_sets:
            self._lacks_sets = True
        elif unit.keyframe:
            self._lacks_sets = False
            if self._last:
                self._page.counts[CaptureCount.KEY_INTERVAL_MS] = (now - self._last) // 1_000_000
            self._last = now

    def take_units(self) -> int:
        """Access units since the last call."""
        units, self._units = self._units, 0
        return units

    def note(self, now: int, *, awaited: bool) -> str:
        """What ``status`` says about the stream. ``awaited``: nothing is stored until the next key frame."""
        since = self._last or self._begun_at
        if (awaited or not self._last) and now - since > _BEGINS_NANO:
            return NO_SETS if self._lacks_sets else "waits for a key frame"
        if now - since > _GOES_ON_NANO:
            return f"has sent no key frame for over {_GOES_ON_NANO // 10**9} s; set a shorter interval in the camera"
        return ""
