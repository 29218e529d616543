"""The lines of ``status``: no name is cut, whatever the width."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.cli.columns import Column, Row, layout, wrapped
from engine.cli.status_view import count, duration, live_lines, status_lines
from engine.runtime.site_report import SiteReport
from tests import site_reports as made

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


def test_counts_keep_their_digits_up_to_a_hundred_million_and_never_take_more_than_ten_columns():
    assert [count(number) for number in (0, 1_234_567, 99_999_999, 100_000_000, 12_345_678_901)] == [
        "0",
        "1,234,567",
        "99,999,999",
        "100.0 M",
        "12.3 G",
    ]
    assert all(len(count(10**power - 1)) <= 10 for power in range(20))


#: Names that are longer than the label's column, wide, combined, or meant to move the cursor.
NAMES = (
    "a",
    "the-camera-above-the-back-door-of-the-warehouse",
    "倉庫の裏口の上のカメラその一番目の北側",
    "\x1b[2Jx",
    "ca\u0302m",
    "🎥",
)
NUMBERS = st.sampled_from((0, 7, 1_234_567, 99_999_999, 2**40, 2**63))
CAMERAS = st.builds(
    made.camera,
    st.sampled_from(NAMES),
    state=st.sampled_from(("active", "connecting", "offline", "stalled")),
    fps=st.sampled_from((0.0, 30.0, 120.5)),
    captured=NUMBERS,
    stored=NUMBERS,
    dropped=st.builds(dict, lost=NUMBERS),
    clock_offset_seconds=st.sampled_from((None, 0.1, -1e9)),
    video=st.none() | st.builds(made.video, NUMBERS, NUMBERS),
    consecutive_failures=st.sampled_from((0, 12_345)),
    last_error=st.sampled_from(("", "401 from 192.0.2.10: wrong user or password", "word" * 40, "a\nb\x1b[31m")),
)
REPORTS = st.builds(
    lambda cameras, **changes: made.site(*cameras, **changes),
    st.lists(CAMERAS, min_size=1, max_size=4),
    outages=st.lists(
        st.builds(made.outage, st.sampled_from(("refused", "x" * 200, "名" * 60)), st.just(1e7)), max_size=2
    ),
    alerts=st.lists(st.builds(made.alert, st.sampled_from(("short", "long " * 60, "\x1b]0;x\x07"))), max_size=2),
)


@given(REPORTS, st.sampled_from((80, 100, 200)))
def test_a_status_keeps_to_its_width_but_for_names_that_are_wider(report: SiteReport, width: int) -> None:
    for lines in (status_lines(report, width), live_lines(report, width, 30)):
        for line in lines:
            assert cell_len(line.plain) <= width, line.plain
            assert not line.plain or line.plain.isprintable()


def test_a_name_that_is_wider_than_the_line_stands_whole_on_a_line_of_its_own() -> None:
    name = "n" * 200
    assert name in [line.plain for line in status_lines(made.site(made.camera(name)), 80)]
