"""What follows from the order of a camera's access units: which of them decode, and how far they are reordered."""

from __future__ import annotations

from collections import deque
from enum import Enum

from engine.client.video import VideoEntry
from engine.wire.journal import EntryId
from engine.wire.keys import next_sequence
from engine.wire.rfc3339 import NANO

#: Pictures that H.264 and H.265 let a decoder hold back.
_DEPTH_MAX = 16
#: Pictures that are further apart are not reordered: the camera's clock has jumped.
_REORDERED_NANO_MAX = 5 * NANO


class Step(Enum):
    """What to do with the next unit."""

    #: It continues the units before it.
    CONTINUE = "continue"
    #: Decoding begins anew with this key frame: the units before it are not the ones that the camera sent before it.
    BEGIN = "begin"
    #: It cannot be decoded.
    SKIP = "skip"


class Continuity:
    """Follows one camera's units, in decode order.

    After a gap in the sequences, nothing decodes until the next key frame. ``skipped`` counts the units passed over.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._last: VideoEntry | None = None
        self._broken = True

    def step(self, unit: VideoEntry) -> Step:
        """What to do with the next unit."""
        last, self._last = self._last, unit
        continues = last is not None and unit.sequence == next_sequence(last.sequence) and _alike(unit, last)
        if unit.keyframe:
            begins = self._broken or not continues
            self._broken = False
            return Step.BEGIN if begins else Step.CONTINUE
        if self._broken or not continues:
            self._broken = True
            self.skipped += 1
            return Step.SKIP
        return Step.CONTINUE

    def break_off(self) -> None:
        """Nothing decodes until the next key frame: a unit is damaged, or the caller has left out units."""
        self._broken = True


class Reordering:
    """How far a camera's pictures are reordered: ``depth`` is the greatest number of pictures that precede another one
    in decode order and are shown after it. 0 without B-frames."""

    def __init__(self) -> None:
        self.depth = 0
        self._recent: deque[int] = deque(maxlen=_DEPTH_MAX)
        self._last: EntryId = (0, 0)

    def see(self, unit: VideoEntry) -> None:
        """Take in the next unit; units seen before are ignored."""
        identifier = unit.unix_nano, unit.sequence
        if identifier <= self._last:
            return
        self._last = identifier
        shown = unit.shown_nano
        later = sum(shown < other < shown + _REORDERED_NANO_MAX for other in self._recent)
        self.depth = max(self.depth, later)
        self._recent.append(shown)


def _alike(unit: VideoEntry, other: VideoEntry) -> bool:
    """True if one decoder takes both."""
    return (unit.encoding, unit.width, unit.height) == (other.encoding, other.width, other.height)
