"""Access units in Redis are known again by their bytes alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.wire.stored_unit import UnitShape, describe_unit
from tests.examples import examples
from tests.servers.clips import CARS, PEOPLE, Codec, make_clip, read_clip


@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("frames", [("-bf", "0"), ("-bf", "2")], ids=["no B-frames", "B-frames"])
def test_each_unit_of_a_clip_is_what_it_is(tmp_path: Path, codec: Codec, frames: tuple[str, ...]):
    stream = read_clip(make_clip(tmp_path / "a.mp4", codec=codec, seconds=3, options=frames))
    for unit in stream.units:
        size = (320, 240) if unit.keyframe else (0, 0)
        assert describe_unit(unit.annexb) == UnitShape(codec, unit.keyframe, *size)
        # The beginning is enough.
        assert describe_unit(unit.annexb[:1024]) == describe_unit(unit.annexb)


@pytest.mark.parametrize("clip", [CARS, PEOPLE])
def test_each_unit_of_a_real_clip_is_what_it_is(clip: Path, tmp_path: Path):
    """Of a made one where the clips of real cameras are not there."""
    stream = read_clip(clip if clip.exists() else make_clip(tmp_path / clip.name), units=200)
    for unit in stream.units:
        shape = describe_unit(unit.annexb)
        assert shape is not None
        assert (shape.encoding, shape.keyframe) == ("h264", unit.keyframe)
        assert bool(shape.width and shape.height) == unit.keyframe


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"JPEG?",
        b"\xff\xd8\xff",
        b"\0\0\0\1",
        b"\0\0\0\1\x09\xf0",
        b"\0\0\0\1\x67\x42",
        b"\0\0\0\1\xff\xff\xff",
        b"\0" * 50,
    ],
)
def test_what_is_no_access_unit_is_none(data: bytes):
    assert describe_unit(data) is None


def test_a_key_frame_without_its_parameter_sets_decodes_for_nobody(tmp_path: Path):
    stream = read_clip(make_clip(tmp_path / "a.mp4", seconds=1))
    bare = b"".join(b"\0\0\0\1" + nal for nal in stream.units[0].nals if nal not in stream.parameter_sets)
    assert describe_unit(bare) == UnitShape("h264", False, 0, 0)


@settings(max_examples=examples(500), deadline=None)
@given(
    st.lists(
        st.sampled_from([b"\0\0\1", b"\x67", b"\x41\x80", b"\x26\x01\x80", b"\x40\x01", b"\xff"])
        | st.binary(max_size=5)
    )
)
@example([b"\0\0\1", b"\x65\x80"])
def test_whatever_stands_there_it_is_a_unit_or_none(parts: list[bytes]):
    shape = describe_unit(b"".join(parts))
    assert shape is None or shape.encoding in ("h264", "h265")
