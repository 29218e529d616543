"""One camera's events: which journal entries were read, confirmed, or expired unread.

Every entry that the writer wrote ends up confirmed or expired, once. The writer numbers them (``JournalEntry.number``).
If a read skips numbers, the missing entries were trimmed unread. If nothing is left to read and the writer has counted
further, the missing entries expired with their journal. Sequences cannot show this, because a frame that is dropped
before it is stored uses one up.

Two positions move along the journal: the last entry read, and the cursor. A lost connection forgets entries that are
read but not confirmed (``rewind``). So a finding on the way, such as a gap or an expired frame, becomes a note at its
place. It counts when the cursor passes it. Entries and cursor are ids, (unix_nano, sequence).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from engine.wire.journal import JournalEntry
from engine.wire.marks import Mark

Id = tuple[int, int]
#: The cursor of a camera without any confirmed event: the journal's beginning.
BEGINNING: Id = (0, 0)


class _Note(NamedTuple):
    """A finding that counts once the first ``after`` entries read since the last rewind are done."""

    after: int
    #: Entries directly behind the note that will not be confirmed; the cursor then moves to ``at``.
    dropped: int = 0
    at: Id = BEGINNING
    #: The number of the entry before the note, if it differs from the count of entries.
    number: int | None = None
    expired: int = 0
    unreadable: int = 0


class Account:
    """The account of one camera. ``cursor`` is its cursor in Redis; with None it begins at the journal's beginning.

    With the first numbered entries of a camera without a cursor, ``wants_beginning`` is True. ``begin_behind`` then
    says which of them are due.
    """

    def __init__(self, cursor: Mark | None) -> None:
        #: The last entry up to which all are confirmed or given up, and its number; None if it has none.
        self.cursor: Id = cursor.at if cursor else BEGINNING
        self.entries = cursor.entries if cursor else None
        #: Events that the cursor has passed since ``take_counts``.
        self.expired = self.unreadable = 0
        self._new = cursor is None
        self.rewind()

    def rewind(self) -> None:
        """Return to the cursor, to read from there again."""
        #: The last entry read, and its number; both move ahead of the cursor.
        self.read: Id = self.cursor
        self._read_entries = self.entries
        #: Number of entries read since then, and how many of them are done.
        self.taken = self._done = 0
        self._notes: deque[_Note] = deque()

    @property
    def at_rest(self) -> bool:
        """True if all entries read are done."""
        return self.read == self.cursor and self._done == self.taken

    @property
    def mark(self) -> Mark:
        """The cursor to save in Redis."""
        return Mark(self.cursor, self.entries)

    def wants_beginning(self, entries: Sequence[JournalEntry]) -> bool:
        """True if these are the first numbered entries of a camera without a cursor."""
        return self._new and self._read_entries is None and any(entry.number for entry in entries)

    def begin_behind(self, number: int) -> None:
        """Entries above ``number`` are due. Called for a camera without a cursor, before its entries are taken."""
        self._read_entries = number
        self._note(_Note(self.taken, number=number))

    def take(self, entries: Sequence[JournalEntry], last: Id, unreadable: int) -> None:
        """Enter the entries that were read, in order. ``last`` is the id of the last one, readable or not."""
        if entries:
            self._count(entries)
        self.taken += len(entries)
        self.read = last
        if unreadable:
            self._note(_Note(self.taken, at=last, unreadable=unreadable))

    def vanished(self, written: int) -> bool:
        """Nothing is left to read, and the writer has written ``written`` entries: the rest went with the journal.
        True if there were any."""
        known = self._read_entries
        if known is None or written <= known:
            return False
        self._read_entries = written
        self._note(_Note(self.taken, number=written, expired=written - known))
        return True

    def drop(self, place: int, count: int, last: Id) -> None:
        """``count`` entries will not be announced, because what they list is gone. They were not sent. ``place`` is the
        number of entries that were read before them since the last rewind, ``last`` is the newest of them."""
        self._note(_Note(place, dropped=count, at=last, expired=count))

    def confirm(self, count: int, last: Id) -> None:
        """``count`` more entries are confirmed, in order; the last of them is ``last``."""
        self._step(count)
        self.cursor = max(self.cursor, last)

    def take_counts(self) -> tuple[int, int]:
        """(expired events, unreadable entries) since the last call."""
        counts = self.expired, self.unreadable
        self.expired = self.unreadable = 0
        return counts

    def _count(self, entries: Sequence[JournalEntry]) -> None:
        """Compare the numbers of the entries read with their count."""
        count = len(entries)
        if entries[-1].number - entries[0].number == count - 1 and entries[0].number:
            through = count
        else:
            # Some have no number: it was unknown, or another program wrote them.
            through = next((place for place in range(count, 0, -1) if entries[place - 1].number), 0)
        if through:
            # Entries that remain are behind the gap, so the missing ones came before the first of these.
            before = entries[through - 1].number - through
            known = self._read_entries
            if known != before:
                expired = max(before - known, 0) if known is not None else 0
                self._note(_Note(self.taken, number=before, expired=expired))
            self._read_entries = before
        if self._read_entries is not None:
            self._read_entries += count

    def _note(self, note: _Note) -> None:
        """Insert a note in order; at the same place the older note comes first."""
        if self._notes and self._notes[-1].after > note.after:
            self._notes.insert(bisect_right(self._notes, note.after, key=lambda other: other.after), note)
        else:
            self._notes.append(note)
        self._step(0)

    def _step(self, count: int) -> None:
        """Finish ``count`` confirmed entries, and apply the notes between and directly behind them."""
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
