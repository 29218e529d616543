"""The lines of ``status``: no name is cut, whatever the width."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.cli.columns import Column, Row, layout, wrapped
from engine.cli.status_view import duration

COLUMNS = (Column("camera"), Column("state", right=False), Column("source", 2), Column("fps"), Column("p99 ms", 1))
TEXT = st.text(st.characters(whitelist_categories=("L", "N")), min_size=1, max_size=60)
ROWS = st.lists(
    st.tuples(TEXT, st.sampled_from(["active", "offline"]), TEXT, st.just("10.0"), st.just("3.4")), min_size=1
)


def plain(rows: list[Row], width: int) -> list[list[str]]:
    return [[line.plain for line in block] for block in layout(COLUMNS, rows, width)]


def test_what_fits_is_one_line_a_row_and_the_reason_below():
    rows = [Row(("a", "active", "MJPG", "10.0", "3.4")), Row(("b", "offline", "", "0.0", "0.0"), "no such host: x")]
    assert plain(rows, 80) == [
        ["camera  state    source   fps  p99 ms"],
        ["a       active     MJPG  10.0     3.4"],
        ["b       offline           0.0     0.0", "  no such host: x"],
    ]


def test_columns_go_by_rank_and_long_names_have_their_own_line():
    name = "a-name-of-forty-characters-that-is-long-"
    rows = [Row((name, "active", "MJPG passthrough", "10.0", "3.4")), Row(("b", "offline", "", "0.0", "0.0"))]
    header, long, short = plain(rows, 48)
    assert header == ["camera                     state     fps  p99 ms"]
    assert long == [name, "                           active   10.0     3.4"]
    assert short == ["b                          offline   0.0     0.0"]
    assert [len(block) for block in plain(rows, 10_000)] == [1, 1, 1]


@given(ROWS, st.integers(10, 200))
def test_every_name_stands_whole_and_lines_keep_to_a_width_that_can_be_kept(cells, width):
    blocks = plain([Row(row) for row in cells], width)[1:]
    for row, block in zip(cells, blocks, strict=True):
        assert block[0] == row[0] or block[0].startswith(row[0] + " ")
        assert row[1] in block[-1]
        if width >= 50:
            assert all(cell_len(line) <= width for line in block[1:] or block) or block[0] == row[0]


@given(
    st.text(st.characters(whitelist_categories=("L", "N", "Zs")), max_size=200), st.integers(0, 4), st.integers(10, 90)
)
def test_a_wrapped_text_keeps_its_words_its_indentation_and_the_width(text, indent, width):
    text = " " * indent + text.strip()
    lines = [line.plain for line in wrapped(text, width)]
    assert "".join(text.split()) == "".join("".join(lines).split())
    assert all(cell_len(line) <= width for line in lines)
    assert not any(line.endswith(" ") for line in lines if line.strip())
    assert all(line.startswith(" " * indent) for line in lines)


def test_a_reason_is_wrapped_below_its_camera():
    reason = "5 tries for 11 s: port 1 closed at 127.0.0.1; correct the port in its url"
    _, (row, *below) = plain([Row(("a", "offline", "", "0.0", "0.0"), reason)], 40)
    assert row.startswith("a  ")
    assert [line.strip() for line in below] == [
        "5 tries for 11 s: port 1 closed at",
        "127.0.0.1; correct the port in its url",
    ]
    assert all(line.startswith("  ") for line in below)


def test_durations():
    assert [duration(s) for s in (0, 119, 120, 7199, 7200, 200_000)] == [
        "0 s",
        "119 s",
        "2 min",
        "120 min",
        "2 h",
        "2 d",
    ]
