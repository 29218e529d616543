"""``edge-video top`` without a terminal: keys, rates, what a key does, and what the screen shows."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.cli.top_keys import Keys
from engine.cli.top_rates import NOTHING, History, rates, sparkline
from engine.cli.top_state import SORTS, View, chosen, press, settled
from engine.cli.top_view import Frame, Look, frame
from engine.runtime.site_report import SiteReport
from tests import site_reports as made
from tests.test_status_view import REPORTS

BLOCKS = "▁▂▃▄▅▆▇█"


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B\x1bOA", ["up", "down", "up"]),
        (b"\x1b[5~\x1b[6~j", ["page up", "page down", "j"]),
        (b"\r\n\x7f", ["enter", "enter", "backspace"]),
        ("é名".encode(), ["é", "名"]),
        (b"\x1b[1;5A\x1b[200~x", ["x"]),
        (b"\x1bx", ["esc", "x"]),
        (b"\x1b\x1b[A", ["esc", "up"]),
        (b"\x00\x01", []),
        (b"\xff\xfe", []),
    ],
    ids=repr,
)
def test_keys_at_every_split(data: bytes, keys: list[str]) -> None:
    for at in range(len(data) + 1):
        reader = Keys()
        assert reader.feed(data[:at]) + reader.feed(data[at:]) == keys


def test_a_lone_esc_is_a_key_once_nothing_follows() -> None:
    keys = Keys()
    assert keys.feed(b"\x1b") == []
    assert keys.pending
    assert keys.flush() == ["esc"]
    assert not keys.pending


@given(st.binary(max_size=60))
def test_any_bytes_are_keys_or_nothing(data: bytes) -> None:
    keys = Keys()
    assert all(isinstance(key, str) and key for key in keys.feed(data) + keys.flush())


def test_rates_are_of_what_came_in_between() -> None:
    first = made.site(
        made.camera("a", stored_total=100, captured_bytes=1000, dropped={"lost": 1}, video=made.video(10)),
        made.camera("b", stored_total=50),
    )
    later = made.site(
        made.camera("a", stored_total=160, captured_bytes=3000, dropped={"lost": 5}, video=made.video(40)),
        made.camera("c", stored_total=7),
    )
    found = rates(first, later, 2.0)
    assert found.of("a")[:3] == (45.0, 16_000.0, 2.0)
    assert found.of("a").drops == {"lost": 2.0}
    assert found.of("c").stored == 0
    assert (found.stored(), found.dropped()) == (45.0, 2.0)
    assert rates(None, later, 2.0) == NOTHING


def test_cpu_is_that_of_now_and_not_since_the_start() -> None:
    before, after = (
        made.site(
            made.camera("a"),
            processes=[
                made.process("writer", pid=10, cpu_seconds=seconds),
                made.process("capture", "a", pid, cpu_seconds=9),
            ],
        )
        for seconds, pid in ((100.0, 20), (100.5, 21))
    )
    found = rates(before, after, 1.0)
    assert found.cpu == {10: 50.0}
    assert found.of("a").cpu is None, "another process, of which nothing is known yet"


def test_a_site_that_was_started_again_has_no_rates() -> None:
    assert rates(made.site(made.camera("a"), pid=1), made.site(made.camera("a"), pid=2), 1.0) == NOTHING


def test_a_curve_shows_the_newest_value_at_the_right_and_fits() -> None:
    assert sparkline([0.0, 15.0, 30.0], 10, BLOCKS) == "▁▅█"
    assert sparkline([30.0] * 100 + [0.0] * 100, 10, BLOCKS) == "█████▁▁▁▁▁"
    assert sparkline([], 10, BLOCKS) == ""
    assert sparkline([0.0], 10, BLOCKS) == "▁"


@given(st.lists(st.floats(0, 1e6), max_size=700), st.integers(1, 200))
def test_a_curve_never_exceeds_its_width(values: list[float], width: int) -> None:
    assert len(sparkline(values, width, BLOCKS)) <= width


def test_a_curve_forgets_cameras_that_have_gone() -> None:
    history = History()
    history.add(made.site(made.camera("a"), made.camera("b", decode="none", fps=0.0, packet_fps=15.0)))
    assert history.fps("b") == [15.0]
    history.add(made.site(made.camera("a")))
    assert (history.fps("a"), history.fps("b")) == ([30.0, 30.0], [])


CAMERAS = [
    made.camera("a", fps=10.0, ring=made.ring(0.6)),
    made.camera("b", state="offline", fps=0.0, consecutive_failures=3),
    made.camera("c", name="Back door", fps=30.0, dropped={"lost": 9}),
]


@pytest.mark.parametrize(
    ("changes", "order"),
    [
        ({}, "abc"),
        ({"reverse": True}, "cba"),
        ({"sort": "fps"}, "cab"),
        ({"sort": "fps", "reverse": True}, "bac"),
        ({"sort": "state"}, "bac"),
        ({"sort": "dropped"}, "cab"),
        ({"sort": "ring"}, "abc"),
        ({"filter": "DOOR"}, "c"),
        ({"filter": "offl"}, "b"),
        ({"filter": "nothing"}, ""),
        ({"problems": True}, "ab"),
    ],
    ids=str,
)
def test_sorting_and_filtering(changes: dict[str, object], order: str) -> None:
    assert "".join(camera.id for camera in chosen(CAMERAS, NOTHING, View(**changes))) == order  # type: ignore[arg-type]


def pressed(*keys: str, view: View | None = None, order: str = "abc", rows: int = 2) -> View:
    view = view or View(selected=order[:1])
    for key in keys:
        view = settled(press(view, key, order, rows), order, rows)
    return view


def test_keys_select_and_scroll() -> None:
    assert pressed("down", "j").selected == "c"
    assert pressed("down", "j").top == 1
    assert pressed("down", "j", "up", "k", "k").selected == "a"
    assert pressed("end").selected == pressed("page down").selected == pressed("G").selected == "c"
    assert pressed("end", "home").top == 0


def test_keys_sort_reverse_and_filter() -> None:
    assert [pressed(*["s"] * number).sort for number in range(len(SORTS))] == list(SORTS)
    assert pressed("<").sort == list(SORTS)[-1]
    assert pressed("s", "r").reverse
    assert not pressed("r", "s").reverse, "another column begins in its own order"
    assert pressed("/", "q", "x", "backspace").filter == "q"
    assert pressed("/", "q").typing
    assert not pressed("/", "q").quit
    assert pressed("/", "q", "enter")[2:4] == ("q", False)
    assert pressed("/", "q", "enter", "esc").filter == ""
    assert pressed("/", "q", "esc").filter == ""
    assert pressed("p").problems
    assert pressed(" ").paused
    assert not pressed(" ", " ").paused


def test_keys_follow_a_camera_help_and_quit() -> None:
    assert pressed("down", "enter").detail
    assert not pressed("enter", "esc").detail
    assert pressed("enter", "down").selected == "b"
    assert pressed("h").help
    assert not pressed("?", "x").help
    assert pressed("q").quit
    assert pressed("h", "q").quit


def test_a_selected_camera_stays_selected_wherever_sorting_moves_it() -> None:
    view = settled(View(selected="c"), ["c", "b", "a"], 2)
    assert (view.selected, view.top) == ("c", 0)
    assert settled(view, ["a", "b", "c"], 2)[5:7] == ("c", 1)
    assert settled(view, ["a", "b"], 2).selected == "a"
    assert settled(view, [], 2).top == 0


def screen(report: SiteReport, view: View | None = None, width: int = 80, height: int = 24) -> Frame:
    history = History()
    for _ in range(3):
        history.add(report)
    look = Look(report, rates(report, report, 1.0), history, {10: 12.5}, 10**18 + 10**10)
    return frame(look, view or View(), width, height, BLOCKS)


def text(shown: Frame) -> str:
    return "\n".join(line.plain for line in shown.lines)


#: A hundred cameras, one of them away.
MANY = made.site(
    made.camera("cam-000", state="offline", last_error="port 554 closed; turn RTSP on", advice="turn RTSP on"),
    *(made.camera(f"cam-{number:03}") for number in range(1, 100)),
    outages=[made.outage()],
    alerts=[made.alert()],
)


def test_the_screen_of_a_hundred_cameras() -> None:
    shown = screen(MANY)
    assert len(shown.lines) == 24
    assert "99 of 100 cameras active, redis away for 7 s" in shown.lines[0].plain
    assert "cam1 has sent nothing for 12 s" in text(shown)
    assert "captures: 100 of 100" in text(shown)
    assert "cam-000  offline" in text(shown)
    assert f"1-{shown.rows} of 100" in shown.lines[-1].plain
    last = screen(MANY, press(shown.view, "end", shown.order, shown.rows))
    assert "cam-099" in text(last)
    assert "of 100  sort: camera" in last.lines[-1].plain
    wide = screen(MANY, width=200, height=60)
    assert wide.rows > shown.rows
    assert "source" in text(wide)


def test_the_screen_of_one_camera() -> None:
    shown = text(screen(MANY, View(selected="cam-000", detail=True)))
    assert "port 554 closed; turn RTSP on" in shown
    assert "offline for 10 s" in shown
    assert "███" in shown
    assert "no longer part" in text(screen(MANY, View(selected="gone", detail=True)))


def test_the_list_of_keys_and_a_site_that_does_not_run() -> None:
    assert "sort by the next column" in text(screen(MANY, View(help=True)))
    shown = text(screen(made.site(made.camera("a"), running=False)))
    assert "site shop is not running" in shown
    assert "waiting" in shown


def test_many_reasons_leave_room_for_the_cameras() -> None:
    report = made.site(made.camera("a"), alerts=[made.alert(f"alert {number}") for number in range(200)])
    shown = text(screen(report))
    assert "more lines: edge-video status" in shown
    assert "a       active" in shown


VIEWS = st.builds(
    View,
    sort=st.sampled_from(list(SORTS)),
    filter=st.sampled_from(("", "a", "x" * 60)),
    typing=st.booleans(),
    selected=st.sampled_from(("", "a", "gone")),
    top=st.integers(0, 9),
    detail=st.booleans(),
    help=st.booleans(),
)


@given(REPORTS, VIEWS, st.sampled_from(list(itertools.product((1, 40, 80, 200), (1, 10, 24, 60)))))
def test_every_screen_has_its_size(report: SiteReport, view: View, size: tuple[int, int]) -> None:
    width, height = max(size[0], 40), max(size[1], 10)
    shown = screen(report, view, *size)
    assert len(shown.lines) == height
    for line in shown.lines:
        assert cell_len(line.plain) <= width
        assert not line.plain or line.plain.isprintable()
