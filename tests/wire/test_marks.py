from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.wire.marks import ENTRIES_MAX, Mark, format_cursor, format_mark, parse_cursor, parse_mark

PART = st.integers(0, 2**64 - 1)
COUNT = st.integers(0, ENTRIES_MAX - 1)


@given(st.tuples(PART, PART), COUNT, COUNT)
def test_every_mark_parses_back(at: tuple[int, int], entries: int, before: int) -> None:
    for mark in (Mark(at), Mark(at, entries), Mark(at, entries, before)):
        assert parse_mark(format_mark(mark).encode()) == mark


@given(st.tuples(PART, PART), COUNT | st.none(), st.sampled_from(["", "77"]))
def test_every_cursor_parses_back(at: tuple[int, int], entries: int | None, serial: str) -> None:
    assert parse_cursor(format_cursor(Mark(at, entries), serial).encode()) == (Mark(at, entries), serial.encode())


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"nonsense", b"5", b"%d-1" % 2**64, b"9" * 5000, b" 1-1 5"])
def test_what_is_no_id_is_no_mark(text: bytes) -> None:
    assert parse_mark(text) is None


@pytest.mark.parametrize("count", [b"", b"-1", b"x", b"%d" % ENTRIES_MAX, b"9" * 5000, b"1_0"])
def test_a_count_that_does_not_read_is_not_known(count: bytes) -> None:
    assert parse_mark(b"5-1 " + count + b" 7") == Mark((5, 1))


@given(st.binary())
def test_any_bytes_are_a_mark_or_none(text: bytes) -> None:
    mark = parse_mark(text)
    assert mark is None or parse_mark(format_mark(mark).encode()) == mark
