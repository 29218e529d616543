"""Slots that store nothing although their nodes answer.

A node that has not got a slot, or not all of it, names another node (MOVED, ASK) or asks for another try. While slots
move, that is over in a moment. It does not end by itself if a move was left half-way, or if two nodes take each other
for the owner. Then the cluster must be mended, and this says which node answers what.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from engine.errors import Cause, RedisUnavailable
from engine.wire.cluster import Node

#: Seconds for which a node must repeat such answers before its slots count as blocked. A move takes less for one slot.
_PATIENCE_SECONDS = 2.0
#: Seconds after which an answer that was not repeated is forgotten: nothing waits for the slot any more. Leases are
#: tried again after 5 s.
_FORGOTTEN_SECONDS = 10.0


class _Answer(NamedTuple):
    """What a node answers about a slot: first and last at these monotonic seconds."""

    text: str
    since: float
    at: float


class BlockedSlots:
    """The slots of one cluster."""

    def __init__(self) -> None:
        self._answers: dict[int, dict[Node, _Answer]] = {}
        #: The nodes that have repeated an answer for longer than the patience lasts.
        self._stubborn: set[Node] = set()

    def __bool__(self) -> bool:
        """True if a node has refused anything that was not stored since."""
        return bool(self._answers)

    def is_blocked(self, slot: int) -> bool:
        """True if a slot stores nothing because of a node that refuses for long."""
        return slot in self._answers and not self._stubborn.isdisjoint(self._answers[slot])

    def has_refused(self, slot: int) -> bool:
        """True if a node has refused what belongs to ``slot``, if only once, and has stored nothing there since."""
        return slot in self._answers

    def refused(self, slot: int, node: Node, answer: str) -> None:
        """A node did not store what belongs to ``slot``."""
        now = time.monotonic()
        answers = self._answers.setdefault(slot, {})
        known = answers.get(node)
        since = known.since if known and now - known.at < _FORGOTTEN_SECONDS else now
        answers[node] = _Answer(answer, since, now)
        if now - since >= _PATIENCE_SECONDS:
            self._stubborn.add(node)

    def stored(self, slot: int) -> None:
        """A node has stored something that belongs to ``slot``."""
        self._answers.pop(slot, None)

    def troubles(self) -> dict[Node, RedisUnavailable]:
        """The nodes that have refused for long, with what they answer and what to do. Forgets old answers."""
        fresh = time.monotonic() - _FORGOTTEN_SECONDS
        refused: dict[Node, list[tuple[int, str]]] = {}
        self._stubborn.clear()
        for slot, answers in list(self._answers.items()):
            for node, answer in list(answers.items()):
                if answer.at <= fresh:
                    del answers[node]
                    continue
                refused.setdefault(node, []).append((slot, answer.text))
                if answer.at - answer.since >= _PATIENCE_SECONDS:
                    self._stubborn.add(node)
            if not answers:
                del self._answers[slot]
        return {node: _trouble(node, refused[node]) for node in self._stubborn}


def _trouble(node: Node, refused: list[tuple[int, str]]) -> RedisUnavailable:
    slot, answer = min(refused)
    slots = f"slot {slot}" if len(refused) == 1 else f"{len(refused):,} slots"
    return RedisUnavailable(
        f"Redis at {node} stores nothing in {slots}: it answers {answer}; "
        f"mend the cluster with `redis-cli --cluster fix {node}`",
        cause=Cause.OTHER,
        subject=f"Redis at {node}",
    )
