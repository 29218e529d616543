"""When a slot of a cluster counts as blocked, and which nodes are named for it."""

from __future__ import annotations

import pytest

from engine.stages.writer import blocked_slots
from engine.stages.writer.blocked_slots import BlockedSlots
from engine.wire.cluster import Node
from engine.wire.state import OUTAGE_CHARACTERS_MAX

FIRST, SECOND = Node("10.0.0.1", 7000), Node("10.0.0.1", 7001)


class Clock:
    """A clock that stands until it is set forward."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(blocked_slots, "time", made)
    return made


def repeat(slots: BlockedSlots, clock: Clock, slot: int, node: Node, answer: str, seconds: float) -> None:
    """A node answers so every half second, for so many seconds."""
    for _ in range(round(2 * seconds)):
        slots.refused(slot, node, answer)
        clock.now += 0.5
    slots.refused(slot, node, answer)


def test_a_slot_is_blocked_once_its_node_has_refused_for_two_seconds(clock: Clock) -> None:
    slots = BlockedSlots()
    repeat(slots, clock, 7, FIRST, "TRYAGAIN", 1.5)
    assert slots.has_refused(7)
    assert not slots.is_blocked(7)
    assert slots.troubles() == {}
    repeat(slots, clock, 7, FIRST, "TRYAGAIN", 0.5)
    assert slots.is_blocked(7)
    assert "in slot 7: it answers TRYAGAIN" in slots.troubles()[FIRST].fact


def test_only_nodes_that_repeat_their_answer_are_named(clock: Clock) -> None:
    slots = BlockedSlots()
    slots.refused(7, SECOND, "MOVED 7 10.0.0.1:7000")
    repeat(slots, clock, 7, FIRST, "TRYAGAIN", 3)
    assert slots.troubles().keys() == {FIRST}


def test_other_slots_of_a_node_that_refuses_for_long_are_blocked_at_once(clock: Clock) -> None:
    slots = BlockedSlots()
    repeat(slots, clock, 7, FIRST, "ASK 7 10.0.0.1:7001", 2)
    slots.refused(8, FIRST, "ASK 8 10.0.0.1:7001")
    slots.refused(9, SECOND, "ASK 9 10.0.0.1:7000")
    assert [slots.is_blocked(slot) for slot in (7, 8, 9)] == [True, True, False]
    assert "in 2 slots: it answers ASK 7" in slots.troubles()[FIRST].fact


def test_a_slot_that_stores_again_is_not_blocked(clock: Clock) -> None:
    slots = BlockedSlots()
    repeat(slots, clock, 7, FIRST, "TRYAGAIN", 3)
    slots.stored(7)
    assert not slots.is_blocked(7)
    assert slots.troubles() == {}
    assert not slots


def test_an_answer_that_is_not_repeated_is_forgotten(clock: Clock) -> None:
    slots = BlockedSlots()
    repeat(slots, clock, 7, FIRST, "TRYAGAIN", 3)
    clock.now += 11
    assert slots.troubles() == {}
    assert not slots.is_blocked(7)
    slots.refused(7, FIRST, "TRYAGAIN")
    assert not slots.is_blocked(7), "its patience begins anew"


def test_the_text_fits_a_status_page(clock: Clock) -> None:
    slots = BlockedSlots()
    repeat(slots, clock, 12_345, Node("192.168.100.100", 16379), "MOVED 12345 192.168.100.101:16379", 2)
    (trouble,) = slots.troubles().values()
    assert len(trouble.fact) < OUTAGE_CHARACTERS_MAX
