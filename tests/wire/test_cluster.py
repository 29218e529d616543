"""Slots, the map of a cluster, and redirections: properties and golden replies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from engine.errors import WireError
from engine.wire.cluster import SLOTS, ClusterMap, Node, parse_redirect, parse_slots, slot_of

A, B = Node("10.0.0.1", 6379), Node("10.0.0.2", 6379)
REPLY = [
    [0, 8191, [b"10.0.0.1", 6379, b"id-a", []], [b"10.0.0.3", 6379, b"id-c", []]],
    [8192, 16383, [b"10.0.0.2", 6379, b"id-b", []]],
]

pytestmark = pytest.mark.unit


def test_slots_are_those_of_the_specification() -> None:
    # The specification's examples.
    assert slot_of(b"123456789") == 0x31C3
    assert slot_of(b"{user1000}.following") == slot_of(b"{user1000}.followers") == slot_of(b"user1000")
    assert slot_of(b"foo{}{bar}") != slot_of(b"bar")
    assert slot_of(b"default:frames:cam1:1731024000123456789:00001") == 7067


@given(key=st.binary(max_size=30) | st.text("{}ab", max_size=12).map(str.encode))
def test_slots_are_those_of_redis_py(key: bytes) -> None:
    assert slot_of(key) == key_slot(key)


def test_a_map_says_who_has_a_slot() -> None:
    found = parse_slots(REPLY, A)
    assert (found.masters, found.covered) == ((A, B), True)
    assert (found.master_of(0), found.master_of(8191), found.master_of(8192), found.master_of(SLOTS - 1)) == (
        A,
        A,
        B,
        B,
    )
    assert found.replicas == {A: (Node("10.0.0.3", 6379),), B: ()}
    part = parse_slots(REPLY[:1], A)
    assert (part.covered, part.master_of(8192)) == (False, None)


@pytest.mark.parametrize("unknown", [None, b"", b"?"], ids=["null", "empty", "question mark"])
def test_a_node_without_an_address_is_where_it_was_asked(unknown: bytes | None) -> None:
    assert parse_slots([[0, 1, [unknown, 7000, b"id", []]]], Node("asked", 1)).master_of(0) == Node("asked", 7000)


@given(slot=st.integers(0, SLOTS - 1), port=st.integers(1, 65535))
def test_a_move_changes_one_slot(slot: int, port: int) -> None:
    before = parse_slots(REPLY, A)
    after = before.moved(slot, Node("10.0.0.9", port))
    assert after.master_of(slot) == Node("10.0.0.9", port)
    others = set(range(SLOTS)) - {slot}
    assert all(after.master_of(other) == before.master_of(other) for other in others)


anything: st.SearchStrategy[object] = st.recursive(
    st.none() | st.integers(-1, 2**40) | st.binary(max_size=20), lambda part: st.lists(part, max_size=4), max_leaves=12
)


@given(reply=anything)
def test_any_reply_is_a_map_or_an_error(reply: object) -> None:
    try:
        found = parse_slots(reply, A)
    except WireError:
        return
    assert isinstance(found, ClusterMap)
    assert all(found.master_of(slot) in {*found.masters, None} for slot in (0, 100, SLOTS - 1))


def test_redirections() -> None:
    moved = parse_redirect("MOVED 3999 10.0.0.2:6381", A)
    assert moved is not None
    assert (moved.ask, moved.slot, moved.node) == (False, 3999, Node("10.0.0.2", 6381))
    unnamed = parse_redirect("MOVED 1 ?:7000", A)
    assert unnamed
    assert unnamed.node == Node(A.host, 7000)
    asked = parse_redirect("ASK 1 :7000", A)
    assert asked is not None
    assert (asked.ask, asked.slot, asked.node) == (True, 1, Node("10.0.0.1", 7000))
    six = parse_redirect("MOVED 1 ::1:7000", A)
    assert six is not None
    assert six.node == Node("::1", 7000)


@given(text=st.text(max_size=40) | st.from_regex(r"(MOVED|ASK) [0-9]{1,6} .{0,9}:[0-9]{1,6}", fullmatch=True))
def test_any_error_is_a_redirection_or_none(text: str) -> None:
    found = parse_redirect(text, A)
    assert found is None or (0 <= found.slot < SLOTS and 0 < found.node.port < 65536)
