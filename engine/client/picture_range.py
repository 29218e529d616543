"""One camera's pictures between two times."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any

from engine.client.decoder import Decoded, Decoder, Painter
from engine.client.frame import FrameEntry
from engine.client.picture_reader import PictureReader
from engine.client.transport import Query
from engine.client.video import Colour, Picture, VideoEntry, VideoUnit
from engine.client.video_range import VideoRange

#: Entries that are shown to the decoder ahead of their units.
_AHEAD = 32


class PictureRange(PictureReader):
    """The pictures that are shown from nanosecond ``first`` to ``last``, in the order in which they are shown.

    ``source`` gives the units, from a key frame on. ``step`` (nanoseconds) thins the pictures out: it keeps the first
    one in each span of that length, counted from ``anchor`` (None: from the first picture). GOPs without a picture
    that is kept are neither fetched nor decoded.
    """

    def __init__(
        self, source: VideoRange, first: int, last: int, *, step: int | None, anchor: int | None, colour: Colour
    ) -> None:
        super().__init__()
        self._source = source
        self._first, self._last = first, last
        self._step = step
        self._anchor = anchor
        self._cell = -1
        #: The next picture that is kept is shown at this nanosecond or later.
        self._wanted = first
        self._decoder = Decoder()
        self._painter = Painter(colour)

    @property
    def missing(self) -> int:
        """See PictureReader.missing."""
        return self._source.missing

    @property
    def unreadable(self) -> int:
        """See PictureReader.unreadable."""
        return self._source.unreadable

    @property
    def skipped(self) -> int:
        """See PictureReader.skipped."""
        return self._decoder.skipped

    def chunk(self) -> Query[None]:
        """See PictureReader.chunk."""
        if self._source.done:
            return
        self._units.extend((yield from self._source.chunk()))
        ahead = yield from self._source.ahead(_AHEAD)
        self._jump()
        for entry in itertools.chain(self._units, ahead):
            self._decoder.reordering.see(entry)

    def close(self) -> None:
        """See PictureReader.close."""
        super().close()
        self._decoder.close()

    def _decode(self, unit: VideoUnit) -> list[Decoded]:
        return self._decoder.feed(unit)

    def _choose(self, decoded: Decoded) -> Picture | None:
        entry, frame = decoded
        shown = entry.shown_nano
        if shown > self._last:
            self.close()
        if not self._wanted <= shown <= self._last:
            return None
        if self._step is not None:
            if self._anchor is None:
                self._anchor = shown
            self._cell = (shown - self._anchor) // self._step
            self._wanted = self._anchor + (self._cell + 1) * self._step
            self._jump()
        return Picture(entry, shown, self._painter.paint(frame))

    def _end(self) -> bool:
        if not self._source.done:
            return False
        self._decoded.extend(self._decoder.finish())
        self.done = not self._decoded
        return True

    def _jump(self) -> None:
        """Leave out units before the last key frame that is shown when a picture is wanted, or before."""
        if self._step is None:
            return
        pending, units = self._source.pending, self._units
        if (at := _last_key(pending, self._wanted)) is not None:
            passed = at + len(units)
            units.clear()
            _drop(pending, at)
        else:
            passed = _last_key(units, self._wanted) or 0
            _drop(units, passed)
        if passed:
            self._decoded.clear()
            self._decoder.restart()


def _last_key(entries: Sequence[FrameEntry], until_nano: int) -> int | None:
    """The index of the last key frame that is shown at ``until_nano`` or before."""
    for back, entry in enumerate(reversed(entries), 1):
        if entry.keyframe and isinstance(entry, VideoEntry) and entry.shown_nano <= until_nano:
            return len(entries) - back
    return None


def _drop(entries: deque[Any], count: int) -> None:
    for _ in range(count):
        entries.popleft()
