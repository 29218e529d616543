"""Finds the most cameras that a site carries, in few tries.

The first tries are small. The CPU that they take says where the end is about; from there the search goes up or down in
steps that double, and halves the bracket between what was carried and what was not until it is narrow.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

#: The bracket's ratio at which the search ends.
NARROW = 1.10
#: The first step up or down. It doubles until the bracket is closed.
STEP = 1.15
#: The share of all cores that can be used, at best.
FULL = 0.95
#: By how much fewer cameras a longer run has, if those before it lost frames.
FEWER = (1.0, 1.1, 1.3)
#: Numbers of cameras are multiples of this from here on.
ROUND = 5


class Try(Protocol):
    """One try at a number of cameras."""

    @property
    def cameras(self) -> int: ...

    @property
    def carried(self) -> bool: ...

    @property
    def cores_used(self) -> float:
        """All CPU that it took, servers and senders included, in cores."""
        ...


Tried = TypeVar("Tried", bound=Try)


def search(
    probe: Callable[[int], Tried],
    first: Sequence[int],
    *,
    tries_max: int,
    seconds_max: float = math.inf,
    fits: Callable[[int], bool],
    cores: int | None = None,
) -> list[Tried]:
    """All tries, in their order: those of ``first`` until one is not carried, then at most ``tries_max`` more.

    No try begins after ``seconds_max``, or where the machine has no room for it. A failure among the first is tried
    again: a burst of other work may be its cause.
    """
    cores = cores or os.cpu_count() or 1
    deadline = time.monotonic() + seconds_max
    tries: list[Tried] = []
    for cameras in first:
        if not fits(cameras):
            return tries
        tries.append(probe(cameras))
        if not tries[-1].carried:
            tries.append(probe(cameras))
        if not tries[-1].carried:
            break
    step = STEP
    for number in range(tries_max):
        following = _next(tries, cores, step)
        if following is None or time.monotonic() > deadline or not fits(following):
            break
        tries.append(probe(following))
        # The estimate came first. Steps begin behind it.
        step *= step if number else 1.0
    return tries


def _next(tries: Sequence[Try], cores: int, step: float) -> int | None:
    """The number of cameras to try next; None where the bracket is narrow."""
    best = most(tries)
    # Of fewer cameras than the best, a failure was the work of something else.
    failed = [tried.cameras for tried in tries if not tried.carried and (best is None or tried.cameras > best.cameras)]
    worst = min(failed, default=None)
    if best is None:
        assert worst
        cameras = _rounded(worst / 2)
    elif worst is None:
        estimate = best.cameras * cores * FULL / max(best.cores_used, 1e-3)
        return _rounded(max(estimate, best.cameras * step))
    elif worst <= best.cameras * NARROW:
        return None
    else:
        # While the bracket is wide, close to what failed last: the estimate is seldom far off.
        cameras = _rounded(max(math.sqrt(best.cameras * worst), worst / step))
    return cameras if cameras != worst and (best is None or cameras > best.cameras) else None


def most(tries: Sequence[Tried]) -> Tried | None:
    """The try with the most cameras that was carried."""
    return max((tried for tried in tries if tried.carried), key=lambda tried: tried.cameras, default=None)


def confirm(run: Callable[[int], Tried], cameras: int) -> Tried | None:
    """The first long run that is carried: with ``cameras``, or with fewer; None if none is."""
    for less in FEWER:
        long = run(_rounded(cameras / less))
        if long.carried:
            return long
    return None


def _rounded(cameras: float) -> int:
    return max(round(cameras / ROUND) * ROUND, 1)
