"""A camera's progress: values of the hashes that the writer (``written``) and the publisher (``cursor``) keep.

    cursor    {unix_nano}-{sequence} {entries} {serial}
              the last entry that was confirmed or given up, the number of such entries including it (``-`` if not
              known), and the save that moved it, if that save counts (``engine/stages/publisher/booking.py``)
    written   {unix_nano}-{sequence} {entries} {before}
              the last frame captured, the number of entries written, and the number of those written before its ring
              was made

Neither hash expires. So numbering continues after a stop that outlived the journal, and entries of a journal that
expired unread can still be counted. Redis may hold any value: a value that does not parse counts as missing.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.errors import WireError
from engine.wire.journal import entry_id, parse_entry_id

#: Counts of entries from here on are invalid: a camera of 1000 frames a second takes 30,000 years to reach them.
ENTRIES_MAX = 10**15
#: Both parts of a stream's id have 64 bits.
_ID_PART_END = 2**64


class Mark(NamedTuple):
    """``at`` is (unix_nano, sequence); ``entries`` is None if they were not counted."""

    at: tuple[int, int]
    entries: int | None = None
    before: int | None = None


def format_mark(mark: Mark) -> str:
    """A mark as its hash stores it. An unknown count, and all counts after it, are left out."""
    words = [entry_id(*mark.at)]
    for count in (mark.entries, mark.before):
        if count is None:
            break
        words.append(str(count))
    return " ".join(words)


def parse_mark(text: bytes) -> Mark | None:
    """Inverse of format_mark; None for anything else. A count that does not parse is unknown."""
    identifier, *counts = text.split(b" ", 3)
    try:
        at = parse_entry_id(identifier)
    except WireError:
        return None
    if max(at) >= _ID_PART_END:
        return None
    entries, before, *_ = [*map(_count, counts), None, None]
    return Mark(at, entries, before if entries is not None else None)


def format_cursor(mark: Mark, serial: str = "") -> str:
    """A cursor as its hash stores it."""
    text = format_mark(Mark(mark.at, mark.entries))
    if serial:
        text += f" {serial}" if mark.entries is not None else f" - {serial}"
    return text


def parse_cursor(text: bytes) -> tuple[Mark, bytes] | None:
    """Inverse of format_cursor; None for anything else."""
    mark = parse_mark(text)
    words = text.split(b" ", 3)
    return (mark._replace(before=None), words[2] if len(words) > 2 else b"") if mark else None


def _count(word: bytes) -> int | None:
    if not word.isdigit() or len(word) > len(str(ENTRIES_MAX)):
        return None
    count = int(word)
    return count if count < ENTRIES_MAX else None
