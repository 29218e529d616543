from __future__ import annotations

import cv2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire import jpeg
from tests.examples import examples
from tests.wire.pictures import encode, join, segments

PICTURES = {
    "baseline": encode(320, 240),
    "gray": encode(65, 33, gray=True),
    "progressive": encode(64, 48, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "one pixel": encode(1, 1),
    "comments": jpeg.SOI + jpeg.comment_segment(b"x" * 60_000) * 3 + encode(24, 16)[2:],
    "a thumbnail": join(
        [
            (0xE1, b"\xff\xe1" + (len(encode(8, 8)) + 8).to_bytes(2, "big") + b"Exif\0\0" + encode(8, 8)),
            *segments(encode(40, 30)),
        ]
    ),
    "fill bytes": jpeg.SOI + b"\xff\xff\xff" + encode(24, 16)[2:],
}
pictures = pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES.keys())


@pytest.mark.parametrize("size", [(1, 1), (16, 9), (65, 33), (1280, 720), (3, 2000)], ids=str)
def test_a_picture_is_as_large_as_it_was_made(size):
    assert jpeg.describe(encode(*size)) == (*size, "jpeg")


@pictures
def test_a_picture_is_described_as_its_inspection_finds_it(data):
    info = jpeg.inspect(data)
    assert jpeg.describe(data) == (info.width, info.height, "jpeg")


@pictures
def test_a_head_tells_all_or_nothing(data):
    info = jpeg.inspect(data)
    whole, nothing = (info.width, info.height, "jpeg"), (0, 0, "jpeg")
    # Comments are long, and alike; what matters are the segments' ends.
    cuts = range(2, info.scan + 20) if info.scan < 5000 else [*range(2, 50), *range(info.scan - 700, info.scan + 20)]
    found = [jpeg.describe(data[:cut]) for cut in cuts]
    assert set(found) == {whole, nothing}
    assert found == sorted(found, key=lambda one: one == whole)


def test_five_bytes_behind_the_frame_header_s_length_are_enough():
    data = PICTURES["baseline"]
    header = data.index(b"\xff\xc0")
    assert jpeg.describe(data[: header + 8]) == (0, 0, "jpeg")
    assert jpeg.describe(data[: header + 9]) == (320, 240, "jpeg")


@pytest.mark.parametrize("head", [b"", b"\xff", b"\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\0" * 100, b"frame"])
def test_what_does_not_begin_like_a_jpeg_is_unknown(head):
    assert jpeg.describe(head) == (0, 0, "unknown")


@pytest.mark.parametrize(
    "head", [b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8junk", b"\xff\xd8\xff\xda\x00\x02", b"\xff\xd8" + b"\xff" * 5000]
)
def test_what_only_begins_like_one_has_no_size(head):
    assert jpeg.describe(head) == (0, 0, "jpeg")


@settings(max_examples=examples(500), deadline=None)
@given(st.binary(max_size=200).map(jpeg.SOI.__add__) | st.binary(max_size=200))
@example(b"\xff\xd8\xff\xc0")
@example(b"\xff\xd8\xff\xc0\x00\x00\x08\x00\x10\x00\x10")
@example(b"\xff\xd8\xff\xe0\x00\x00")
def test_of_garbage_nothing_but_a_description_comes_out(head):
    width, height, encoding = jpeg.describe(head)
    assert 0 <= width <= 65_535
    assert 0 <= height <= 65_535
    assert encoding == ("jpeg" if head.startswith(jpeg.SOI) else "unknown")


@settings(max_examples=examples(300), deadline=None)
@given(
    st.sampled_from(("baseline", "gray", "one pixel", "fill bytes")),
    st.lists(st.tuples(st.integers(2, 800), st.integers(0, 255)), max_size=4),
)
def test_damaged_pictures_are_described_as_inspection_finds_them_where_it_finds_them_whole(name, changes):
    data = bytearray(PICTURES[name])
    for at, value in changes:
        if at < len(data):
            data[at] = value
    described = jpeg.describe(bytes(data))
    try:
        info = jpeg.inspect(bytes(data))
    except WireError:
        return
    frames = sum(marker in jpeg._SOF for marker, _, _ in jpeg._segments(bytes(data)))
    assert described == (info.width, info.height, "jpeg") or frames > 1
