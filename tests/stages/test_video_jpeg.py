"""JPEGs of decoded pictures look like what cv2 makes of the same video, whatever its pixels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engine.config import Camera, Url
from engine.errors import WireError
from engine.sources.jpeg_encoder import JpegEncoder, Planes
from engine.sources.source import SourceEnded
from engine.sources.video import VideoSource
from engine.wire import jpeg
from tests.stages.video_clips import clip, directory, ffmpeg

#: Mean difference of a colour, in levels of 256, to cv2's picture: JPEG's own loss, and rounding.
LEVELS_MAX = 2.0


def pictures(path: Path, count: int = 3, **camera: object) -> list[tuple[np.ndarray, bytes]]:
    """The first pictures of a clip as the engine stores them: decoded, and the JPEGs."""
    options = {"encoding": "jpeg", "quality": 98, **camera}
    source = VideoSource(Camera(id="cam1", url=Url(str(path)), **options))
    source._pacer = None
    found: list[tuple[np.ndarray, bytes]] = []
    stamp = 10**18
    try:
        while len(found) < count:
            if not source.grab():
                continue
            stamp += 1
            for each in source.pictures(stamp):
                frame = source.retrieve(each, 1)
                data = b"".join(frame.parts)
                info = jpeg.inspect(data)
                assert (info.width, info.height) == (frame.width, frame.height)
                found.append((cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), data))
    except SourceEnded:
        pass
    finally:
        source.close()
    return found[:count]


def expected(path: Path, count: int = 3) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    found = [capture.read()[1] for _ in range(count)]
    capture.release()
    return found


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean(axis=(0, 1)).max())


def filmed(name: str, *options: str, size: str = "320x240") -> Path:
    """Three pictures of colours that change slowly, so that halved planes of colour lose little."""
    path = directory() / f"film-{name}"
    if not path.exists():
        colours = "nb_colors=4:c0=0x905030:c1=0x2060a0:c2=0xc0c060:c3=0x303030"
        source = f"gradients=size={size}:rate=10:seed=3:speed=0.01:{colours}"
        ffmpeg("-f", "lavfi", "-i", source, "-frames:v", "4", *options, path)
    return path


H264 = ("-c:v", "libx264", "-crf", "5", "-bf", "0")


@pytest.mark.parametrize(
    "pixels", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuvj444p", "yuv420p10le", "yuv422p10le"]
)
def test_colours_are_right_whatever_the_format(pixels):
    path = filmed(f"{pixels}.mp4", *H264, "-pix_fmt", pixels)
    for (picture, _), wanted in zip(pictures(path), expected(path), strict=True):
        assert difference(picture, wanted) < LEVELS_MAX


def test_grey_pictures_are_grey():
    path = filmed("grey.mp4", *H264, "-pix_fmt", "gray")
    for (picture, _), wanted in zip(pictures(path), expected(path), strict=True):
        assert difference(picture, wanted) < LEVELS_MAX


@pytest.mark.parametrize("pixels", ["yuvj420p", "yuvj422p", "yuvj444p"])
def test_jpegs_that_are_made_anew_keep_their_colours(pixels):
    path = filmed(f"{pixels}.avi", "-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", pixels)
    for (picture, _), wanted in zip(pictures(path), expected(path), strict=True):
        assert difference(picture, wanted) < LEVELS_MAX


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video", "libvpx", "libx265"])
def test_other_codecs_are_decoded_too(codec):
    options = ("-b:v", "4M") if codec == "libvpx" else ("-q:v", "2")
    if codec == "libx265":
        options = ("-x265-params", "log-level=error:crf=8")
    path = filmed(f"{codec}.mkv", "-c:v", codec, *options, "-pix_fmt", "yuv420p")
    for (picture, _), wanted in zip(pictures(path), expected(path), strict=True):
        assert difference(picture, wanted) < LEVELS_MAX


@pytest.mark.parametrize("size", ["322x242", "162x122"])
def test_sides_that_do_not_fill_their_blocks(size):
    path = filmed(f"{size}.mp4", *H264, "-pix_fmt", "yuv420p", size=size)
    for (picture, _), wanted in zip(pictures(path), expected(path), strict=True):
        assert difference(picture, wanted) < LEVELS_MAX


def test_odd_sides():
    path = filmed("odd.mp4", *H264, "-pix_fmt", "yuv444p", size="321x241")
    for (picture, _), wanted in zip(pictures(path), expected(path), strict=True):
        assert difference(picture, wanted) < LEVELS_MAX


@pytest.mark.parametrize("pixels", ["yuv420p", "yuvj420p", "yuv444p"])
@pytest.mark.parametrize("size", [(160, 120), (161, 91), (640, 480), (320, 120)])
def test_pictures_are_resized(pixels, size):
    path = filmed(f"{pixels}.mp4", *H264, "-pix_fmt", pixels)
    for (picture, _), whole in zip(pictures(path, width=size[0], height=size[1]), expected(path), strict=True):
        assert difference(picture, cv2.resize(whole, size, interpolation=cv2.INTER_AREA)) < LEVELS_MAX


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_file_that_says_how_to_turn_it_is_turned(turn):
    plain = filmed("plain.mp4", *H264, "-pix_fmt", "yuv420p")
    path = directory() / f"turned{turn}.mp4"
    ffmpeg("-i", plain, "-c", "copy", "-metadata:s:v", f"rotate={turn}", path)
    for (picture, _), wanted in zip(pictures(path), expected(path), strict=True):
        assert picture.shape == ((240, 320, 3) if turn == 180 else (320, 240, 3))
        assert difference(picture, wanted) < LEVELS_MAX


def test_the_darkest_and_the_brightest_values_are_kept():
    """Of limited range: 16 is black, 235 is white, and what lies beyond is cut off."""
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey = np.full((8, 8), 128, np.uint8)
    frame = JpegEncoder(100).encode(Planes([values, grey, grey], full=False))
    shown = cv2.imdecode(np.frombuffer(frame.parts[0], np.uint8), cv2.IMREAD_GRAYSCALE)
    wanted = np.clip((values.astype(float) - 16) * 255 / 219, 0, 255)
    assert np.abs(shown - wanted).max() <= 2
    full = JpegEncoder(100).encode(Planes([values, grey, grey], full=True))
    shown = cv2.imdecode(np.frombuffer(full.parts[0], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.abs(shown.astype(int) - values).max() <= 2


def test_planes_that_do_not_fit_together_are_an_error():
    plane = np.zeros((8, 8), np.uint8)
    with pytest.raises(WireError):
        JpegEncoder(90).encode(Planes([plane, np.zeros((0, 4), np.uint8), plane], full=True))
    with pytest.raises(WireError):
        JpegEncoder(90, (70_000, 8)).encode(Planes([plane, plane, plane], full=True))


def test_the_quality_is_the_camera_s():
    path = clip("quality.mp4")
    sizes = [len(pictures(path, 1, quality=quality)[0][1]) for quality in (30, 85, 98)]
    assert sizes == sorted(sizes)
    assert sizes[2] > 2 * sizes[0]


def test_nothing_that_capture_loads_or_does_starts_a_thread():
    """The supervisor forks after it has loaded the libraries, and one core serves many cameras."""
    script = f"""
import os
from engine.config import Camera, Url
from engine.sources.choose import open_source
def threads(): return len(os.listdir("/proc/self/task"))
loaded = threads()
source = open_source(Camera(id="cam1", url=Url({str(clip("quality.mp4"))!r}), width=64, height=48))
while not source.grab(): pass
(stamp,) = source.pictures(10**18)
source.retrieve(stamp, 1)
print(loaded, threads())
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["1", "1"]


def test_the_decoder_has_one_thread():
    source = VideoSource(Camera(id="cam1", url=Url(str(clip("quality.mp4")))))
    try:
        assert source.grab()
        source.pictures(10**18)
        context = source._stream.context
        assert context.is_open
        assert context.thread_count == 1
    finally:
        source.close()
    assert isinstance(context, av.VideoCodecContext)
