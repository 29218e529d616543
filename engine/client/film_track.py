"""The times of access units in a film: when each is decoded, shown, and for how long."""

from __future__ import annotations

import heapq
import itertools
from statistics import median_low
from typing import NamedTuple

from engine.client.access_units import Continuity, Reordering, Step
from engine.client.video import VideoEntry, VideoUnit
from engine.errors import InputError
from engine.wire.rfc3339 import NANO, rfc3339

#: Ticks per second of a film's times: a tick is 0.1 ms.
TICKS = 10_000
_TICK_NANO = NANO // TICKS
#: The longest time from one unit to the next, in ticks: the muxer writes garbage for a longer one.
_STEP_TICKS_MAX = 2**31 - 1
#: How long a film of one picture shows it, in ticks: there is no interval to measure.
_ONLY_TICKS = TICKS
#: Units held back at the beginning, to see how far pictures are reordered and how far apart they are.
_HELD_MAX = 64
#: The furthest that leading pictures are shown before their key frame.
_LEADING_NANO_MAX = 5 * NANO


class Sample(NamedTuple):
    """A unit of a film. ``dts``: when it is decoded, ``pts``: when it is shown, ``duration``: until the next is
    decoded; all in ticks, ``pts`` of the first picture is 0. ``dts`` rises, and is never above ``pts``."""

    unit: VideoUnit
    dts: int
    pts: int
    duration: int


class FilmTrack:
    """Chooses the units of one camera that a film can show, and gives them their times.

    Units that do not decode are left out: those before the first key frame, those after a gap until the next, and those
    that are shown before the key frame after a gap. ``skipped`` counts them.
    """

    def __init__(self) -> None:
        #: Units that were given out, and their bytes.
        self.units = 0
        self.bytes = 0
        #: The nanoseconds in which the first and the last of their pictures are shown.
        self.first_nano = 0
        self.last_nano = 0
        self._continuity = Continuity()
        self._reordering = Reordering()
        self._leading_skipped = 0
        #: The key frame before which leading pictures are shown; None if the pictures after it have begun.
        self._key: VideoUnit | None = None
        self._held: list[tuple[VideoUnit, Step]] | None = []
        self._previous: VideoEntry | None = None
        self._begin_nano = 0
        self._interval = _ONLY_TICKS
        #: Times of pictures since decoding began, of which no unit's ``dts`` was made yet; a heap.
        self._times: list[int] = []
        self._since_begin = 0
        self._last: Sample | None = None

    @property
    def skipped(self) -> int:
        """Units that were left out."""
        return self._continuity.skipped + self._leading_skipped

    def add(self, unit: VideoUnit) -> list[Sample]:
        """The samples that are complete after the next unit.

        Raises InputError if the unit's codec or size is another than before, or if it comes too late for a film.
        """
        step = self._continuity.step(unit)
        if step is Step.SKIP:
            return []
        self._check(unit)
        if step is Step.BEGIN:
            self._key = unit
        elif self._key is not None:
            if self._key.shown_nano - _LEADING_NANO_MAX < unit.shown_nano < self._key.shown_nano:
                self._leading_skipped += 1
                return []
            self._key = None
        if self._held is None:
            return self._place(unit, step)
        self._held.append((unit, step))
        self._reordering.see(unit)
        return self._begin(self._held) if len(self._held) == _HELD_MAX else []

    def finish(self) -> list[Sample]:
        """The samples that were held back."""
        samples = self._begin(self._held) if self._held else []
        if self._last is not None:
            samples.append(self._complete(self._last, self._interval))
        return samples

    def _check(self, unit: VideoUnit) -> None:
        previous, self._previous = self._previous, unit
        if previous is None:
            if not (unit.width and unit.height):
                raise InputError(f"unit {unit.key} has no size; a film cannot begin with it")
            return
        if (unit.encoding, unit.width, unit.height) != (previous.encoding, previous.width, previous.height):
            raise InputError(
                f"camera {unit.camera!r} changes from {_shape(previous)} to {_shape(unit)}, and a film has one size "
                f"and codec; export what is before, to {rfc3339(previous.unix_nano)}, and what is after, from "
                f"{rfc3339(unit.shown_nano)}"
            )

    def _begin(self, held: list[tuple[VideoUnit, Step]]) -> list[Sample]:
        self._held = None
        shown = sorted(unit.shown_nano for unit, _ in held)
        self._begin_nano = shown[0]
        steps = [after - before for before, after in itertools.pairwise(shown)]
        if steps:
            self._interval = max(median_low(steps) // _TICK_NANO, 1)
        return [sample for unit, step in held for sample in self._place(unit, step)]

    def _place(self, unit: VideoUnit, step: Step) -> list[Sample]:
        """Give a unit its times. The one before it is complete."""
        pts = (unit.shown_nano - self._begin_nano + _TICK_NANO // 2) // _TICK_NANO
        if step is Step.BEGIN:
            self._times, self._since_begin = [], 0
        heapq.heappush(self._times, pts)
        # Decoding runs ``depth`` pictures ahead: a unit is decoded when the picture so many places before it is shown.
        ahead = self._reordering.depth - self._since_begin
        dts = self._times[0] - ahead * self._interval if ahead > 0 else heapq.heappop(self._times)
        self._since_begin += 1
        last, complete = self._last, []
        if last is not None:
            dts = max(dts, last.dts + 1)
            if dts - last.dts > _STEP_TICKS_MAX:
                raise InputError(
                    f"unit {unit.key} comes {(dts - last.dts) / TICKS / 3600:.1f} hours after the one before it, and a "
                    f"film shows a picture for {_STEP_TICKS_MAX // TICKS // 3600} hours at most; export the two sides "
                    "apart"
                )
            complete = [self._complete(last, dts - last.dts)]
        # Later than it is shown only where it is reordered further than the units before it.
        self._last = Sample(unit, dts, max(pts, dts), 0)
        return complete

    def _complete(self, sample: Sample, duration: int) -> Sample:
        shown = sample.unit.shown_nano
        self.units += 1
        self.bytes += sample.unit.size
        self.first_nano = min(self.first_nano or shown, shown)
        self.last_nano = max(self.last_nano, shown)
        return sample._replace(duration=duration)


def _shape(unit: VideoEntry) -> str:
    return f"{unit.width}x{unit.height} {unit.encoding}"
