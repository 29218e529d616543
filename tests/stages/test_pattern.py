from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Camera
from engine.errors import CameraUnavailable
from engine.sources import pattern
from engine.sources.pattern import PatternSource
from engine.sources.source import SourceEnded
from engine.wire import jpeg
from engine.wire.test_mark import FrameMark, find_mark
from tests.wire.names import HOSTILE

NANO = 1_731_024_000_123_456_789


def source(query: str, already: int = 0, camera: str = "cam4") -> PatternSource:
    return PatternSource(Camera(id=camera, url=f"test://?{query}"), already)


def frame_bytes(made: PatternSource, unix_nano: int = NANO, sequence: int = 7) -> bytes:
    return b"".join(made.retrieve(unix_nano, sequence).parts)


def decoded(data: bytes):
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture


@pytest.mark.parametrize(
    ("width", "height", "kb"),
    [
        *((16, 16, 1), (64, 48, 4), (64, 48, 64), (64, 48, 65), (64, 48, 129), (641, 479, 48), (1280, 720, 60)),
        *((1920, 1080, 245), (64, 64, 1000), (1280, 720, 4096), (64, 64, 8192)),
    ],
)
def test_a_frame_has_exactly_the_asked_size_decodes_and_says_what_it_is(width, height, kb):
    made = source(f"size={width}x{height}&kb={kb}")
    frame = made.retrieve(NANO, 7)
    data = b"".join(frame.parts)
    assert len(data) == kb * 1024
    assert (frame.width, frame.height) == (width, height)
    assert decoded(data).shape == (height, width, 3)
    assert find_mark(data) == FrameMark("cam4", 7, NANO)
    info = jpeg.inspect(data)
    assert (info.width, info.height, info.end) == (width, height, len(data))


@settings(max_examples=60, deadline=None)
@given(st.integers(16, 200), st.integers(16, 200), st.integers(40, 200))
def test_any_size_can_be_asked_for(width, height, kb):
    assert len(frame_bytes(source(f"size={width}x{height}&kb={kb}"))) == kb * 1024


@pytest.mark.parametrize("size", [*range(12), 65_535, 65_536, 65_537, 65_538, 65_539, 65_540, 65_541, 131_077])
def test_a_filler_of_any_size_leaves_the_picture_whole(size):
    filler = pattern._filler(size)
    assert len(filler) == size
    plain = frame_bytes(source("size=32x32&kb=1"))
    data = plain[:2] + filler + plain[2:]
    assert jpeg.inspect(data).end == len(data)
    assert np.array_equal(decoded(data), decoded(plain))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 99_999), st.integers(10**18, 10**19 - 1))
def test_all_frames_of_a_pattern_have_the_same_size(sequence, unix_nano):
    data = frame_bytes(source("size=32x32&kb=4"), unix_nano, sequence)
    assert len(data) == 4096
    assert find_mark(data) == FrameMark("cam4", sequence, unix_nano)


@pytest.mark.parametrize("camera", [name for name in HOSTILE if len(name) < 200])
def test_a_frame_carries_its_camera_s_name_whatever_it_is(camera):
    data = frame_bytes(source("size=32x32&kb=4", camera=camera))
    assert len(data) == 4096
    assert find_mark(data).camera == camera


def test_nothing_is_encoded_or_copied_for_a_frame():
    made = source("size=64x64&kb=20")
    one, other = made.retrieve(NANO, 1), made.retrieve(NANO + 1, 2)
    assert one.parts[1] is other.parts[1]
    assert len(one.parts[0]) < 200


def test_two_cameras_do_not_look_the_same():
    one, other = (decoded(frame_bytes(source("size=64x64&kb=20", camera=camera))) for camera in ("cam1", "cam2"))
    assert not np.array_equal(one, other)


def test_a_picture_that_cannot_be_so_small_says_how_large_it_must_be():
    with pytest.raises(CameraUnavailable, match="1280x720 has 2 kB or less; raise kb to") as caught:
        source("size=1280x720&kb=2")
    enough = int(re.search("raise kb to ([0-9]+)", str(caught.value))[1])
    assert len(frame_bytes(source(f"size=1280x720&kb={enough}"))) == enough * 1024


def grabbed(made: PatternSource, at_most: int = 100) -> int:
    """Frames until the source ends, or ``at_most``."""
    count = 0
    try:
        while count < at_most:
            count += made.grab()
    except SourceEnded:
        pass
    return count


@pytest.mark.parametrize(("frames", "already", "left"), [(5, 0, 5), (5, 3, 2), (5, 5, 0), (5, 6, 0), (5, 7, 0)])
def test_a_pattern_ends_with_its_last_frame(frames, already, left):
    made = source(f"size=32x32&kb=4&fps=1000&frames={frames}", already)
    assert grabbed(made) == left
    with pytest.raises(SourceEnded, match=f"all {frames} frames"):
        made.grab()


@pytest.mark.parametrize("already", [0, 1, 10**6])
def test_a_pattern_without_an_end_has_none(already):
    assert grabbed(source("size=32x32&kb=4&fps=1000", already)) == 100
