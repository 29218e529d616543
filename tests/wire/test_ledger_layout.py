"""The ledger's tables: written and read back; noise is no table."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.wire import ledger_layout as layout
from engine.wire import ring_layout
from engine.wire.keys import SEQUENCE_MAX
from engine.wire.ledger_layout import EMPTY, OpenRun, Run, Table
from tests.examples import examples

stamps, sequences, sizes = st.integers(0, 2**62), st.integers(1, SEQUENCE_MAX), st.integers(0, 2**55)


@st.composite
def runs(draw):
    first, last = sorted((draw(stamps), draw(stamps)))
    span = draw(st.integers(0, 2**39))
    return Run(first, last, draw(sequences), span, draw(st.integers(1, span + 1)), draw(sizes), draw(stamps))


tables = st.builds(
    Table,
    st.lists(runs(), max_size=layout.RUNS_MAX),
    st.none() | st.builds(OpenRun, stamps, sequences, sizes, sizes, stamps),
)


def page():
    return memoryview(bytearray(ring_layout.HEADER_BYTES)).cast("Q")


@settings(max_examples=examples(200), deadline=None)
@given(tables, tables)
def test_both_tables_read_back_and_leave_everything_else_alone(first, second):
    words = page()
    layout.write_table(words, 0, first)
    layout.write_table(words, 1, second)
    assert [layout.read_table(words, place) for place in (0, 1)] == [first, second]
    assert not any(words[: layout.W_STORED_NANO + 1])


def test_a_full_table_ends_with_the_page():
    words = page()
    run = Run(1, 1, 1, 0, 1, 2**55, 2**62)
    layout.write_table(words, 1, Table([run] * layout.RUNS_MAX, None))
    assert words[-1] == 2**62
    assert layout.RUNS_MAX == 40


def test_a_page_of_zeros_has_empty_tables():
    assert layout.read_table(page(), 0) == layout.read_table(page(), 1) == EMPTY


@settings(max_examples=examples(300), deadline=None)
@given(tables, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2**64 - 1)), min_size=1, max_size=4))
def test_whatever_stands_there_what_is_read_can_be_written_again(table, noise):
    words = page()
    layout.write_table(words, 0, table)
    for place, value in noise:
        words[layout.W_LEDGER + place % 264] = value
    read = layout.read_table(words, 0)
    layout.write_table(words, 1, read)
    assert layout.read_table(words, 1) == read
