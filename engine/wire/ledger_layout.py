"""Layout of a ring's ledger, the second page of its file: the frames of a camera that Redis must still have.

    4096  which of the two tables is in force; stamp of the newest stored frame
    4224  table 0 (1984 bytes)
    6208  table 1

A table is words: the number of closed runs, the open run (first stamp, first number, the counts of stored frames and
bytes before it, the time at which its first frame expires), and from word 8 on six words for each closed run. A run is
frames that were stored one after the other; its losses follow from numbers alone.

A change writes the table that is not in force, and then one word puts it in force. So after a kill at any moment, the
ledger is the old one or the new one. The number of frames in the open run follows from the ring's count of stored
frames, so storing a frame changes no table.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

from engine.wire.keys import SEQUENCE_MAX

#: Indexes of 64-bit words in the file.
W_LEDGER, W_STORED_NANO = 512, 513
_TABLE_WORD = 528
_TABLE_WORDS = 248
_HEAD_WORDS = 8
_RUN_WORDS = 6
#: Closed runs that a table has room for.
RUNS_MAX = (_TABLE_WORDS - _HEAD_WORDS) // _RUN_WORDS
#: A run's first number and its span share a word.
_SEQUENCE_BITS = 17
#: Stamps, times, counts and sizes of a valid ledger are far below these; sums over all runs fit into a word.
_TIME_END, _COUNT_END, _SIZE_END = 2**63, 2**40, 2**56


class Run(NamedTuple):
    """Frames that Redis has stored, in order, by their journal ids.

    ``span`` is the distance in numbers from the first frame to the last, ``frames`` the number of frames stored, and
    ``size`` their bytes. ``until`` is the monotonic nanosecond at which the first frame expires.
    """

    first_nano: int
    last_nano: int
    first_sequence: int
    span: int
    frames: int
    size: int
    until: int

    @property
    def gaps(self) -> int:
        """Numbers between the first and the last that were never stored."""
        return self.span + 1 - self.frames


class OpenRun(NamedTuple):
    """The run that the next frame may belong to: its first frame, and the totals stored before it."""

    first_nano: int
    first_sequence: int
    count_before: int
    size_before: int
    until: int


class Table(NamedTuple):
    """The closed runs, oldest first, and the open one."""

    runs: list[Run]
    open: OpenRun | None


EMPTY = Table([], None)


def write_table(words: memoryview, place: int, table: Table) -> None:
    """Write ``table``, of at most RUNS_MAX runs, to place 0 or 1 of a ring's words."""
    found = [len(table.runs), *(table.open or (0, 0, 0, 0, 0)), 0, 0]
    for run in table.runs:
        numbers = run.span << _SEQUENCE_BITS | run.first_sequence
        found += (run.first_nano, run.last_nano, numbers, run.frames, run.size, run.until)
    start = _TABLE_WORD + place * _TABLE_WORDS
    words[start : start + len(found)] = memoryview(array("Q", found))


def read_table(words: memoryview, place: int) -> Table:
    """The table in place 0 or 1; EMPTY if none was ever written or it is invalid."""
    start = _TABLE_WORD + place * _TABLE_WORDS
    count, *opened = words[start : start + 6].tolist()
    if count > RUNS_MAX or max(opened) >= _TIME_END or opened[1] > SEQUENCE_MAX:
        return EMPTY
    runs = []
    start += _HEAD_WORDS
    for first in range(start, start + count * _RUN_WORDS, _RUN_WORDS):
        first_nano, last_nano, numbers, frames, size, until = words[first : first + _RUN_WORDS].tolist()
        span, sequence = numbers >> _SEQUENCE_BITS, numbers & (1 << _SEQUENCE_BITS) - 1
        run = Run(first_nano, last_nano, sequence, span, frames, size, until)
        sound = first_nano <= last_nano < _TIME_END and 1 <= sequence <= SEQUENCE_MAX
        sound = sound and 1 <= frames <= span + 1 <= _COUNT_END and size < _SIZE_END and until < _TIME_END
        if not sound:
            return EMPTY
        runs.append(run)
    return Table(runs, OpenRun(*opened) if opened[1] else None)
