"""What is worth saying of a camera that fails: a change, and not each of the tries that follow it."""

from __future__ import annotations

import re
import time

#: Seconds between the log's summaries of a camera that stays away.
SUMMARY_SECONDS = 3600.0
#: Reasons of one outage that are worth a line and an event each.
_REASONS_MAX = 8
#: Unusable frames in a row, and seconds that they last at least, before a camera that sent no other yet is said to send
#: no others. One that did has as long as for sending nothing.
_UNUSABLE_FRAMES_MIN = 3
UNUSABLE_SECONDS = 2.0


def reason_kind(error: str) -> str:
    """An error without its numbers: those change with every try, and make it no other one."""
    return re.sub(r"\d+(?:[.,]\d+)*", "#", error)


class Failures:
    """The failures of one camera since it last was well, from its capture process's view."""

    def __init__(self) -> None:
        self._kinds: set[str] = set()
        self._said_at = self._since = 0.0

    def is_news(self, error: str) -> bool:
        """Note a failure; True for the first, and for each reason that this outage did not have yet."""
        now = time.monotonic()
        kind = reason_kind(error)
        if not self._kinds:
            self._since = self._said_at = now
        if kind in self._kinds or len(self._kinds) >= _REASONS_MAX:
            return False
        self._kinds.add(kind)
        return True

    def resume(self, error: str) -> None:
        """A former process of this camera has said this already."""
        self.is_news(error)

    def summary_due(self) -> bool:
        """True once an hour of one outage."""
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
        """The camera is well again."""
        self._kinds.clear()


class UnusableFrames:
    """Notices a stream that flows and has no frame that can be stored. Costs nothing while frames are usable."""

    def __init__(self) -> None:
        self._usable = -1
        self._since = 0.0
        self._count = 0

    def add(self, usable: int, seconds: float) -> bool:
        """Note an unusable frame; ``usable`` counts the others so far. True once there were none of those for
        ``seconds``, and once only."""
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
