"""One camera's events: what was read of its journal, what became of it, and what went before anyone read it.

Every entry that the writer wrote ends up confirmed or expired, once. The writer numbers them (``JournalEntry.number``):
where the first entry of a read is not the next number, those between were trimmed unread; where nothing is left to read
and the writer has counted further, they expired with their journal. Sequence numbers could not tell, because a frame
that was dropped before it was stored uses one up.

Two positions move along the journal. What is read and not yet confirmed is only an intention: a lost connection
forgets it (``rewind``). So whatever was found out on the way, such as a gap or an expired frame, is a note at its
place, and counts when the cursor passes it. Entries and cursor are ids, (unix_nano, sequence).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from engine.wire.journal import JournalEntry
from engine.wire.marks import Mark

Id = tuple[int, int]
#: The cursor of a camera of which nothing was ever confirmed: the journal's beginning.
BEGINNING: Id = (0, 0)


class _Note(NamedTuple):
    """What counts once the ``after``-th entry read since the last rewind, and all before it, are done."""

    after: int
    #: Entries read that will not be confirmed, right behind it; the cursor moves to ``at`` with them.
    dropped: int = 0
    at: Id = BEGINNING
    #: The number of the entry that it stands behind, where the count of entries was not that.
    number: int | None = None
    expired: int = 0
    unreadable: int = 0


class Account:
    """The account of a camera whose ``cursor`` stands in Redis, or who has none and begins at the beginning.

    Such a camera ``wants_beginning`` with its first numbered entries: ``begin_behind`` says which of them were due.
    """

    def __init__(self, cursor: Mark | None) -> None:
        #: The last entry that is confirmed or given up with all before it, and its number; None where it has none.
        self.cursor: Id = cursor.at if cursor else BEGINNING
        self.entries = cursor.entries if cursor else None
        #: Events whose cursor has passed them, since ``take_counts``.
        self.expired = self.unreadable = 0
        self._new = cursor is None
        self.rewind()

    def rewind(self) -> None:
        """Read again from the cursor."""
        #: The last entry read, and its number; both move ahead of the cursor.
        self.read: Id = self.cursor
        self._read_entries = self.entries
        self._taken = self._done = 0
        self._notes: deque[_Note] = deque()

    @property
    def at_rest(self) -> bool:
        """True when all that was read is done."""
        return self.read == self.cursor and self._done == self._taken

    @property
    def mark(self) -> Mark:
        """What is to stand in Redis as the cursor."""
        return Mark(self.cursor, self.entries)

    def wants_beginning(self, entries: Sequence[JournalEntry]) -> bool:
        """True where these are the first numbered entries of a camera without a cursor."""
        return self._new and self._read_entries is None and any(entry.number for entry in entries)

    def begin_behind(self, number: int) -> None:
        """Entries with greater numbers are due; called for a camera without a cursor, before they are taken."""
        self._read_entries = number
        self._note(_Note(self._taken, number=number))

    def take(self, entries: Sequence[JournalEntry], last: Id, unreadable: int) -> None:
        """These entries were read, in order; the last one read, readable or not, is ``last``."""
        if entries:
            self._count(entries)
        self._taken += len(entries)
        self.read = last
        if unreadable:
            self._note(_Note(self._taken, at=last, unreadable=unreadable))

    def vanished(self, written: int) -> None:
        """Nothing is left to read, and the writer has written so many entries: the rest went with the journal."""
        known = self._read_entries
        if known is not None and written > known:
            self._read_entries = written
            self._note(_Note(self._taken, number=written, expired=written - known))

    def drop(self, waiting: int, dropped: Sequence[JournalEntry]) -> None:
        """The frames of the oldest of the ``waiting`` entries, those that were read and not sent, are gone."""
        last = dropped[-1]
        at = (last.unix_nano, last.sequence)
        self._note(_Note(self._taken - waiting, dropped=len(dropped), at=at, expired=len(dropped)))

    def confirm(self, count: int, last: Id) -> None:
        """So many more entries are confirmed, in order, and the last of them is ``last``."""
        self._step(count)
        self.cursor = max(self.cursor, last)

    def take_counts(self) -> tuple[int, int]:
        """How many events have expired, and how many entries could not be read, since the last call."""
        counts = self.expired, self.unreadable
        self.expired = self.unreadable = 0
        return counts

    def _count(self, entries: Sequence[JournalEntry]) -> None:
        """Hold the numbers of what was read against how many were read."""
        count = len(entries)
        if entries[-1].number - entries[0].number == count - 1 and entries[0].number:
            through = count
        else:
            # Some carry no number: nobody knew it, or another wrote them.
            through = next((place for place in range(count, 0, -1) if entries[place - 1].number), 0)
        if through:
            # What a gap leaves standing is behind it: what is missing went before the first of these.
            before = entries[through - 1].number - through
            known = self._read_entries
            if known != before:
                expired = max(before - known, 0) if known is not None else 0
                self._note(_Note(self._taken, number=before, expired=expired))
            self._read_entries = before
        if self._read_entries is not None:
            self._read_entries += count

    def _note(self, note: _Note) -> None:
        """Put a note where it belongs; of two at one place the older comes first."""
        if self._notes and self._notes[-1].after > note.after:
            self._notes.insert(bisect_right(self._notes, note.after, key=lambda other: other.after), note)
        else:
            self._notes.append(note)
        self._step(0)

    def _step(self, count: int) -> None:
        """Entries are done: so many that were confirmed, and what the notes between and behind them say."""
        while True:
            until = self._notes[0].after - self._done if self._notes else count
            step = min(count, until)
            count -= step
            self._finish(step)
            if not self._notes or self._notes[0].after > self._done:
                return
            note = self._notes.popleft()
            self._finish(note.dropped)
            if note.number is not None:
                self.entries = note.number
            self.cursor = max(self.cursor, note.at)
            self.expired += note.expired
            self.unreadable += note.unreadable

    def _finish(self, count: int) -> None:
        self._done += count
        if self.entries is not None:
            self.entries += count
