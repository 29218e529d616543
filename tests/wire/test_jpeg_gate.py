"""The gate of ``stages/source.py`` that a camera's JPEGs pass: what it remembers must not change what it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.sources.jpeg_gate import JpegGate
from engine.wire import jpeg
from tests.examples import examples
from tests.wire.pictures import decode, encode
from tests.wire.test_jpeg import SMALL, WITH_THUMBNAIL, without_tables

SCAN = jpeg.inspect(SMALL).scan
OTHER = encode(24, 16, seed=5)
LARGER = encode(40, 32, seed=6)
POOL = {
    "small": SMALL,
    "other": OTHER,
    "larger": LARGER,
    "thumbnail": WITH_THUMBNAIL,
    "small without tables": without_tables(SMALL),
    "larger without tables": without_tables(LARGER),
    "padding": SMALL + b"\x00" * 5,
    "second end": SMALL + jpeg.EOI,
    "much behind": SMALL + b"\x00" * 80,
    "no end": SMALL[:-2],
    "half an end": SMALL[:-1],
    "cut in the scan": SMALL[: SCAN + 20],
    "no scan": SMALL[:SCAN] + jpeg.EOI,
    "headers only": SMALL[:SCAN],
    "cut in the headers": SMALL[: SCAN - 1] + jpeg.EOI,
    "no headers": SMALL[SCAN:],
    "nothing": b"",
    "noise": b"\x00" * 700,
}


def outcome(gate: JpegGate, data: bytes) -> tuple[bytes, int, int] | None:
    """What comes of a camera's bytes: a picture and its size, or nothing."""
    try:
        frame = gate.check(memoryview(data))
    except WireError:
        return None
    return b"".join(frame.parts), frame.width, frame.height


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.sampled_from(sorted(POOL)), max_size=8))
def test_every_frame_is_judged_as_if_it_were_the_first(stream):
    gate = JpegGate()
    for name in stream:
        remembered, fresh = outcome(gate, POOL[name]), outcome(JpegGate(), POOL[name])
        assert remembered == fresh


@pytest.mark.parametrize("data", [SMALL, LARGER, WITH_THUMBNAIL, without_tables(SMALL), SMALL + jpeg.EOI])
def test_what_passes_stands_alone(data):
    gate = JpegGate()
    for _ in range(2):
        picture, width, height = outcome(gate, data)
        assert decode(picture).shape == (height, width, 3)
        assert picture.endswith(jpeg.EOI)
        assert jpeg.inspect(picture).has_huffman_tables


def test_a_picture_with_the_headers_of_the_last_one_is_its_own():
    gate = JpegGate()
    outcome(gate, SMALL)
    picture, _, _ = outcome(gate, encode(24, 16, 1, 30, seed=9))
    assert np.array_equal(decode(picture), decode(encode(24, 16, 1, 30, seed=9)))


@pytest.mark.parametrize("size", range(len(SMALL)))
def test_no_part_of_a_picture_passes_behind_a_whole_one(size):
    gate = JpegGate()
    outcome(gate, SMALL)
    assert outcome(gate, SMALL[:size]) is None


def test_what_is_whole_is_not_copied():
    frame = JpegGate().check(memoryview(SMALL))
    assert [part.obj is SMALL for part in frame.parts] == [True]
