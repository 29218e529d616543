"""Several sides of one comparison, measured in turns, where the harness's ``paired`` knows two and only the clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from pytest_benchmark.fixture import BenchmarkFixture

Measure = TypeVar("Measure")

#: The engine's own side, in what ``in_turns`` takes.
OURS = "ours"


def in_turns(
    benchmark: BenchmarkFixture, sides: Mapping[str, Callable[[], Measure]], rounds: int, warmup: int = 1
) -> dict[str, list[Measure]]:
    """What each side has measured of itself, round by round: all the others, and ours right behind them.

    pytest-benchmark keeps the statistics of ours. The warm-up rounds are left out.
    """
    measured: dict[str, list[Measure]] = {side: [] for side in sides}

    def run(side: str) -> None:
        measured[side].append(sides[side]())

    def others() -> None:
        for side in sides:
            if side != OURS:
                run(side)

    benchmark.pedantic(run, args=(OURS,), setup=others, rounds=rounds, warmup_rounds=warmup)  # type: ignore[no-untyped-call]
    return {side: list(values[-rounds:]) for side, values in measured.items()}


def quotients(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """How many times ours theirs was, in each round."""
    return [their / our for their, our in zip(theirs, ours, strict=True)]
