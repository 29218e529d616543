from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.stages.capture.sampler import Sampler
from tests.examples import examples

SECOND = 10**9
#: This machine has been up for a while.
BEGUN = 12_345 * SECOND


def taken(fps: float, arrivals: list[int]) -> list[int]:
    """The arrivals that a sampler takes."""
    sampler = Sampler(fps)
    return [arrival for arrival in arrivals if sampler.takes(arrival)]


def steady(fps: float, seconds: int) -> list[int]:
    return [BEGUN + int(number * SECOND / fps) for number in range(int(seconds * fps))]


def later(arrivals: list[int]) -> list[int]:
    """The arrivals from one second after the beginning."""
    return [arrival for arrival in arrivals if arrival >= BEGUN + SECOND]


@pytest.mark.parametrize(("source", "limit"), [(30, 10), (30, 15), (30, 7), (25, 10), (15, 10), (60, 1), (30, 29.97)])
def test_the_rate_is_the_limit(source, limit):
    assert len(later(taken(limit, steady(source, 61)))) == pytest.approx(60 * limit, abs=2)


@pytest.mark.parametrize("limit", [1, 7, 10])
def test_a_stream_begins_at_its_rate(limit):
    """Nothing was held back before the first frame."""
    assert len(taken(limit, steady(30, 1))) <= limit + 1


@pytest.mark.parametrize(("source", "limit"), [(5, 10), (10, 10), (29.97, 30), (25, 1000)])
def test_a_source_that_is_slower_than_the_limit_loses_nothing(source, limit):
    arrivals = steady(source, 60)
    assert taken(limit, arrivals) == arrivals


@pytest.mark.slow
@settings(max_examples=examples(200), deadline=None)
@given(st.integers(1, 30), st.lists(st.floats(-0.45, 0.45), min_size=300, max_size=300))
def test_the_average_rate_is_kept_for_frames_that_come_early_and_late(limit, jitter):
    """Five seconds at 60 a second, each frame up to 0.45 of an interval early or late."""
    arrivals = [BEGUN + int((number + shift) * SECOND / 60) for number, shift in enumerate(jitter)]
    assert len(later(taken(limit, arrivals))) == pytest.approx(limit * 4, abs=2)


def test_what_a_network_held_back_and_sent_at_once_is_not_lost():
    """Every two seconds nothing comes for 0.4 s, and then all of it."""
    held_back = [max(arrival, BEGUN + (arrival - BEGUN) // (2 * SECOND) * 2 * SECOND + 2 * SECOND // 5)
                 for arrival in steady(30, 61)]  # fmt: skip
    assert len(later(taken(10, held_back))) == pytest.approx(600, abs=3)


@settings(max_examples=examples(200), deadline=None)
@given(st.floats(0.1, 100), st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=60))
def test_no_more_is_taken_than_the_limit_allows(limit, gaps):
    """In any stretch of any stream: the frames of its length, of half a second more, and one at either end."""
    found = taken(limit, [BEGUN + step for step in itertools.accumulate(gaps)])
    for first, last in itertools.combinations(range(len(found)), 2):
        assert last - first + 1 <= ((found[last] - found[first]) / SECOND + 0.5) * limit + 2.2


def test_a_long_pause_is_not_made_up_for():
    before, after = steady(30, 5), [arrival + 60 * SECOND for arrival in steady(30, 5)]
    assert len(taken(10, before + after)) <= 100 + 2 * (10 * 0.5 + 2)


def test_the_first_frame_is_taken():
    assert taken(0.01, [BEGUN]) == [BEGUN]
