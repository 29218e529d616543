"""One camera's video journal, read entry by entry, becomes GOPs.

A GOP is a key frame and the access units behind it whose sequences follow each other. It is finished when the next key
frame is read, when a sequence is missing, or when nothing follows for some seconds (``finish``). An access unit without
its key frame belongs to no GOP: it decodes for nobody.

Sometimes access units follow after all, or a successor of this process finds them behind its cursor. Then the journal
still lists the beginning of their GOP (``part_before``), and the GOP is finished once more, with all of its units.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from engine.wire.journal import VIDEO_ENCODINGS, JournalEntry
from engine.wire.keys import next_sequence
from engine.wire.metadata import Gop


class Finished(NamedTuple):
    """A finished GOP. ``place``: the number of entries that were read before it. ``entries``: how many of its entries
    were read here; they end with its last one."""

    gop: Gop
    place: int
    entries: int


class Assembly:
    """The GOPs of one camera, behind the entry with the sequence ``last_sequence``."""

    def __init__(self, last_sequence: int) -> None:
        #: Number of entries that were read.
        self.place = 0
        self._last_sequence = last_sequence
        self._open: Gop | None = None
        self._open_entries = 0
        #: True behind a gap, until the next key frame.
        self._lost = False

    @property
    def is_open(self) -> bool:
        """True if a GOP has begun and is not finished."""
        return self._open is not None

    def continues(self, entry: JournalEntry) -> bool:
        """True if the next entry may belong to a GOP that was finished before it came. ``resume`` may then be called
        first."""
        return not (self._open or self._lost or _begins_gop(entry)) and self._follows(entry)

    def resume(self, gop: Gop | None) -> None:
        """Continue a GOP that was finished before; None if it is not known."""
        if gop:
            self._begin(gop, 0)

    def add(self, entry: JournalEntry) -> tuple[Finished | None, bool]:
        """Take the next entry. Returns the GOP that it finishes, and whether the entry belongs to a GOP itself."""
        follows = self._follows(entry)
        self._last_sequence = entry.sequence
        finished, belongs = None, True
        if _begins_gop(entry):
            finished = self.finish(entry.unix_nano if follows else None)
            self._begin(Gop(entry, entry, 1, entry.size, entry.unix_nano), 1)
        elif self._open and follows:
            gop = self._open
            longer = Gop(gop.first, entry, gop.frames + 1, gop.size + entry.size, entry.unix_nano)
            self._begin(longer, self._open_entries + 1)
        else:
            finished = self.finish()
            self._lost, belongs = True, False
        self.place += 1
        return finished, belongs

    def finish(self, end_nano: int | None = None) -> Finished | None:
        """Finish the open GOP, if there is one. ``end_nano`` is when the next GOP begins, if that follows it."""
        gop, self._open = self._open, None
        if gop is None:
            return None
        gop = gop._replace(end_nano=end_nano or gop.last.unix_nano)
        return Finished(gop, self.place - self._open_entries, self._open_entries)

    def _begin(self, gop: Gop, entries: int) -> None:
        self._open, self._open_entries, self._lost = gop, entries, False

    def _follows(self, entry: JournalEntry) -> bool:
        return entry.encoding in VIDEO_ENCODINGS and entry.sequence == next_sequence(self._last_sequence)


def part_before(entry: JournalEntry, older: Iterable[JournalEntry]) -> Gop | None:
    """The part of an entry's GOP before the entry. ``older`` are the entries before it, newest first. None if they do
    not follow each other from a key frame on."""
    sequence, last, frames, size = entry.sequence, None, 0, 0
    for found in older:
        if next_sequence(found.sequence) != sequence or found.encoding not in VIDEO_ENCODINGS:
            return None
        sequence, last, frames, size = found.sequence, last or found, frames + 1, size + found.size
        if _begins_gop(found):
            return Gop(found, last, frames, size, last.unix_nano)
    return None


def beginning(entries: Iterable[JournalEntry]) -> Gop | None:
    """The GOP that the first of these entries begins, as far as they follow each other; None if it begins none."""
    gop = None
    for entry in entries:
        if gop is None:
            if not _begins_gop(entry):
                return None
            gop = Gop(entry, entry, 1, entry.size, entry.unix_nano)
        elif entry.sequence == next_sequence(gop.last.sequence):
            gop = Gop(gop.first, entry, gop.frames + 1, gop.size + entry.size, entry.unix_nano)
        else:
            break
    return gop


def _begins_gop(entry: JournalEntry) -> bool:
    return entry.keyframe and entry.encoding in VIDEO_ENCODINGS
