"""Calls that are made side by side: which are made, and what comes of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from engine.errors import EngineError, RedisUnavailable
from engine.servers.redis import side_by_side
from engine.servers.redis.side_by_side import all_outcomes, first_result

pytestmark = pytest.mark.unit


def fails(text: str) -> Callable[[], str]:
    def call() -> str:
        raise RedisUnavailable(text)

    return call


def test_calls_wait_for_each_other_only_at_the_end() -> None:
    together = threading.Barrier(3)
    outcomes = all_outcomes([together.wait, fails("away"), together.wait, together.wait])
    assert {outcomes[place] for place in (0, 2, 3)} == {0, 1, 2}
    assert str(outcomes[1]) == "away"
    assert isinstance(all_outcomes([fails("alone")])[0], RedisUnavailable)
    assert all_outcomes([]) == []


def test_a_fault_of_ours_is_raised() -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        all_outcomes([broken, lambda: None])
    with pytest.raises(ZeroDivisionError):
        first_result([broken], [])


def test_the_first_result_needs_no_further_call() -> None:
    errors: list[EngineError] = []
    made: list[str] = []
    calls = [fails("a"), fails("b"), lambda: made.append("c") or "found", lambda: made.append("d")]
    assert first_result(calls, errors) == "found"
    assert ([error.fact for error in errors], made) == (["a", "b"], ["c"])
    assert first_result([fails("a"), fails("b")], errors) is None
    assert len(errors) == 4
    assert first_result([], errors) is None


def test_calls_that_hang_are_passed_over_and_not_all_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    made = threading.Semaphore(0)

    def hangs() -> str:
        made.release()
        goes_on.wait(60)
        return "late"

    answers = threading.Event()

    def good() -> str:
        answers.wait(60)
        return "found"

    monkeypatch.setattr(side_by_side, "_HEDGE_SECONDS", 0.01)
    calls: list[Callable[[], str]] = [hangs, hangs, hangs, good, hangs]
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(first_result(calls, [])))
    thread.start()
    for _ in range(4):
        assert made.acquire(timeout=30), "all that hang have been called while they hang"
    answers.set()
    thread.join(30)
    assert found == ["found"]
    assert first_result([good, *[hangs] * 5], []) == "found"
    assert not made.acquire(blocking=False), "a node that answers at once is the only one that is asked"
    goes_on.set()
