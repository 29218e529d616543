"""Lost reference pictures of H.264, found by their numbers: where one is missing, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire.access_unit import AccessUnits
from engine.wire.frame_numbers import FrameNumbers, frame_num
from engine.wire.parameter_sets import h264_format
from tests.examples import examples
from tests.nal_bits import nal_unit, ue
from tests.stages import field_pictures
from tests.stages.video_clips import clip, nal_type, nal_units, packets
from tests.system.clips import car_clip, person_clip

#: Bytes at the beginning of a slice that are read.
HEAD_BYTES = 32


class Packet(NamedTuple):
    data: bytes
    flagged: bool


def read(path: Path) -> list[Packet]:
    with av.open(str(path)) as container:
        flags = [packet.is_keyframe for packet in container.demux(container.streams.video[0]) if packet.size]
    return [Packet(data, flagged) for data, flagged in zip(packets(path), flags, strict=True)]


def alarms(sent: list[Packet]) -> list[int]:
    """The numbers of the units that are not sound."""
    units = AccessUnits("h264")
    made = [units.read(memoryview(packet.data), flagged=packet.flagged) for packet in sent]
    return [number for number, unit in enumerate(made) if not unit.sound]


def slice_of(number: int, bits: int, *, header: int = 0x61, kind: int = 5, pps: int = 0, rest: str = "") -> bytes:
    return nal_unit(bytes([header]), ue(0) + ue(kind) + ue(pps) + f"{number:0{bits}b}" + rest)


@settings(max_examples=examples(500), deadline=None)
@given(st.data(), st.integers(4, 16), st.integers(0, 9), st.integers(0, 255), st.text("01", max_size=60))
def test_the_number_is_read_wherever_it_is(data, bits, kind, pps, rest):
    number = data.draw(st.integers(0, 2**bits - 1) | st.sampled_from([0, 1, 2**bits - 1]))
    unit = slice_of(number, bits, kind=kind, pps=pps, rest=rest)
    assert frame_num(unit[:HEAD_BYTES], bits) == number


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(min_size=1, max_size=HEAD_BYTES), st.integers(4, 16))
def test_any_bytes_have_a_number_or_none(head, bits):
    assert -1 <= frame_num(head, bits) < 2**bits


# Streams of x264 with all that its numbers depend on, and of real cameras.

X264 = {
    "plain": "bframes=0",
    "baseline, one reference": "bframes=0:ref=1:cabac=0",
    "many references": "bframes=2:ref=8",
    "b-pyramid none": "bframes=3:b-adapt=0:b-pyramid=none",
    "b-pyramid strict": "bframes=3:b-adapt=0:b-pyramid=strict",
    "b-pyramid normal": "bframes=5:b-adapt=0:b-pyramid=normal:ref=5",
    "weighted": "bframes=2:weightp=2:weightb=1",
    "open GOP": "bframes=3:b-adapt=0:open-gop=1:b-pyramid=normal",
    "interlaced": "tff=1:bframes=2:b-adapt=0",
    "fake interlaced": "fake-interlaced=1:bframes=2",
    "slices": "slices=4:bframes=2:aud=1",
    "nal-hrd": "nal-hrd=vbr:vbv-maxrate=800:vbv-bufsize=800:bframes=2",
    "scene cuts": "scenecut=60:bframes=2",
    "lossless": "qp=0:bframes=2",
}
#: GOPs that are longer than the numbers have values: x264 takes 16 of them for one reference.
LONG = {"long": (40, "bframes=0:ref=1"), "long with B pictures": (60, "bframes=3:b-adapt=0:b-pyramid=normal")}


def x264(name: str) -> Path:
    gop, options = LONG.get(name) or (10, X264[name])
    extra = ("-flags", "+ildct+ilme") if name == "interlaced" else ()
    return clip("numbers.mp4", seconds=gop * 4 / 10, gop=gop, options=(*extra, "-x264-params", options))


def numbered(packet: Packet, bits: int) -> tuple[int, bool]:
    """The number of a picture, read in another way than the engine does, and whether it is a reference."""
    unit = next(unit for unit in nal_units(packet.data) if nal_type(unit) in (1, 5))
    text = "".join(f"{byte:08b}" for byte in unit[1:40].replace(b"\0\0\3", b"\0\0"))
    for _ in range(3):
        zeros = text.index("1")
        text = text[2 * zeros + 1 :]
    return int(text[:bits], 2), bool(unit[0] >> 5 & 3)


def number_bits(sent: list[Packet]) -> int:
    return h264_format(next(unit for unit in nal_units(sent[0].data) if nal_type(unit) == 7)).frame_num_bits


@pytest.mark.parametrize("name", [*X264, *LONG])
def test_a_lost_reference_picture_is_found_at_the_next_unit_and_nothing_else_is(name):
    sent = read(x264(name))
    assert alarms(sent) == []
    bits = number_bits(sent)
    assert bits >= 4
    second = [number for number, packet in enumerate(sent) if packet.flagged][1]
    found = 0
    for lost in range(second + 1, len(sent) - 1):
        rest = sent[:lost] + sent[lost + 1 :]
        number, reference = numbered(sent[lost], bits)
        if sent[lost].flagged:
            continue
        following, _ = numbered(sent[lost + 1], bits)
        # What is lost at the end of a GOP harms nothing.
        visible = reference and not sent[lost + 1].flagged and following != number
        assert alarms(rest) == ([lost] if visible else [])
        found += visible
    assert found >= 5


@pytest.mark.parametrize("name", LONG)
def test_long_gops_have_numbers_that_begin_again(name):
    sent = read(x264(name))
    bits = number_bits(sent)
    numbers = [numbered(packet, bits)[0] for packet in sent[: LONG[name][0]]]
    assert max(numbers) == 2**bits - 1 or bits > 5
    assert name != "long" or numbers.count(0) > 1


def test_gradual_refresh_raises_no_alarm():
    sent = read(clip("refresh.ts", seconds=6, options=("-bf", "0", "-x264-params", "intra-refresh=1:keyint=10")))
    assert sum(packet.flagged for packet in sent) > 2
    assert alarms(sent) == []


def test_fields_raise_no_alarm_and_a_lost_pair_is_found():
    pairs = list(field_pictures.pictures(16, 8))
    sent = [Packet(b"".join(b"\0\0\0\1" + unit for unit in field), False) for pair in pairs for field in pair]
    assert alarms(sent) == []
    assert alarms(sent[:22] + sent[24:]) == [22]


@pytest.mark.parametrize("path", [car_clip, person_clip], ids=["cars", "people"])
def test_clips_of_real_cameras_raise_no_alarm_and_their_losses_are_found(path):
    sent = read(path())
    assert alarms(sent) == []
    bits = number_bits(sent)
    keys = [number for number, packet in enumerate(sent) if packet.flagged]
    found = 0
    for key in keys[1:]:
        for lost in range(key + 2, key + 6):
            if lost + 1 >= len(sent) or sent[lost].flagged or sent[lost + 1].flagged:
                continue
            if numbered(sent[lost], bits)[1]:
                # What came before is enough to believe the camera.
                assert alarms(sent[:lost] + sent[lost + 1 : lost + 4]) == [lost]
                found += 1
        if found > 6:
            break
    assert found


# Cameras whose numbers make no sense.

BITS, GOP = 8, 6


def gop(*missing: int, header: int = 0x61) -> list[tuple[int, bool, int]]:
    """A GOP as numbers, key frame or not, and headers; without some."""
    return [(n, n == 0, 0x65 if n == 0 else header) for n in range(GOP) if n not in missing]


def found(*gops: list[tuple[int, bool, int]]) -> list[int]:
    """The GOPs in which a loss was found."""
    numbers, made = FrameNumbers(), []
    for place, pictures in enumerate(gops):
        for number, keyframe, header in pictures:
            head = slice_of(number, BITS, header=header)[:HEAD_BYTES]
            if numbers.follows_loss(head, BITS, keyframe=keyframe):
                made.append(place)
    return made


def test_a_camera_is_believed_after_a_gop_that_held():
    assert found(gop(3), gop(3), gop(), gop(3)) == [3]


def test_a_camera_whose_numbers_always_have_gaps_loses_nothing():
    assert found(*[gop(2, 4)] * 20) == []


def test_a_camera_whose_numbers_stand_still_is_never_believed():
    still = [(0, True, 0x65), *[(0, False, 0x61)] * 5]
    assert found(still, still, gop(3)) == []


def test_after_gaps_in_a_row_a_camera_is_believed_no_more_until_as_many_gops_held():
    assert found(gop(), *[gop(3)] * 10) == [1, 2, 3, 4]
    assert found(gop(), *[gop(3)] * 4, *[gop()] * 3, gop(3), *[gop()] * 3, gop(3)) == [1, 2, 3, 4]
    assert found(gop(), *[gop(3)] * 4, *[gop()] * 4, gop(3)) == [1, 2, 3, 4, 9]


def test_numbers_that_begin_again_raise_no_alarm():
    """After memory management control operation 5."""
    again = [*gop(), *((number, False, 0x61) for number in range(1, GOP))]
    assert found(gop(), again, again) == []


def test_a_unit_that_cannot_be_read_ends_the_comparison():
    sent = read(x264("plain"))
    damaged = Packet(b"\0\0\0\1\x61\x40\x80\x40", False)
    assert alarms([*sent[:13], damaged, *sent[15:]]) == [13]


def test_gaps_may_be_allowed():
    sets = b"".join(b"\0\0\0\1" + unit for unit in nal_units(read(x264("plain"))[0].data) if nal_type(unit) in (7, 8))
    sps = nal_units(sets)[0]
    allowed = next(
        changed
        for place in range(4, len(sps))
        for bit in range(8)
        if (changed := with_bit(sps, place, bit)) and says_gaps_are_allowed(changed, sps)
    )
    sent = [Packet(packet.data.replace(sps, allowed), packet.flagged) for packet in read(x264("plain"))]
    assert alarms(sent[:15] + sent[16:]) == []


def with_bit(unit: bytes, place: int, bit: int) -> bytes:
    return unit[:place] + bytes([unit[place] ^ 1 << bit]) + unit[place + 1 :]


def says_gaps_are_allowed(changed: bytes, sps: bytes) -> bool:
    try:
        return h264_format(changed) == h264_format(sps)._replace(frame_num_bits=0)
    except WireError:
        return False
