"""The times that cameras tell: of each packet and picture, and how far their clocks are from ours."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Camera, Url
from engine.shm.status_page import CaptureCount, StatusPage, signed_value, signed_word
from engine.sources.camera_time import CameraTimes
from engine.sources.choose import open_source
from engine.stages.capture.camera_clock import CameraClock
from tests.examples import examples
from tests.servers.clips import make_clip, read_clip
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.rtsp_video import Mount, RtspVideo

SECOND = 10**9
NOON = 1_731_024_000 * SECOND
FRAME = SECOND // 15


def tells(base: int):
    """A camera whose reports say that the stream's time 0 was at ``base``. Its packets here are their times."""
    return CameraTimes(lambda stated: base + stated)


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.sampled_from([1, 3, -1, 2]) | st.integers(-(10**6), 10**6), max_size=60), st.integers(1, 40))
def test_every_packet_has_the_time_of_its_report_in_whatever_order_they_come(steps: list[int], reordered: int) -> None:
    """B-frames, losses and jumps of the stream's time."""
    stated = 10**6 * FRAME
    times = tells(NOON)
    for step in steps:
        stated += step * FRAME
        assert times.take(stated, stated) == NOON + stated
        assert times.of(stated - reordered * FRAME) == NOON + stated - reordered * FRAME


def test_a_new_report_counts_within_a_second_and_a_jump_at_once() -> None:
    base = NOON
    times = CameraTimes(lambda stated: base + stated)
    assert times.take(0, 0) == NOON
    base += 5_000_000
    assert times.take(SECOND - 1, SECOND - 1) == NOON + SECOND - 1
    assert times.take(SECOND, SECOND) == base + SECOND
    base += 3600 * SECOND
    assert times.take(-3600 * SECOND, -3600 * SECOND) == base - 3600 * SECOND


def test_what_no_report_tells_is_unknown() -> None:
    times = CameraTimes(lambda told: told)
    assert times.of(FRAME) == times.take(0, 0) == 0
    assert times.take(None, NOON) == NOON
    assert times.of(None) == 0
    # A clock that counts from the camera's start is taken for one of 1900.
    assert times.take(2 * SECOND, -NOON) == times.take(4 * SECOND, 10**19) == 0


@pytest.fixture
def page(tmp_path: Path) -> StatusPage:
    return StatusPage.claim(tmp_path / "capture.status")


def shown(page: StatusPage) -> tuple[float | None, float | None]:
    """Offset in seconds and drift in ppm, as shown."""
    offset, drift = (
        signed_value(page.counts[count]) for count in (CaptureCount.CAMERA_OFFSET_US, CaptureCount.CAMERA_DRIFT_PPB)
    )
    return None if offset is None else offset / 1e6, None if drift is None else drift / 1e3


def run(clock: CameraClock, since: float, seconds: float, ahead: float, ppm: float = 0.0, jitter: float = 0.0) -> None:
    """Frames of ``seconds``, of which every other is late by ``jitter`` seconds."""
    for number in range(int(since * 15), int((since + seconds) * 15)):
        now = number * FRAME
        late = int(jitter * SECOND) * (number % 2)
        clock.compare(NOON + now + int(ahead * SECOND + now * ppm / 1e6), NOON + now + late)


@pytest.mark.parametrize(("ahead", "ppm"), [(-7.25, 0), (0.125, 40), (3600, -150), (-56 * 365 * 86_400, 8)])
def test_offset_and_drift_are_those_of_the_frames_that_came_quickest(
    page: StatusPage, ahead: float, ppm: float
) -> None:
    clock = CameraClock(page)
    assert shown(page) == (None, None)
    run(clock, 0, 2, ahead, ppm, jitter=0.08)
    assert shown(page) == (pytest.approx(ahead, abs=0.001), None)
    run(clock, 2, 7200, ahead, ppm, jitter=0.08)
    offset, drift = shown(page)
    assert offset == pytest.approx(ahead + 7200 * ppm / 1e6, abs=0.01)
    assert drift == pytest.approx(ppm, abs=1)
    clock.begin()
    assert shown(page) == (None, None)


def test_a_clock_that_is_set_begins_anew(page: StatusPage) -> None:
    clock = CameraClock(page)
    run(clock, 0, 300, 100, 20)
    run(clock, 300, 30, 0, 20)
    assert shown(page) == (pytest.approx(0.006, abs=0.001), None)
    run(clock, 330, 300, 0, 20)
    assert shown(page)[1] == pytest.approx(20, abs=1)


@given(st.integers(-(10**25), 10**25))
def test_a_word_may_be_negative_or_unknown(value: int) -> None:
    assert signed_value(signed_word(value)) == max(min(value, 2**62 - 1), 1 - 2**62)
    assert 0 < signed_word(value) < 2**63
    assert signed_value(0) is None


def test_jpegs_of_rtsp_have_the_camera_s_time(tmp_path: Path) -> None:
    """GStreamer's server reports this machine's own time."""
    with RtspCamera(tmp_path, codec="mjpeg", fps=10) as server:
        source = open_source(Camera(id="a", url=Url(server.url)))
        clock = CameraClock(page := StatusPage.claim(tmp_path / "capture.status"))
        told = 0
        # The first report comes within seconds.
        for _ in range(300):
            if source.grab() and source.camera_time_nano:
                (stamp,) = source.pictures(time.time_ns())
                assert source.retrieve(stamp, 1).camera_time_nano == source.camera_time_nano
                clock.compare(source.camera_time_nano, stamp)
                told += 1
            if told == 20:
                break
        source.close()
    assert told == 20
    offset, _ = shown(page)
    assert offset is not None
    assert abs(offset) < 5


@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_decoded_picture_has_the_time_of_its_own_packet(tmp_path: Path, b_frames: int) -> None:
    stream = read_clip(make_clip(tmp_path / "a.mp4", fps=25, gop=25, options=("-bf", str(b_frames))))
    packets, pictures = set(), []
    with RtspVideo(tmp_path / "rtsp", {"/cam": Mount(stream, ahead_seconds=-86_400)}) as server:
        source = open_source(Camera(id="a", url=Url(server.url("/cam")), decode="all"))
        while len(pictures) < 30:
            if source.grab():
                packets.add(source.camera_time_nano)
                pictures += [source.retrieve(stamp, 1).camera_time_nano for stamp in source.pictures(NOON)]
        source.close()
    known = [nano for nano in pictures if nano]
    assert len(known) >= 29
    assert known == sorted(set(known))
    assert set(known) <= packets
