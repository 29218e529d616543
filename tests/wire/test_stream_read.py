from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.wire import resp
from engine.wire.stream_read import StreamRead
from tests.examples import examples

positions = st.dictionaries(
    st.binary(min_size=1, max_size=20), st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), min_size=1
)


def test_the_question_is_framed_as_redis_takes_it() -> None:
    found = StreamRead().frame({b"a": (1731024000123456789, 1), b"bc": (0, 0)}, 64, 1000)
    assert found == (
        b"*10\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n$2\r\n64\r\n$5\r\nBLOCK\r\n$4\r\n1000\r\n$7\r\nSTREAMS\r\n"
        b"$1\r\na\r\n$2\r\nbc\r\n$21\r\n1731024000123456789-1\r\n$3\r\n0-0\r\n"
    )


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(positions, min_size=1, max_size=4), st.integers(1, 10_000), st.integers(0, 10_000))
def test_what_was_framed_before_changes_nothing(questions, count: int, block_ms: int) -> None:
    read = StreamRead()
    for asked in [*questions, *questions]:
        words = [b"XREAD", b"COUNT", b"%d" % count, b"BLOCK", b"%d" % block_ms, b"STREAMS"]
        words += [*asked, *(b"%d-%d" % at for at in asked.values())]
        assert read.frame(asked, count, block_ms) == resp.command(*words)
