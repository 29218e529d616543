"""Decides which failures of a camera are logged: changes, but not each further try."""

from __future__ import annotations

import re
import time

#: Seconds between the log's summaries of a camera that stays away.
SUMMARY_SECONDS = 3600.0
#: Reasons of one outage that get a log line and an event each, at most.
_REASONS_MAX = 8
#: Before any usable frame, a camera is reported after at least this many unusable frames over this many seconds. After
#: a usable frame, the limit is the one for sending nothing.
_UNUSABLE_FRAMES_MIN = 3
UNUSABLE_SECONDS = 2.0


def reason_kind(error: str) -> str:
    """An error without its numbers, which change with every try but do not make it a different error."""
    return re.sub(r"\d+(?:[.,]\d+)*", "#", error)


class Failures:
    """The failures of one camera since it last worked, as its capture process saw them."""

    def __init__(self) -> None:
        self._kinds: set[str] = set()
        self._said_at = self._since = 0.0

    def is_news(self, error: str) -> bool:
        """Note a failure; True for the first one, and for each new reason in this outage."""
        now = time.monotonic()
        kind = reason_kind(error)
        if not self._kinds:
            self._since = self._said_at = now
        if kind in self._kinds or len(self._kinds) >= _REASONS_MAX:
            return False
        self._kinds.add(kind)
        return True

    def resume(self, error: str) -> None:
        """Note a failure that a former process of this camera has already logged."""
        self.is_news(error)

    def summary_due(self) -> bool:
        """True once per hour of an outage."""
        now = time.monotonic()
        if not self._kinds or now - self._said_at < SUMMARY_SECONDS:
            return False
        self._said_at = now
        return True

    @property
    def seconds(self) -> float:
        """How long the outage has lasted."""
        return time.monotonic() - self._since if self._kinds else 0.0

    def over(self) -> None:
        """The camera works again."""
        self._kinds.clear()


class UnusableFrames:
    """Notices a flowing stream without any usable frame. Costs nothing while frames are usable."""

    def __init__(self) -> None:
        self._usable = -1
        self._since = 0.0
        self._count = 0

    def add(self, usable: int, seconds: float) -> bool:
        """Note an unusable frame; ``usable`` counts the usable ones so far. True, and only once, after ``seconds``
        without a usable frame."""
        now = time.monotonic()
        if usable != self._usable:
            self._usable, self._since, self._count = usable, now, 0
        if self._count < 0:
            return False
        self._count += 1
        if self._count < _UNUSABLE_FRAMES_MIN or now - self._since < seconds:
            return False
        self._count = -1
        return True
