"""Commands that are split for a cluster: what their pieces answer, joined, is what one server answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.wire.cluster import SLOTS, ClusterMap, Node, parse_slots, slot_of
from engine.wire.cluster_routing import Command, Piece, join, lacks, split, wait_ms

pytestmark = pytest.mark.unit

KEYS = [f"key{number}".encode() for number in range(12)] + [b"{tag}1", b"{tag}2"]
keys = st.sampled_from(KEYS)


@st.composite
def maps(draw: st.DrawFn) -> ClusterMap:
    borders = sorted(draw(st.sets(st.integers(1, SLOTS - 1), max_size=6)))
    ranges = zip([0, *borders], [*(border - 1 for border in borders), SLOTS - 1], strict=True)
    nodes = st.sampled_from([b"10.0.0.1", b"10.0.0.2", b"::1"])
    return parse_slots([[first, last, [draw(nodes), 6379]] for first, last in ranges], Node("asked", 1))


commands = st.one_of(
    st.builds(lambda found: ("MGET", *found), st.lists(keys, min_size=1, max_size=9)),
    st.builds(lambda found: ("EXISTS", *found), st.lists(keys, min_size=1, max_size=9)),
    st.builds(lambda found: ("GET", found), keys),
    st.builds(
        lambda found, block: ("XREAD", "COUNT", 2, *block, "STREAMS", *found, *("0" for _ in found)),
        st.lists(keys, min_size=1, max_size=9, unique=True),
        st.sampled_from([(), ("BLOCK", 5)]),
    ),
    st.just(("DBSIZE",)),
    st.just(("PING",)),
)


def answer(held: Mapping[bytes, bytes], command: Command) -> Any:
    """What a server with these keys answers; each value stands for an entry of a stream, too."""
    name, *words = command
    if name == "MGET":
        return [held.get(key) for key in words]
    if name == "EXISTS":
        return sum(key in held for key in words)
    if name == "GET":
        return held.get(words[0])
    if name == "XREAD":
        names = words[words.index("STREAMS") + 1 :]
        found = [[key, [[b"1-1", [b"v", held[key]]]]] for key in names[: len(names) // 2] if key in held]
        return found or None
    return {"DBSIZE": len(held), "PING": b"PONG"}[name]


def node_answer(held: Mapping[bytes, bytes], known: ClusterMap, piece: Piece) -> Any:
    """What the node of a piece answers; it takes keys of one slot only."""
    node = piece.node or known.master_of(piece.slot or 0)
    own = {key: value for key, value in held.items() if known.master_of(slot_of(key)) == node}
    if piece.slot is not None:
        named = [word for word in piece.command[1:] if word in KEYS]
        assert named
        assert {slot_of(key) for key in named} == {piece.slot}
    return answer(own, piece.command)


@given(known=maps(), held=st.dictionaries(keys, st.binary(max_size=3)), command=commands)
def test_pieces_joined_answer_as_one_server(known: ClusterMap, held: dict[bytes, bytes], command: Command) -> None:
    pieces = split(0, command, known)
    found = join(command, pieces, [node_answer(held, known, piece) for piece in pieces], known)
    assert found == answer(held, command)


@given(known=maps(), steps=st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_a_scan_visits_every_master_until_its_end(known: ClusterMap, steps: list[int]) -> None:
    left = dict(zip(sorted(known.masters), steps, strict=False))
    total = sum(left.values()) + len(left)
    cursor: Any = 0
    seen = []
    for _ in range(total):
        (piece,) = split(0, ("SCAN", cursor, "COUNT", 10), known)
        assert piece.node is not None
        seen.append(piece.node)
        left[piece.node] -= 1
        reply = [b"17" if left[piece.node] >= 0 else b"0", [b"key"]]
        cursor, found = join(("SCAN", cursor), [piece], [reply], known)
        assert found == [b"key"]
    assert cursor == b"0"
    assert set(seen) == set(known.masters)


def test_a_scan_begins_again_where_its_node_has_gone() -> None:
    known = parse_slots([[0, SLOTS - 1, [b"10.0.0.1", 6379]]], Node("asked", 1))
    (piece,) = split(0, ("SCAN", b"17@10.0.0.9:6379"), known)
    assert piece == Piece(0, ("SCAN", "0"), None, Node("10.0.0.1", 6379))


@pytest.mark.parametrize("word", ["MULTI", "exec", b"WATCH"], ids=str)
def test_a_transaction_belongs_to_one_node(word: Any) -> None:
    known = parse_slots([[0, SLOTS - 1, [b"10.0.0.1", 6379]]], Node("asked", 1))
    with pytest.raises(ValueError, match="node_of"):
        split(0, (word, "key"), known)


def test_only_reads_of_several_slots_wait_at_the_caller() -> None:
    one = ("XREAD", "BLOCK", 500, "STREAMS", "{a}1", "{a}2", "0", "0")
    two = ("XREAD", "BLOCK", 500, "STREAMS", "key1", "key2", "0", "0")
    assert (wait_ms([one]), wait_ms([two]), wait_ms([two[:1] + two[3:]])) == (None, 500, None)
    assert wait_ms([two, ("XREAD", "BLOCK", 0, *two[3:])]) == 0
    known = parse_slots([[0, SLOTS - 1, [b"10.0.0.1", 6379]]], Node("asked", 1))
    assert [piece.command for piece in split(0, one, known)] == [one]
    assert all("BLOCK" not in piece.command for piece in split(0, two, known))


@pytest.mark.parametrize(
    ("command", "reply", "lacking"),
    [
        (("MGET", "a", "b"), [b"1", None], True),
        (("MGET", "a"), [b""], False),
        (("EXISTS", "a", "b"), 1, True),
        (("EXISTS", "a"), 1, False),
        (("GET", "a"), None, True),
        (("PTTL", "a"), -2, True),
        (("PTTL", "a"), -1, False),
        (("XRANGE", "a", "-", "+"), [], False),
        (("XRANGE", "a", "1-1", "1-1"), [], True),
        (("XRANGE", "a", "1-1", "1-1"), [[b"1-1", []]], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_what_a_replica_may_lack(command: Command, reply: Any, lacking: bool) -> None:
    assert lacks(command, reply) is lacking
