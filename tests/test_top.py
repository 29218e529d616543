"""``top``: keys, rates and screens, without a terminal."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.cli.top_keys import SORTS, View, pressed, split_keys
from engine.cli.top_rates import CameraRates, Looks, Rates
from engine.cli.top_view import order, screen, spark
from engine.runtime.site_report import SiteReport
from engine.runtime.status_cameras import CameraReport, VideoReport
from engine.runtime.status_processes import ProcessReport, WriterReport
from engine.runtime.status_rings import Latency, RingStatus

KEYS = [
    *("up", "down", "page up", "page down", "home", "end", "enter", "escape", "left", "right", "backspace"),
    *"jksr<>/p ?hab",
]
LATENCY = Latency(0.5, 1.5, 9.0)


def ring(fill: float = 0.0) -> RingStatus:
    return RingStatus(0, 0, 8_000_000, fill, 30.0)


def camera(name: str, /, **changes: object) -> CameraReport:
    report = CameraReport(
        id=name, name="", state="active", since=1, codec="MJPG", mode="passthrough", decode="", note="", width=640,
        height=360, fps=10.0, packet_fps=0.0, key_interval_seconds=0.0, clock_offset_seconds=None,
        clock_drift_ppm=None, captured=100, captured_bytes=1000, stored=100, stored_bytes=1000, stored_total=100,
        lost=0, dropped={}, skipped=0, decoded=0, ring=ring(), latency_ms=LATENCY, consecutive_failures=0,
        last_error="", advice="", connects=1, finished=False, video=None,
    )  # fmt: skip
    return msgspec.structs.replace(report, **changes)


def video(**changes: object) -> VideoReport:
    report = VideoReport(50, 500, 50, 500, 50, 0, {}, 0, ring(), LATENCY)
    return msgspec.structs.replace(report, **changes)


def process(name: str, pid: int, cpu: float, camera: str = "") -> ProcessReport:
    return ProcessReport(name.split(maxsplit=1)[0], name, camera, pid, True, cpu, 1.0, 0.0, 0, 0.1)


def site(*cameras: CameraReport, processes: tuple[ProcessReport, ...] = (), running: bool = True) -> SiteReport:
    return SiteReport(
        site="s", running=running, pid=1, uptime_seconds=5.0, vhost="v", prefix="frames", redis="r",
        cameras=list(cameras), processes=list(processes), writer=WriterReport(1, 1, 0, 0), publisher=None,
        latency_ms=LATENCY, video=None, elsewhere=None, embedded_pid=0, outages=[], rings_last_seconds=None,
        file_differs=[], troubles=[],
    )  # fmt: skip


CAMERAS = [
    camera("b", fps=5.0),
    camera("a", fps=20.0, ring=ring(0.5)),
    camera("c10", state="offline", fps=0.0, last_error="no route to the host"),
    camera("d", video=video(dropped={"broken_gop": 3}), packet_fps=15.0, name="Yard"),
]
RATES = Rates({"b": CameraRates(5, 1e6, 2, 30)}, {"writer": 4.0})


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B", ["up", "down"]),
        (b"\x1bOA", ["up"]),
        (b"\x1b", ["escape"]),
        (b"\x1b[5~\x1b[6~x", ["page up", "page down", "x"]),
        (b"\r\x7f", ["enter", "backspace"]),
        ("é名🎥".encode(), ["é", "名", "🎥"]),
        (b"\x1b[200~a\x00\x01", ["a"]),
        (b"\xff\xc3", []),
    ],
    ids=ascii,
)
def test_bytes_of_a_terminal_become_keys(data, keys):
    assert split_keys(data) == keys


@given(st.binary(max_size=40))
def test_any_bytes_are_read_to_the_end(data):
    assert all(len(key) == 1 or key.isascii() for key in split_keys(data))


@given(st.lists(st.sampled_from(KEYS)), st.integers(0, 4))
def test_keys_never_lead_to_a_camera_that_is_not_shown(keys, cameras):
    report = site(*CAMERAS[:cameras])
    view = View()
    for key in keys:
        shown = [one.id for one in order(report, RATES, view)]
        view = pressed(view, key, shown, 10)
        assert view.sort in SORTS
        assert not view.ended
        assert view.camera in ("", *(one.id for one in report.cameras))
        assert len(screen(report, RATES, {}, view, 80, 24)) == 24


def test_q_ends_it_but_not_in_a_filter():
    assert pressed(View(), "q", [], 1).ended
    typed = pressed(pressed(View(), "/", [], 1), "q", [], 1)
    assert (typed.ended, typed.filter, typed.typing) == (False, "q", True)
    assert not pressed(typed, "enter", [], 1).typing
    assert pressed(typed, "escape", [], 1).filter == ""


def names(view: View) -> list[str]:
    return [one.id for one in order(site(*CAMERAS), RATES, view)]


def test_cameras_are_sorted_filtered_and_found_in_trouble():
    assert names(View()) == ["a", "b", "c10", "d"]
    assert names(View(reverse=True)) == ["d", "c10", "b", "a"]
    assert names(View(sort="fps")) == ["a", "d", "b", "c10"]
    assert names(View(sort="ring"))[0] == "a"
    assert names(View(sort="cpu %"))[0] == "b"
    assert names(View(sort="state"))[0] == "c10"
    assert names(View(filter="yard")) == ["d"]
    assert names(View(filter="ROUTE")) == ["c10"]
    assert names(View(problems=True)) == ["b", "c10"]


def test_rates_are_what_changed_and_begin_again_with_a_process():
    looks = Looks()
    before = site(camera("a", video=video()), processes=(process("capture a", 7, 1.0, "a"), process("writer", 8, 5.0)))
    assert looks.take(before, 100.0).cameras["a"] == CameraRates()
    after = site(
        camera("a", stored_total=120, stored_bytes=3000, dropped={"outage": 4}, video=video(stored_total=60)),
        processes=(process("capture a", 7, 1.5, "a"), process("writer", 9, 1.0)),
    )
    rates = looks.take(after, 102.0)
    assert rates.cameras["a"] == CameraRates(stored=15.0, bytes=1000.0, dropped=2.0, cpu=25.0)
    assert rates.cpu == {"capture a": 25.0, "writer": 0.0}
    assert list(looks.fps["a"]) == [0.0, 0.0]
    assert looks.take(before, 104.0).cameras["a"].stored == 0.0


def test_the_selected_camera_is_always_on_the_screen():
    cameras = [camera(f"cam{number:03}") for number in range(100)]
    for selected in ("cam000", "cam050", "cam099"):
        lines = screen(site(*cameras), Rates({}, {}), {}, View(selected=selected), 80, 24)
        assert len(lines) == 24
        assert any(line.plain.startswith(selected) for line in lines)


@given(st.text(max_size=120), st.integers(20, 200), st.integers(4, 60), st.booleans())
def test_a_screen_has_its_size_whatever_a_camera_is_called(name, width, height, follow):
    followed = name if follow else ""
    lines = screen(site(camera(name, last_error=name, name=name)), RATES, {}, View(camera=followed), width, height)
    assert len(lines) == height
    assert all(cell_len(line.plain) <= width for line in lines)


def test_one_camera_is_told_with_its_drops_and_its_curve():
    looks = {"d": [0.0, 7.5, 15.0]}
    text = "\n".join(line.plain for line in screen(site(*CAMERAS), RATES, looks, View(camera="d"), 80, 30))
    assert "d: Yard" in text
    assert "3 broken_gop" in text
    assert "▁▅█" in text
    assert "no route to the host" in "\n".join(
        line.plain for line in screen(site(*CAMERAS), RATES, {}, View(camera="c10"), 80, 30)
    )


def test_a_site_that_does_not_run_is_waited_for():
    lines = screen(site(running=False), Rates({}, {}), {}, View(), 80, 24)
    assert lines[0].plain == "site s is not running; waiting for it"


def test_bars_reach_from_nothing_to_the_largest():
    assert spark([0, 1, 2]) == "▁▅█"
    assert spark([0, 0]) == "▁▁"
    assert spark([]) == ""
