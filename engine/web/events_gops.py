"""Puts the units of video journals together to GOPs, for their events. Pure."""

from __future__ import annotations

from typing import cast

from engine.client.video import VideoEntry
from engine.wire.journal import JournalEntry
from engine.wire.keys import next_sequence
from engine.wire.metadata import Gop


class GopBuilder:
    """Follows one camera's units, in decode order. A GOP is complete when the next key frame comes."""

    def __init__(self) -> None:
        self._first: VideoEntry | None = None
        self._last: VideoEntry | None = None
        self._frames = 0
        self._size = 0
        #: True if a unit of the GOP is missing: those after it do not belong to it.
        self._broken = False

    def add(self, unit: VideoEntry) -> Gop | None:
        """Take in the next unit; the GOP that it ends, if any. Units before the first key frame are passed over."""
        last = self._last
        continues = last is not None and not self._broken and unit.sequence == next_sequence(last.sequence)
        if unit.keyframe:
            done = self._done(unit.unix_nano if continues else None)
            self._first = self._last = unit
            self._frames, self._size, self._broken = 1, unit.size, False
            return done
        if self._first is not None:
            if continues:
                self._last = unit
                self._frames += 1
                self._size += unit.size
            else:
                self._broken = True
        return None

    def _done(self, end_nano: int | None) -> Gop | None:
        if self._first is None or self._last is None:
            return None
        end = self._last.unix_nano if end_nano is None else end_nano
        # An entry as a reader gets it has all fields of the journal's that an event shows.
        first, last = cast("JournalEntry", self._first), cast("JournalEntry", self._last)
        return Gop(first, last, self._frames, self._size, end)
