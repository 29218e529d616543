"""Cameras that refuse, hang, die, send what is no video, or change under way; twenty good ones beside them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.faults.run import CAMERAS, FaultRun, pattern
from tests.faults.streams import StreamCamera, clip
from tests.servers.mjpeg_http import MjpegCamera, Mode, make_jpegs
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.wait import wait_until

GOOD = [{"id": name, "url": pattern()} for name in CAMERAS]
JPEGS = make_jpegs(20)
BAD = "bad"


def begin(run: FaultRun, url: str, *, well: bool = True, **settings: Any) -> None:
    """Start the good cameras and one at ``url``, which is ``well`` at first or not."""
    run.unstamped = {BAD}
    run.unwell = set() if well else {BAD}
    run.start([*GOOD, {"id": BAD, "url": url, **settings}])


def fails(run: FaultRun, times: int = 2) -> None:
    """The bad camera is given up and tried again; nobody else notices."""
    run.unwell = {BAD}
    before = run.site.camera(BAD)["connects"]
    wait_until(lambda: run.site.camera(BAD)["connects"] >= before + times, 30, "it is tried again", interval=0.1)
    wait_until(lambda: run.site.camera(BAD)["last_error"], 20, "the reason is shown")
    run.flows(1)


def heals(run: FaultRun) -> None:
    run.unwell = set()
    run.ends(innocent=CAMERAS)


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("refuse", marks=pytest.mark.case("camera-refused")),
        pytest.param("silent", marks=pytest.mark.case("camera-hung-connect")),
        pytest.param("garbage", marks=pytest.mark.case("camera-garbage")),
    ],
)
def test_no_video_from_the_start(run: FaultRun, mode: Mode) -> None:
    with MjpegCamera(JPEGS, fps=10, mode=mode) as camera:
        begin(run, camera.url, well=False)
        fails(run)
        camera.mode = "normal"
        heals(run)


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("stall", marks=pytest.mark.case("camera-hung")),
        pytest.param("die-mid-frame", marks=pytest.mark.case("camera-dead")),
    ],
)
def test_a_stream_that_breaks_off(run: FaultRun, mode: Mode) -> None:
    with MjpegCamera(JPEGS, fps=10) as camera:
        begin(run, camera.url)
        camera.mode = mode
        fails(run)
        camera.mode = "normal"
        heals(run)
        sent = set(camera.sent)
        stored = payloads(run)
        assert stored
        assert set(stored) <= sent, "what is stored is what was sent whole"


@pytest.mark.case("camera-truncated")
def test_truncated_frames(run: FaultRun) -> None:
    with MjpegCamera(JPEGS, fps=10, mode="truncated", every=4) as camera:
        begin(run, camera.url)
        wait_until(lambda: run.site.camera(BAD)["dropped"]["corrupt"] >= 4, 30, "they are counted")
        camera.mode = "normal"
        heals(run)
        assert not set(payloads(run)) & set(camera.truncated)


@pytest.mark.case("camera-corrupt")
def test_corrupt_frames(run: FaultRun) -> None:
    noise = random.Random(run.seed)

    def frame(index: int) -> bytes:
        data = bytearray(JPEGS[index % len(JPEGS)])
        if index % 2:
            for _ in range(8):
                data[noise.randrange(2, len(data))] = noise.randrange(256)
        return bytes(data)

    with MjpegCamera(frame, fps=10) as camera:
        begin(run, camera.url)
        run.flows(3)
        heals(run)


@pytest.mark.case("camera-huge")
def test_frames_of_30_mb(run: FaultRun) -> None:
    # A sound JPEG whose picture is small and whose comments are not.
    segment = b"\xff\xfe\xff\xff" + bytes(65_533)
    huge = JPEGS[0][:2] + segment * (30 * 2**20 // len(segment)) + JPEGS[0][2:]
    with MjpegCamera(lambda index: huge if index % 10 == 9 else JPEGS[index % 20], fps=10) as camera:
        begin(run, camera.url)
        wait_until(lambda: sum(run.site.camera(BAD)["dropped"].values()) >= 2, 40, "they are counted")
        run.flows(1)
        heals(run)


@pytest.mark.case("camera-too-large")
def test_nothing_but_frames_that_are_too_large(run: FaultRun) -> None:
    segment = b"\xff\xfe\xff\xff" + bytes(65_533)
    large = JPEGS[0][:2] + segment * 10 + JPEGS[0][2:]
    too_large = False
    with MjpegCamera(lambda index: large if too_large else JPEGS[index % 20], fps=10) as camera:
        begin(run, camera.url)
        too_large = True
        run.unwell = {BAD}
        wait_until(lambda: run.site.camera(BAD)["state"] == "stalled", 30, "it is no better than stalled")
        assert run.site.camera(BAD)["last_error"].startswith(
            f"every frame is too large: {len(large):,} bytes, ring takes"
        )
        run.flows(1)
        too_large = False
        heals(run)


@pytest.mark.case("camera-password")
def test_a_password_that_is_changed(run: FaultRun, tmp_path: Path) -> None:
    camera = RtspCamera(tmp_path, codec="mjpeg", user="viewer", password="old", fps=10)
    changed = RtspCamera(tmp_path, codec="mjpeg", user="viewer", password="new", fps=10, port=camera.port)
    camera.start()
    try:
        begin(run, camera.url)
        camera.stop()
        changed.start()
        run.unwell = {BAD}
        error = "wrong user or password (401 from 127.0.0.1)"
        wait_until(lambda: error in run.site.camera(BAD)["last_error"], 30, "the password is said to be wrong")
        fails(run, 3)
        assert run.consumer is not None
        said = [event["last_error"] for event in run.consumer.statuses(BAD) if error in event["last_error"]]
        assert len(said) == 1
        changed.stop()
        camera.start()
        heals(run)
    finally:
        changed.stop()
        camera.stop()


@pytest.mark.case("camera-resolution")
def test_resolution_changing(run: FaultRun) -> None:
    others = make_jpegs(20, (640, 360))
    with MjpegCamera(lambda index: (JPEGS if index // 10 % 2 else others)[index % 20], fps=10) as camera:
        begin(run, camera.url)
        run.flows(3)
        heals(run)
    entries = run.redis.client().xrange(f"engine:{run.vhost}:journal:frames:{BAD}")
    assert {(fields[b"w"], fields[b"h"]) for _, fields in entries} == {(b"320", b"240"), (b"640", b"360")}


@pytest.mark.case("camera-codec")
def test_codec_changing(run: FaultRun, tmp_path: Path) -> None:
    first = clip(tmp_path, "mpegts", "libx264")
    second = clip(tmp_path, "mpegts", "mpeg4", "480x270")
    content = first
    with StreamCamera(lambda: content, 2) as camera:
        begin(run, camera.url)
        before = run.site.camera(BAD)["codec"]
        content = second
        run.unwell = {BAD}
        wait_until(lambda: run.site.camera(BAD)["width"] == 480, 60, "the new stream flows", interval=0.1)
        assert run.site.camera(BAD)["codec"] != before
        heals(run)


@pytest.mark.parametrize(
    ("form", "codec", "seconds"),
    [
        pytest.param("h264", "libx264", 3, marks=pytest.mark.case("camera-no-timestamps")),
        # Each round of the file begins at the same timestamp again.
        pytest.param("mpegts", "mpeg2video", 6, marks=pytest.mark.case("camera-timestamps-back")),
    ],
)
def test_timestamps_that_are_no_help(run: FaultRun, tmp_path: Path, form: str, codec: str, seconds: float) -> None:
    content = clip(tmp_path, form, codec)
    with StreamCamera(lambda: content, 2) as camera:
        begin(run, camera.url)
        run.flows(seconds)
        heals(run)


@pytest.mark.case("camera-flapping")
@pytest.mark.usefixtures("neighbour")
def test_two_hundred_flapping(run: FaultRun) -> None:
    names = [f"flap{number:03}" for number in range(200)]
    with MjpegCamera(JPEGS, fps=10, mode="die-mid-frame", after=2) as camera:
        run.unstamped = run.unwell = set(names)
        run.start([*GOOD, *({"id": name, "url": camera.url} for name in names)])
        wait_until(lambda: len(camera.connections) > 500, 60, "they flap")
        run.flows(1)
        camera.mode = "normal"
        camera.fps = 1
        run.unwell = set()
        run.ends(innocent=CAMERAS)


def payloads(run: FaultRun) -> list[bytes]:
    """What is stored of the bad camera."""
    client = run.redis.client()
    names = list(client.scan_iter(match=f"{run.vhost}:frames:{BAD}:*", count=5000))
    return [data for data in client.mget(names) if data] if names else []
