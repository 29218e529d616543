"""Counts the stored frames of a camera that Redis has lost: arithmetic on runs, without memory, clocks or servers.

A server that was restarted without its data, flushed, or replaced by a lagging replica has lost frames from one end of
the journal or the other. Journals never lose entries from the middle. So a run of frames and the ids at a journal's two
ends give the exact number of lost frames: it is the distance of two sequences.

A table has room for RUNS_MAX runs. A camera without drops needs 32, one for each 32nd of the frames' lifetime. Every
gap in the sequences begins another run. If there are more, the two neighbours that together cover the least time are
joined. If a run with gaps is lost only in part, the smallest possible loss is counted: the count is too low by at most
the number of gaps. The newest runs are never joined: a loss begins or ends there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from engine.wire.journal import EntryId, JournalSpan
from engine.wire.keys import SEQUENCE_MAX, sequence_after
from engine.wire.ledger_layout import RUNS_MAX, Run

#: The newest runs, which are never joined.
_PRECISE_RUNS = 7
#: Runs per lifetime. A run is expected until its first frame expires, so frames with less than this share of their life
#: left count as expired.
RUNS_PER_LIFE = 32
#: Frames of one run: few enough that the distance of two sequences is unambiguous (below one cycle).
RUN_FRAMES_MAX = SEQUENCE_MAX // 2
#: A frame counts as expired these seconds before the end of its life: Redis starts counting before it answers.
_MARGIN_SECONDS = 1.0
#: The shortest run, in seconds: for lifetimes of a few seconds.
_RUN_SECONDS_MIN = 0.25
#: The longest lifetime in nanoseconds; added to a monotonic time it stays within a word.
_LIFE_NANO_MAX = 2**61


class Life(NamedTuple):
    """A frame's lifetime, and how long a run gathers frames, in nanoseconds."""

    life_nano: int
    run_nano: int

    @classmethod
    def of(cls, ttl_seconds: float) -> Life:
        """For frames that live ``ttl_seconds``, which may be infinite."""
        if math.isinf(ttl_seconds):
            return cls(_LIFE_NANO_MAX, _LIFE_NANO_MAX)
        life = ttl_seconds - min(_MARGIN_SECONDS, ttl_seconds / 2)
        return cls(int(life * 1e9), int(max(life / RUNS_PER_LIFE, _RUN_SECONDS_MIN) * 1e9))


class Loss(NamedTuple):
    """The remainder of some runs, and the number of frames and bytes lost."""

    left: list[Run]
    frames: int
    size: int


def unexpired(runs: Iterable[Run], now_monotonic: int, life: Life) -> list[Run]:
    """The runs whose frames must all still exist. If the lifetime was longer when they were stored, the shorter one
    counts, because their journal is trimmed by it."""
    latest = now_monotonic + life.life_nano
    return [run if run.until <= latest else run._replace(until=latest) for run in runs if run.until > now_monotonic]


def fitting(runs: Sequence[Run]) -> list[Run]:
    """``runs``, joined until they fit into a table."""
    found = list(runs)
    while len(found) > RUNS_MAX:
        # The time that a pair covers ends where the next run begins.
        cover = [found[place + 2].until - found[place].until for place in range(len(found) - 1 - _PRECISE_RUNS)]
        place = cover.index(min(cover))
        found[place : place + 2] = [_joined(found[place], found[place + 1])]
    return found


def lost(runs: Sequence[Run], span: JournalSpan) -> Loss:
    """The frames of ``runs`` that are not within the journal's current ``span`` and were not deleted by somebody."""
    left: list[Run] = []
    frames = size = 0
    for run in runs:
        kept = _kept(run, span)
        if kept.frames:
            left.append(kept)
        frames += run.frames - kept.frames
        size += run.size - kept.size
    return Loss(left, frames, size)


def without(runs: Iterable[Run], frames: Iterable[tuple[int, int]]) -> Loss:
    """The loss of single frames of ``runs``, each given by its time stamp and its size in bytes."""
    left = list(runs)
    count = total = 0
    for nano, size in frames:
        for place, run in enumerate(left):
            if run.first_nano <= nano <= run.last_nano:
                kept = run._replace(frames=run.frames - 1, size=max(run.size - size, 0))
                left[place : place + 1] = [kept] if kept.frames else []
                count, total = count + 1, total + min(size, run.size)
                break
    return Loss(left, count, total)


def inserted(runs: Sequence[Run], more: Iterable[Run]) -> list[Run]:
    """``runs`` with ``more`` that turned out to be stored, in order."""
    found = list(runs)
    for new in more:
        for place, run in enumerate(found):
            if run.first_nano <= new.first_nano <= run.last_nano:
                # These frames belong to a gap inside a joined run.
                found[place] = run._replace(frames=min(run.frames + new.frames, run.span + 1), size=run.size + new.size)
                break
        else:
            found.append(new)
    return sorted(found)


def _kept(run: Run, span: JournalSpan) -> Run:
    """The part of ``run`` that must still exist. Places are distances in sequences from the run's first frame."""
    deleted = _frames_until(run, span.deleted)
    first = max(_place_from(run, span.first), deleted)
    end = max(_frames_until(run, span.last), first)
    missing = (first - deleted) + (run.span + 1 - end)
    if not missing:
        return run
    gone = max(missing - run.gaps, 0)
    # Frames deleted by somebody are gone too, but it is unknown which ones.
    begin = first if not deleted else 0
    return Run(
        first_nano=span.first[0] if begin else run.first_nano,
        last_nano=span.last[0] if end <= run.span else run.last_nano,
        first_sequence=sequence_after(run.first_sequence, begin),
        span=end - 1 - begin,
        frames=run.frames - gone,
        size=run.size - run.size * gone // run.frames,
        until=run.until,
    )


def _frames_until(run: Run, entry: EntryId) -> int:
    """The number of places of ``run`` up to and including ``entry``."""
    if entry[0] < run.first_nano:
        return 0
    return run.span + 1 if entry[0] >= run.last_nano else _place(run, entry) + 1


def _place_from(run: Run, entry: EntryId) -> int:
    """The first place of ``run`` at or after ``entry``."""
    if entry[0] <= run.first_nano:
        return 0
    return run.span + 1 if entry[0] > run.last_nano else _place(run, entry)


def _place(run: Run, entry: EntryId) -> int:
    """The place of an entry between the run's first and last: the distance of the sequences. If sequences wrapped
    within the run, the time stamp selects the nearest candidate."""
    place = (entry[1] - run.first_sequence) % SEQUENCE_MAX
    if run.span >= SEQUENCE_MAX:
        nearest = run.span * (entry[0] - run.first_nano) // max(run.last_nano - run.first_nano, 1)
        place += (nearest - place + SEQUENCE_MAX // 2) // SEQUENCE_MAX * SEQUENCE_MAX
    return min(max(place, 0), run.span)


def _joined(first: Run, second: Run) -> Run:
    """Two neighbours joined into one run, with the gap between them."""
    step = (second.first_sequence - first.first_sequence - first.span) % SEQUENCE_MAX or SEQUENCE_MAX
    return Run(
        first_nano=first.first_nano,
        last_nano=second.last_nano,
        first_sequence=first.first_sequence,
        span=first.span + step + second.span,
        frames=first.frames + second.frames,
        size=first.size + second.size,
        until=first.until,
    )
