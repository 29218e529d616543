from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import WireError
from engine.jobs.sent_ranges import Spans

identifiers = st.tuples(st.integers(0, 12), st.integers(0, 3))
ALL = [(nano, sequence) for nano in range(13) for sequence in range(4)]


@given(st.lists(st.tuples(identifiers, identifiers), max_size=8))
def test_spans_hold_what_was_added_and_nothing_else(spans):
    sent = Spans(spans)
    assert [one for one in ALL if one in sent] == [
        one for one in ALL if any(first <= one <= last for first, last in spans)
    ]
    again = Spans.parse(sent.text.encode())
    assert again.text == sent.text
    assert [one for one in ALL if one in again] == [one for one in ALL if one in sent]


def test_spans_that_meet_become_one():
    sent = Spans([((1, 0), (3, 1)), ((5, 0), (6, 0))])
    assert sent.text == "1-0..3-1,5-0..6-0"
    sent.add((2, 0), (5, 5))
    assert sent.text == "1-0..6-0"


def test_nothing_sent_is_no_text():
    assert Spans().text == ""
    assert (1, 1) not in Spans.parse(b"")


@pytest.mark.parametrize("text", [b"x", b"1-0", b"1-0..", b"..1-0", b"1-0..2-0,", b"1..2"])
def test_what_is_no_span_is_refused(text):
    with pytest.raises(WireError):
        Spans.parse(text)
