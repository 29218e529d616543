"""Since when an entry is stored: as late as is known, never before its capture, never after it was read."""

from __future__ import annotations

import time

import pytest

from engine.stages.publisher import arrivals as module
from engine.stages.publisher.arrivals import Arrivals
from engine.wire.journal import JournalEntry

#: The wall clock is this far ahead of the monotonic one, in nanoseconds.
WALL_NANO = 1_700_000_000 * 10**9
MS = 10**6


class Clock:
    """Both clocks of the machine, by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.wall = 10**12, WALL_NANO
        monkeypatch.setattr(module, "time", self)

    def monotonic_ns(self) -> int:
        return self.now

    def time_ns(self) -> int:
        return self.now + self.wall


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def captured(clock: Clock, age_ms: int) -> JournalEntry:
    return JournalEntry(clock.time_ns() - age_ms * MS, 1, 1, 1, 1, "jpeg", 1)


def ages_ms(arrivals: Arrivals, clock: Clock, *entries: JournalEntry, camera: str = "cam1") -> list[int]:
    return [(clock.now - since) // MS for _, _, since in arrivals.stamped(camera, entries)]


def test_entries_that_redis_waited_for_are_stored_now(clock):
    arrivals = Arrivals()
    arrivals.begin(fresh=True)
    assert ages_ms(arrivals, clock, captured(clock, 30), captured(clock, 3)) == [0, 0]


def test_a_backlog_counts_from_its_capture_on(clock):
    arrivals = Arrivals()
    arrivals.begin(fresh=False)
    assert ages_ms(arrivals, clock, captured(clock, 60_000), captured(clock, 5)) == [60_000, 5]


def test_an_entry_of_a_pause_is_stored_since_the_pause_began_or_since_its_capture(clock):
    arrivals = Arrivals()
    arrivals.begin(fresh=True)
    arrivals.end(["cam1"])
    clock.now += 4 * MS
    arrivals.begin(fresh=False)
    assert ages_ms(arrivals, clock, captured(clock, 500), captured(clock, 2)) == [4, 2]
    assert ages_ms(arrivals, clock, captured(clock, 500), camera="cam2") == [500], "nobody looked there before"


def test_after_a_rewind_the_last_read_says_nothing(clock):
    arrivals = Arrivals()
    arrivals.begin(fresh=True)
    arrivals.end(["cam1"])
    arrivals.forget()
    arrivals.begin(fresh=False)
    assert ages_ms(arrivals, clock, captured(clock, 500)) == [500]


def test_a_clock_that_was_set_back_makes_no_latency_negative(clock):
    arrivals = Arrivals()
    entry = captured(clock, 5)
    clock.wall -= 3600 * 10**9
    arrivals.begin(fresh=False)
    assert ages_ms(arrivals, clock, entry) == [0]


def test_with_the_machines_clocks_an_entry_of_now_has_no_latency():
    arrivals = Arrivals()
    before = time.monotonic_ns()
    entry = JournalEntry(time.time_ns(), 1, 1, 1, 1, "jpeg", 1)
    arrivals.begin(fresh=False)
    ((_, _, since),) = arrivals.stamped("cam1", [entry])
    # The two clocks are read one after the other.
    assert before - 10 * MS <= since <= time.monotonic_ns()
