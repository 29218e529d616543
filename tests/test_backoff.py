"""Pauses between tries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backoff import Backoff


def longest(_: float, high: float) -> float:
    return high


def pauses(backoff: Backoff, count: int) -> list[float]:
    return [backoff.next_seconds() for _ in range(count)]


def test_pauses_double_up_to_the_longest():
    assert pauses(Backoff(0.5, 3, longest), 5) == [0.5, 1, 2, 3, 3]


def test_after_a_reset_the_first_pause_comes_again():
    backoff = Backoff(0.5, 3, longest)
    pauses(backoff, 4)
    backoff.reset()
    assert backoff.failures == 0
    assert pauses(backoff, 2) == [0.5, 1]


def test_failures_are_counted():
    backoff = Backoff(0.5, 3)
    pauses(backoff, 7)
    assert backoff.failures == 7


def test_what_trying_soon_cannot_help_waits_longest_until_the_reset():
    backoff = Backoff(0.5, 30, longest)
    backoff.use_longest()
    assert pauses(backoff, 2) == [30, 30]
    backoff.reset()
    assert pauses(backoff, 1) == [0.5]


def test_a_thousand_failures_are_no_overflow():
    assert pauses(Backoff(0.1, 30, longest), 2000)[-1] == 30


@given(st.floats(0.001, 10), st.floats(1, 1000), st.integers(1, 40))
def test_each_pause_is_between_half_and_all_of_itself(shortest, factor, count):
    whole = pauses(Backoff(shortest, shortest * factor, longest), count)[-1]
    drawn = pauses(Backoff(shortest, shortest * factor), count)[-1]
    assert whole / 2 <= drawn <= whole <= shortest * factor


def test_those_who_failed_together_do_not_retry_together():
    assert len({pauses(Backoff(0.5, 30), 10)[-1] for _ in range(20)}) > 10


@pytest.mark.parametrize(("shortest", "most"), [(0, 1), (-1, 1), (2, 1)])
def test_bounds_that_make_no_sense_are_refused(shortest, most):
    with pytest.raises(ValueError, match=r"pauses from .* to .* s"):
        Backoff(shortest, most)
