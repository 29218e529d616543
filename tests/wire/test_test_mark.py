from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire import jpeg
from engine.wire.test_mark import FrameMark, build_mark, find_mark
from tests.examples import examples
from tests.wire.names import names, sequences, unix_nanos
from tests.wire.pictures import encode

PICTURE = encode(32, 16)


def stamped(text: bytes) -> bytes:
    return jpeg.SOI + jpeg.comment_segment(text) + PICTURE[2:]


def test_a_stamp_is_written_as_documented():
    text = build_mark(FrameMark("cam4", 42, 1731024000123456789))
    assert text == b"edge-video frame=00042 nano=1731024000123456789 camera=cam4"
    assert find_mark(stamped(text)) == FrameMark("cam4", 42, 1731024000123456789)


@settings(max_examples=examples(200), deadline=None)
@given(st.builds(FrameMark, names, sequences, unix_nanos))
def test_every_stamp_is_found_in_its_picture(stamp):
    assert find_mark(stamped(build_mark(stamp))) == stamp


@settings(max_examples=examples(100), deadline=None)
@given(names, sequences, sequences, unix_nanos, unix_nanos)
def test_all_stamps_of_a_camera_have_the_same_length(camera, one, other, then, now):
    assert len(build_mark(FrameMark(camera, one, then))) == len(build_mark(FrameMark(camera, other, now)))


def test_a_stamp_is_found_among_other_comments():
    stamp = FrameMark("cam4", 7, 10**18)
    other = jpeg.comment_segment(b"CREATOR: someone") + jpeg.comment_segment(build_mark(stamp))
    assert find_mark(jpeg.SOI + other + PICTURE[2:]) == stamp


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"edge-video frame=42 nano=1731024000123456789 camera=cam4",
        b"edge-video frame=00042 nano=173102400012345678 camera=cam4",
        b"edge-video frame=00042 nano=1731024000123456789 camera=",
        b"edge-video frame=00042 nano=1731024000123456789 camera=a%3ab",
        b" edge-video frame=00042 nano=1731024000123456789 camera=cam4",
    ],
)
def test_a_comment_that_is_no_stamp_is_not_taken_for_one(text):
    with pytest.raises(WireError):
        find_mark(stamped(text))


def test_a_picture_without_a_stamp_is_refused():
    with pytest.raises(WireError, match="no test mark"):
        find_mark(PICTURE)


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=60))
@example(b"\xff")
def test_whatever_the_camera_s_name_is_only_a_wire_error_comes_out(name):
    picture = stamped(b"edge-video frame=00042 nano=1731024000123456789 camera=" + name)
    try:
        stamp = find_mark(picture)
    except WireError:
        return
    assert build_mark(stamp).endswith(b"camera=" + name)
