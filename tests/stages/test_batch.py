"""A batch's bytes and what replies say of it, without a server."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.shm.ring import Record
from engine.stages.writer.batch import Batch, Part
from engine.wire.resp import FrameFraming

NANO = 1_731_024_000_000_000_000
ONE, TWO = (FrameFraming("v", "frames", camera, 60_000) for camera in ("cam1", "cam2"))


def records(count: int, begin: int = 1) -> list[Record]:
    payload = memoryview(b"payload")
    return [Record(NANO + n, n, 640, 480, 0, 1, 0, n, payload, 0) for n in range(begin, begin + count)]


def commands(batch: Batch) -> list[list[bytes]]:
    """What a server would read."""
    reader = hiredis.Reader()
    reader.feed(b"".join(batch.buffers()))
    found = []
    while (command := reader.gets()) is not False:
        found.append(command)
    return found


def test_a_batch_is_one_transaction_in_this_order() -> None:
    batch = Batch([Part(ONE, records(2), NANO, 7), Part(TWO, records(1))])
    asked = commands(batch)
    assert [command[0] for command in asked] == [
        b"MULTI",
        b"SET", b"XADD", b"SET", b"XADD", b"PEXPIRE", b"XTRIM",
        b"SET", b"XADD", b"PEXPIRE",
        b"EXEC",
    ]  # fmt: skip
    assert asked[1] == [b"SET", b"v:frames:cam1:%d:00001" % (NANO + 1), b"payload", b"PX", b"60000"]
    assert [command[-1] for command in asked if command[0] == b"XADD"] == [b"7", b"8", b"0"], "the entries' numbers"


def test_payloads_are_not_copied() -> None:
    found = records(3)
    views = [buffer for buffer in Batch([Part(ONE, found)]).buffers() if isinstance(buffer, memoryview)]
    assert all(view is record.payload for view, record in zip(views, found, strict=True))


parts = st.lists(st.tuples(st.integers(1, 5), st.sampled_from((0, NANO)), st.integers(0, 2)), min_size=1, max_size=4)


def made(shapes: list[tuple[int, int, int]]) -> Batch:
    return Batch([Part(ONE, records(count), trim_nano, number) for count, trim_nano, number in shapes])


@settings(max_examples=50, deadline=None)
@given(parts)
def test_it_expects_a_reply_for_each_command_and_a_result_for_each_of_the_transaction(shapes: Any) -> None:
    batch = made(shapes)
    # EXEC's own reply and MULTI's, and one for each command between them.
    assert batch.replies == len(commands(batch))
    assert batch.parse(good(batch)) == [{}] * len(shapes)


def good(batch: Batch) -> list[Any]:
    """What Redis answers when it stores all."""
    results: dict[bytes, Any] = {b"SET": b"OK", b"XADD": b"1-1", b"PEXPIRE": 1, b"XTRIM": 0}
    queued = [results[command[0]] for command in commands(batch)[1:-1]]
    return [b"OK", *[b"QUEUED"] * len(queued), queued]


@settings(max_examples=50, deadline=None)
@given(parts, st.data())
def test_an_entry_that_is_refused_is_told_by_its_part_and_place(shapes: Any, data: st.DataObject) -> None:
    batch = made(shapes)
    replies = good(batch)
    part = data.draw(st.integers(0, len(shapes) - 1))
    place = data.draw(st.integers(0, shapes[part][0] - 1))
    before = sum(one.replies for one in batch.parts[:part])
    replies[-1][before + 2 * place + 1] = hiredis.ReplyError("ERR equal or smaller")
    expected: list[dict[int, str]] = [{} for _ in shapes]
    expected[part][place] = "ERR equal or smaller"
    assert batch.parse(replies) == expected


def test_a_refused_batch_gives_the_command_s_own_reason() -> None:
    batch = Batch([Part(ONE, records(1))])
    oom, abort = hiredis.ReplyError("OOM command not allowed"), hiredis.ReplyError("EXECABORT")
    with pytest.raises(hiredis.ReplyError, match="OOM"):
        batch.parse([b"OK", oom, b"QUEUED", b"QUEUED", abort])
    with pytest.raises(hiredis.ReplyError, match="EXECABORT"):
        batch.parse([b"OK", b"QUEUED", b"QUEUED", b"QUEUED", abort])


def test_a_frame_that_was_not_stored_refuses_the_batch() -> None:
    batch = Batch([Part(ONE, records(2))])
    replies = good(batch)
    replies[-1][2] = hiredis.ReplyError("OOM command not allowed")
    with pytest.raises(hiredis.ReplyError, match="OOM"):
        batch.parse(replies)


@pytest.mark.parametrize("results", [None, 7, b"OK", [], [b"OK"], [b"OK", b"1-1", 1, 1]])
def test_what_is_no_answer_to_exec_is_an_error(results: Any) -> None:
    with pytest.raises(WireError, match="to EXEC, not 3 results"):
        Batch([Part(ONE, records(1))]).parse([b"OK", b"QUEUED", b"QUEUED", b"QUEUED", results])


def test_an_error_among_the_queued_with_results_all_the_same_is_an_error() -> None:
    batch = Batch([Part(ONE, records(1))])
    replies = good(batch)
    replies[1] = hiredis.ReplyError("ERR no")
    with pytest.raises(WireError, match="EXEC"):
        batch.parse(replies)


@pytest.mark.parametrize(
    ("place", "reply", "command"), [(0, b"NO", "SET"), (0, 1, "SET"), (1, 1, "XADD"), (1, [], "XADD")]
)
def test_a_result_of_the_wrong_shape_is_an_error(place: int, reply: Any, command: str) -> None:
    batch = Batch([Part(ONE, records(1))])
    replies = good(batch)
    replies[-1][place] = reply
    with pytest.raises(WireError, match=f"to {command}"):
        batch.parse(replies)
