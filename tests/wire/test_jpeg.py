from __future__ import annotations

import contextlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire import jpeg
from tests.examples import examples
from tests.wire.pictures import decode, encode, huffman_tables, join, pixels, segments

QUALITY, PROGRESSIVE, OPTIMIZE, RESTART = (
    cv2.IMWRITE_JPEG_QUALITY,
    cv2.IMWRITE_JPEG_PROGRESSIVE,
    cv2.IMWRITE_JPEG_OPTIMIZE,
    cv2.IMWRITE_JPEG_RST_INTERVAL,
)
KINDS = {
    "baseline": (),
    "best": (QUALITY, 100),
    "worst": (QUALITY, 1),
    "progressive": (PROGRESSIVE, 1),
    "optimized": (OPTIMIZE, 1),
    "restarts": (RESTART, 2),
    "full chroma": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
}
SMALL = encode(24, 16, QUALITY, 30)


def with_thumbnail(data: bytes, thumbnail: bytes) -> bytes:
    """A picture that carries another whole one in its APP1 segment."""
    app1 = b"\xff\xe1" + (len(thumbnail) + 8).to_bytes(2, "big") + b"Exif\0\0" + thumbnail
    return join([(0xE1, app1), *segments(data)])


WITH_THUMBNAIL = with_thumbnail(SMALL, SMALL)


def without_tables(data: bytes) -> bytes:
    return join([(marker, segment) for marker, segment in segments(data) if marker != 0xC4])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gray", [False, True], ids=["colour", "gray"])
@pytest.mark.parametrize("size", [(1, 1), (16, 9), (65, 33), (320, 240), (1280, 720)], ids=str)
def test_what_cv2_writes_is_one_whole_picture(kind, gray, size):
    data = encode(*size, *KINDS[kind], gray=gray)
    info = jpeg.inspect(data)
    assert (info.width, info.height, info.has_huffman_tables, info.end) == (*size, True, len(data))
    assert data[info.scan : info.scan + 2] == b"\xff\xda"
    assert jpeg.inspect(memoryview(data)) == info


def test_restart_intervals_are_really_there():
    assert b"\xff\xd0" in encode(320, 240, *KINDS["restarts"])


@pytest.mark.parametrize("count", [1, 2, 7])
def test_fill_bytes_before_markers_are_passed_over(count):
    filled = join([(marker, b"\xff" * count + segment) for marker, segment in segments(SMALL)])
    info = jpeg.inspect(filled)
    assert (info.width, info.height, info.end) == (24, 16, len(filled))
    assert np.array_equal(decode(filled), decode(SMALL))


@pytest.mark.parametrize("padding", [b"\x00", b"\xff", b"\x00" * 3, b"\x00" * 62, b"\r\n--boundary", b"\xff\xd9"])
def test_padding_behind_the_picture_is_cut_off(padding):
    data = SMALL + padding
    info = jpeg.inspect(data)
    assert info.end == len(SMALL)
    assert b"".join(jpeg.standalone(memoryview(data), info)) == SMALL


def test_more_behind_the_picture_than_padding_is_refused():
    with pytest.raises(WireError, match="cut short"):
        jpeg.inspect(SMALL + b"\x00" * 63)


WITH_END_IN_COMMENT = join([*segments(SMALL)[:-1], (0xFE, jpeg.comment_segment(jpeg.EOI)), segments(SMALL)[-1]])


@pytest.mark.parametrize(
    "data",
    [SMALL, WITH_THUMBNAIL, WITH_END_IN_COMMENT, encode(24, 16, PROGRESSIVE, 1)],
    ids=["plain", "thumbnail", "end in a comment", "progressive"],
)
def test_every_truncation_is_refused(data):
    jpeg.inspect(data)
    for size in range(len(data)):
        with pytest.raises(WireError):
            jpeg.inspect(data[:size])


def test_a_thumbnail_is_not_taken_for_the_picture():
    info = jpeg.inspect(with_thumbnail(SMALL, encode(8, 8)))
    assert (info.width, info.height) == (24, 16)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "no JPEG: 0 bytes"),
        (b"\xff\xd8", "no JPEG: 2 bytes"),
        (b"\x89PNG\r\n\x1a\n", "no JPEG: 8 bytes that begin with '89504e47'"),
        (SMALL[:-2], f"{len(SMALL) - 2} bytes is cut short"),
        (b"\xff\xd8\xff\xd9", "damaged headers at offset 2"),
        (SMALL[:2] + b"\x00" + SMALL[3:], "damaged headers at offset 2"),
        (join([part for part in segments(SMALL) if part[0] != 0xC0]), "damaged headers"),
    ],
)
def test_what_is_no_picture_is_refused_and_the_part_named(data, part):
    with pytest.raises(WireError, match=part):
        jpeg.inspect(data)


def test_a_picture_that_says_its_size_twice_is_refused():
    """No decoder takes it, and which size it would have had nobody can tell."""
    parts = segments(SMALL)
    header = next(part for part in parts if part[0] == 0xC0)
    with pytest.raises(WireError, match="a second frame header"):
        jpeg.inspect(join([header, *parts]))


def test_a_picture_without_pixels_is_refused():
    parts = [(m, s[:5] + b"\x00\x00" + s[7:] if m == 0xC0 else s) for m, s in segments(SMALL)]
    with pytest.raises(WireError, match="damaged"):
        jpeg.inspect(join(parts))


def everything(data: bytes) -> jpeg.JpegInfo:
    """All that is done to a camera's bytes."""
    info = jpeg.inspect(data)
    jpeg.comments(data)
    assert 2 <= info.scan < info.end <= len(data)
    assert info.width > 0
    assert info.height > 0
    assert data[info.end - 2 : info.end] == jpeg.EOI
    alone = b"".join(jpeg.standalone(memoryview(data), info))
    assert jpeg.inspect(alone).has_huffman_tables
    return info


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_of_random_bytes_only_a_wire_error_comes_out(noise, begun, ended):
    with contextlib.suppress(WireError):
        everything(jpeg.SOI * begun + noise + jpeg.EOI * ended)


@settings(max_examples=examples(500), deadline=None)
@given(
    st.sampled_from((SMALL, WITH_THUMBNAIL, without_tables(SMALL))),
    st.lists(st.tuples(st.integers(0, 800), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4),
    st.integers(0, 40),
)
def test_of_damaged_pictures_only_a_wire_error_comes_out(data, changes, cut):
    damaged = bytearray(data)
    for at, value in changes:
        damaged[at % len(data) : at % len(data) + len(value)] = value
    with contextlib.suppress(WireError):
        everything(bytes(damaged[: len(damaged) - cut]))


@pytest.mark.parametrize("kind", ["baseline", "best", "restarts", "full chroma"])
@pytest.mark.parametrize("gray", [False, True], ids=["colour", "gray"])
def test_a_picture_without_its_huffman_tables_is_made_to_stand_alone(kind, gray):
    data = encode(320, 240, *KINDS[kind], gray=gray)
    bare = without_tables(data)
    info = jpeg.inspect(bare)
    assert not info.has_huffman_tables
    alone = b"".join(jpeg.standalone(memoryview(bare), info))
    assert jpeg.inspect(alone).has_huffman_tables
    assert huffman_tables(data).items() <= huffman_tables(alone).items()
    assert np.array_equal(decode(alone), decode(data))


def test_the_standard_tables_are_those_that_cv2_writes():
    assert huffman_tables(encode(16, 16)) == huffman_tables(
        join([(0xC4, jpeg.STANDARD_HUFFMAN_TABLES), (0xDA, b"\xff\xda")])
    )


def test_a_picture_with_its_tables_is_passed_on_as_it_lies():
    view = memoryview(SMALL)
    (part,) = jpeg.standalone(view, jpeg.inspect(view))
    assert part.obj is view.obj
    assert part == SMALL


def test_optimized_tables_are_kept():
    data = encode(64, 64, OPTIMIZE, 1)
    assert b"".join(jpeg.standalone(memoryview(data), jpeg.inspect(data))) == data


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=4))
def test_comments_are_found_in_order(texts):
    data = jpeg.SOI + b"".join(map(jpeg.comment_segment, texts)) + SMALL[2:]
    assert jpeg.comments(data) == texts
    assert np.array_equal(decode(data), decode(SMALL))


def test_a_comment_behind_other_segments_and_fill_bytes_is_found():
    parts = segments(SMALL)
    data = join([*parts[:-1], (0xFE, b"\xff\xff" + jpeg.comment_segment(b"late")), parts[-1]])
    assert jpeg.comments(data) == [b"late"]


def test_the_picture_of_a_test_is_no_flat_colour():
    assert pixels(64, 64).std() > 10
