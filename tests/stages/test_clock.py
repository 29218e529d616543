from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.stages.capture.clock import FrameClock
from tests.examples import examples

SECOND = 10**9
NOON = 1_731_024_000 * SECOND


class Clocks:
    """A wall clock that can be set, and a monotonic one that cannot."""

    def __init__(self, wall: int = NOON) -> None:
        self.wall = wall
        self.monotonic = 5 * SECOND

    def frame_clock(self, floor_nano: int = 0) -> FrameClock:
        return FrameClock(floor_nano, lambda: self.wall, lambda: self.monotonic)

    def pass_by(self, nanoseconds: int) -> None:
        self.wall += nanoseconds
        self.monotonic += nanoseconds


def test_a_stamp_is_the_wall_clock_s_time_and_the_monotonic_one_s():
    clocks = Clocks()
    clock = clocks.frame_clock()
    assert clock.stamp() == (NOON, 5 * SECOND)
    clocks.pass_by(33)
    assert clock.stamp() == (NOON + 33, 5 * SECOND + 33)


def test_what_arrived_before_it_was_read_has_the_stamp_of_its_arrival():
    clocks = Clocks()
    clock = clocks.frame_clock()
    clock.stamp()
    clocks.pass_by(67)
    assert clock.stamp(arrived_nano=clocks.monotonic - 60) == (NOON + 7, 5 * SECOND + 67)
    # A floor in between counts: half of what passed since the last arrival.
    clocks.pass_by(60)
    assert clock.stamp(NOON + 90, arrived_nano=clocks.monotonic - 60) == (NOON + 90 + 30, 5 * SECOND + 127)


readings = st.lists(
    st.tuples(
        st.integers(0, 2 * 10**18),
        st.integers(-10, 10**12),
        st.integers(0, 2 * 10**18) | st.just(0),
        st.integers(-10, 10**9) | st.none(),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=examples(300), deadline=None)
@given(readings, st.integers(0, 2 * 10**18))
def test_stamps_only_ever_go_up_whatever_the_clocks_say(steps, floor):
    clocks = Clocks()
    clock = clocks.frame_clock(floor)
    last = floor
    for wall, passed, floor_now, ago in steps:
        clocks.wall = wall
        clocks.monotonic += passed
        stamp, monotonic = clock.stamp(floor_now, 0 if ago is None else clocks.monotonic - ago)
        assert stamp > max(last, floor_now)
        assert monotonic == clocks.monotonic
        last = stamp


def test_time_runs_at_half_speed_after_the_clock_was_set_back():
    clocks = Clocks()
    clock = clocks.frame_clock()
    first, _ = clock.stamp()
    clocks.wall -= 10 * SECOND
    for number in range(1, 100):
        clocks.pass_by(SECOND // 25)
        assert clock.stamp()[0] == first + number * SECOND // 50


def test_time_is_right_again_when_the_clock_has_caught_up():
    clocks = Clocks()
    clock = clocks.frame_clock()
    clock.stamp()
    clocks.wall -= 10 * SECOND
    begun = clocks.monotonic
    while clock.stamp()[0] != clocks.wall:
        clocks.pass_by(SECOND // 25)
    assert clocks.monotonic - begun == 20 * SECOND
    clocks.pass_by(SECOND // 25)
    assert clock.stamp()[0] == clocks.wall


@pytest.mark.slow
@settings(max_examples=examples(200), deadline=None)
@given(st.integers(1, 10**13), st.lists(st.integers(2, 10**10), min_size=1, max_size=30))
def test_a_stamp_comes_closer_to_the_truth_with_every_frame(back, steps):
    clocks = Clocks()
    clock = clocks.frame_clock()
    clock.stamp()
    clocks.wall -= back
    ahead = back
    for step in steps:
        clocks.pass_by(step)
        now = clock.stamp()[0] - clocks.wall
        assert 0 <= now < ahead or now == 0
        ahead = now


def test_a_journal_that_is_ahead_is_never_fallen_behind():
    clocks = Clocks()
    clock = clocks.frame_clock(floor_nano=NOON + 5 * SECOND)
    assert clock.stamp()[0] == NOON + 5 * SECOND + 1
    clocks.pass_by(SECOND)
    assert clock.stamp()[0] == NOON + 5 * SECOND + 1 + SECOND // 2
    assert clock.stamp(NOON + 9 * SECOND)[0] > NOON + 9 * SECOND


def test_a_clock_that_jumps_ahead_is_followed():
    clocks = Clocks()
    clock = clocks.frame_clock()
    clock.stamp()
    clocks.wall += 3600 * SECOND
    assert clock.stamp()[0] == NOON + 3600 * SECOND


@pytest.mark.parametrize("wall", [0, 86_400 * SECOND, 10**18 - 1])
def test_a_clock_that_was_never_set_still_gives_stamps_of_19_digits(wall):
    """A box without a battery boots in 1970; a shorter stamp would break the key, and with it the framing of SET."""
    clocks = Clocks(wall)
    clock = clocks.frame_clock()
    first = clock.stamp()[0]
    assert len(str(first)) == 19
    clocks.pass_by(SECOND)
    assert clock.stamp()[0] > first
    clocks.wall = NOON
    assert clock.stamp()[0] == NOON


def test_the_real_clocks_are_the_default():
    clock = FrameClock()
    one, other = clock.stamp(), clock.stamp()
    assert other[0] > one[0] > NOON
    assert other[1] >= one[1]
