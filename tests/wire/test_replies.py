"""What Redis may answer to a command, and what it may not."""

from __future__ import annotations

import pytest

from engine.errors import WireError
from engine.wire.replies import check_reply, first_numbers

NANO = 1_731_024_000_000_000_000
ENTRY = [f"{NANO}-1".encode(), [b"s", b"1"]]
SOUND = [
    (("HGETALL", "k"), [b"a", b"b"]),
    (("HKEYS", "k"), []),
    (("MGET", "a", "b"), [b"1", None]),
    (("EXISTS", "a"), 1),
    (("XRANGE", "j", "-", "+"), [ENTRY]),
    (("XREAD", "STREAMS", "j", "0-0"), None),
    (("XREAD", "STREAMS", b"j", "0-0"), [[b"j", [ENTRY]]]),
    (("SCAN", b"0"), [b"0", [b"k"]]),
    (("SET", "k", "v"), [[[]]]),
]
WRONG = [
    (("HGETALL", "k"), [b"a"]),
    (("HGETALL", "k"), None),
    (("HKEYS", "k"), [b"a", 1]),
    (("MGET", "a", "b"), [b"1"]),
    (("MGET", "a"), [[]]),
    (("EXISTS", "a"), b"1"),
    (("XRANGE", "j", "-", "+"), None),
    (("XRANGE", "j", "-", "+"), [[b"1-1"]]),
    (("XRANGE", "j", "-", "+"), [[b"1-1", None]]),
    (("XRANGE", "j", "-", "+"), [[b"no id", []]]),
    (("XREAD", "STREAMS", "j", "0-0"), [[b"j", []]]),
    (("XREAD", "STREAMS", "j", "0-0"), [[b"another", [ENTRY]]]),
    (("XREAD", "STREAMS", "j", "0-0"), 5),
    (("SCAN", b"0"), [b"0"]),
]


@pytest.mark.parametrize(("command", "reply"), SOUND)
def test_a_reply_of_the_right_shape_passes(command, reply):
    check_reply(command, reply)


@pytest.mark.parametrize(("command", "reply"), WRONG)
def test_a_reply_of_another_shape_is_refused_with_the_command(command, reply):
    with pytest.raises(WireError, match=f"it answered .* to {command[0]}"):
        check_reply(command, reply)


def test_the_first_numbers_are_those_of_a_frame_or_none():
    assert first_numbers([ENTRY]) == (NANO, 1)
    for other in ([], None, 5, [5], [[b"x", []]], [[b"%d-1" % (2**64 - 1), []]], [[b"5-1", []]]):
        assert first_numbers(other) == (0, 0)
