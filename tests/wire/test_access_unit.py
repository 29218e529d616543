"""Access units: packets of real streams in all forms, and NAL units that are damaged."""

from __future__ import annotations

import re
import time
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire import parameter_sets
from engine.wire.access_unit import START_CODE, AccessUnit, AccessUnits
from tests.examples import examples
from tests.stages.video_clips import clip, ffmpeg, joined, nal_type, nal_units, packets, picture_units

LIBRARY = {"h264": "libx264", "h265": "libx265"}
NO_FLV = ("h265", "flv")
SLICE, IDR, SEI, SPS, PPS, AUD = 1, 5, 6, 7, 8, 9


def read_clip(path: Path, encoding: str) -> tuple[list[AccessUnit], list[bool]]:
    """The access units of a clip, their bytes in one part, and FFmpeg's flags."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        units = AccessUnits(encoding, stream.codec_context.extradata or b"")
        made, flags = [], []
        for packet in container.demux(stream):
            if packet.size:
                unit = units.read(memoryview(packet), flagged=packet.is_keyframe)
                made.append(unit._replace(parts=(joined(unit),)))
                flags.append(packet.is_keyframe)
    return made, flags


def sample(encoding: str, container: str, **more: object) -> Path:
    # Without the message of x265 about itself, which its MP4 files have in their description, too.
    extra = ("-x265-params", "log-level=error:info=0") if encoding == "h265" else ()
    return clip(f"{encoding}.{container}", codec=LIBRARY[encoding], seconds=2, options=("-bf", "2", *extra), **more)


@pytest.mark.parametrize(
    ("encoding", "container"),
    [(encoding, name) for encoding in LIBRARY for name in ("mp4", "mkv", "ts", "flv") if (encoding, name) != NO_FLV],
)
def test_units_of_any_container_are_annex_b_whose_key_frames_decode_alone(encoding, container):
    path = sample(encoding, container)
    made, flags = read_clip(path, encoding)
    assert [unit.keyframe for unit in made] == flags
    assert sum(flags) == 2
    assert all(unit.sound and (unit.width, unit.height) == (320, 240) for unit in made)
    assert [picture_units(joined(unit), encoding) for unit in made] == [
        picture_units(packet, encoding) for packet in packets(path)
    ]
    for unit in made:
        data = joined(unit)
        assert data.startswith((START_CODE, START_CODE[1:]))
        kinds = [nal_type(each, encoding) for each in nal_units(data)]
        needed = {7, 8} if encoding == "h264" else {32, 33, 34}
        assert needed <= set(kinds) if unit.keyframe else not needed & set(kinds)
        if unit.keyframe:
            assert decodes(data, encoding)


def decodes(data: bytes, encoding: str) -> bool:
    """Whether a decoder that knows nothing else makes one picture of it."""
    decoder = av.CodecContext.create({"h264": "h264", "h265": "hevc"}[encoding], "r")
    return len(decoder.decode(av.Packet(data)) + decoder.decode(None)) == 1


@pytest.mark.parametrize("encoding", ["h264", "h265"])
def test_parameter_sets_may_be_in_the_description_only_in_annex_b_too(encoding):
    """As a camera's SDP has them."""
    made, _ = read_clip(sample(encoding, "mp4"), encoding)
    whole = joined(made[0])
    sets = b"".join(START_CODE + unit for unit in nal_units(whole) if unit not in picture_units(whole, encoding))
    bare = b"".join(START_CODE + unit for unit in picture_units(whole, encoding))
    unit = AccessUnits(encoding, sets).read(memoryview(bare), flagged=True)
    assert unit.keyframe
    assert joined(unit) == whole
    without = AccessUnits(encoding).read(memoryview(bare), flagged=True)
    assert not without.keyframe, "it does not decode, whatever it is"
    assert joined(without) == bare


@pytest.mark.parametrize("missing", [32, 33, 34])
def test_a_key_frame_of_h265_needs_all_three_kinds_of_parameter_sets(missing):
    made, _ = read_clip(sample("h265", "mp4"), "h265")
    units = nal_units(joined(made[0]))
    some = annex_b(*(unit for unit in units if nal_type(unit, "h265") != missing))
    assert not AccessUnits("h265").read(memoryview(some), flagged=True).keyframe
    assert AccessUnits("h265").read(memoryview(annex_b(*units)), flagged=True).keyframe


@pytest.mark.parametrize("encoding", ["h264", "h265"])
def test_a_key_frame_without_parameter_sets_lacks_them_and_other_units_do_not(encoding):
    made, _ = read_clip(sample(encoding, "mp4"), encoding)
    bare = [b"".join(START_CODE + nal for nal in picture_units(joined(unit), encoding)) for unit in made]
    units = AccessUnits(encoding)
    read = [units.read(memoryview(data), flagged=unit.keyframe) for data, unit in zip(bare, made, strict=True)]
    assert [unit.lacks_sets for unit in read] == [unit.keyframe for unit in made]
    assert not any(unit.keyframe for unit in read)
    assert units.read(memoryview(joined(made[0])), flagged=True).keyframe
    assert not units.read(memoryview(bare[0]), flagged=True).lacks_sets
    assert not units.read(memoryview(b"damaged"), flagged=True).lacks_sets


def test_parameter_sets_that_came_once_are_given_to_later_key_frames():
    made, _ = read_clip(sample("h264", "mp4"), "h264")
    first, second = [unit for unit in made if unit.keyframe]
    units = AccessUnits("h264")
    assert units.read(memoryview(joined(first)), flagged=True).keyframe
    bare = b"".join(START_CODE + unit for unit in picture_units(joined(second)))
    assert decodes(joined(units.read(memoryview(bare), flagged=True)), "h264")


def test_parameter_sets_of_a_packet_replace_those_of_the_description():
    small, _ = read_clip(sample("h264", "mp4"), "h264")
    large, _ = read_clip(clip("large.mp4", size="640x480", seconds=1), "h264")
    units = AccessUnits("h264", joined(small[0]))
    assert units.read(memoryview(joined(small[0])), flagged=True)[3:5] == (320, 240)
    assert units.read(memoryview(joined(large[0])), flagged=True)[3:5] == (640, 480)
    bare = b"".join(START_CODE + unit for unit in picture_units(joined(large[0])))
    again = units.read(memoryview(bare), flagged=True)
    assert (again.width, again.height) == (640, 480)
    assert decodes(joined(again), "h264")
    assert units.read(memoryview(joined(small[0])), flagged=True)[3:5] == (320, 240)


@pytest.mark.parametrize(
    "size", ["64x64", "66x50", "320x240", "642x362", "1280x720", "1920x1080", "1918x1078", "2560x1440"]
)
@pytest.mark.parametrize("encoding", ["h264", "h265"])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv422p10le"])
def test_the_size_follows_from_the_parameter_sets(tmp_path, encoding, size, pixels):
    path = tmp_path / "x.mp4"
    options = ["-x265-params", "log-level=error"] if encoding == "h265" else []
    ffmpeg(
        *("-f", "lavfi", "-i", f"color=gray:size={size}:rate=1", "-frames:v", "1", "-c:v", LIBRARY[encoding]),
        *("-preset", "ultrafast", *options, "-pix_fmt", pixels, path),
    )
    (unit,), _ = read_clip(path, encoding)
    assert f"{unit.width}x{unit.height}" == size


@pytest.mark.parametrize(
    "options",
    [
        ("-flags", "+ildct+ilme", "-x264-params", "tff=1"),
        ("-x264-params", "cqm=jvt"),
        ("-profile:v", "baseline"),
        ("-x264-params", "nal-hrd=cbr:vbv-maxrate=500:vbv-bufsize=500"),
        ("-x264-params", "slices=5:aud=1"),
    ],
)
def test_streams_with_more_in_their_headers(options):
    path = clip(re.sub(r"\W", "", "".join(options)) + ".ts", size="322x244", seconds=1, options=options)
    made, flags = read_clip(path, "h264")
    assert [unit.keyframe for unit in made] == flags
    assert {unit[3:6] for unit in made} == {(322, 244, True)}


def test_an_open_gop_begins_with_a_picture_of_i_slices():
    """FFmpeg flags it, by its recovery point; it is no IDR picture."""
    path = clip("open.ts", options=("-bf", "2", "-x264-params", "open-gop=1:bframes=2:b-adapt=0:keyint=10:scenecut=0"))
    made, flags = read_clip(path, "h264")
    kinds = [{nal_type(unit) for unit in nal_units(joined(each))} for each in made if each.keyframe]
    assert [unit.keyframe for unit in made] == flags
    assert len(kinds) > 1
    assert IDR in kinds[0]
    assert all(IDR not in kind and {SPS, PPS} <= kind for kind in kinds[1:])


def test_a_recovery_point_of_p_slices_is_no_key_frame():
    """Gradual refresh: FFmpeg flags the picture, but it does not decode alone."""
    path = clip("refresh.ts", options=("-bf", "0", "-x264-params", "intra-refresh=1:keyint=10"))
    made, flags = read_clip(path, "h264")
    assert sum(flags) > 1
    assert [number for number, unit in enumerate(made) if unit.keyframe] == [0]


def test_an_open_gop_of_h265_begins_with_a_cra_picture():
    path = clip(
        "open265.ts",
        codec="libx265",
        options=("-x265-params", "log-level=error:open-gop=1:keyint=10:bframes=2:b-adapt=0:scenecut=0"),
    )
    made, _ = read_clip(path, "h265")
    kinds = [{nal_type(unit, "h265") for unit in nal_units(joined(each))} for each in made if each.keyframe]
    assert len(kinds) > 1
    assert all(21 in kind for kind in kinds[1:])


# NAL units by hand: the parameter sets of a real stream, and slices of a few bytes.


def real_sets() -> tuple[bytes, bytes]:
    made, _ = read_clip(sample("h264", "mp4"), "h264")
    sps, pps = (next(unit for unit in nal_units(joined(made[0])) if nal_type(unit) == kind) for kind in (SPS, PPS))
    return sps, pps


def nal(kind: int, payload: bytes = b"\xb8\x80\x40") -> bytes:
    """A NAL unit of H.264; the payload begins like an I slice with the first block, and PPS 0."""
    return bytes([0x60 | kind]) + payload


def annex_b(*units: bytes) -> bytes:
    return b"".join(START_CODE + unit for unit in units)


def prefixed(*units: bytes, size: int = 4) -> bytes:
    return b"".join(len(unit).to_bytes(size) + unit for unit in units)


def avcc(length_bytes: int = 4) -> bytes:
    sps, pps = real_sets()
    head = b"\1" + sps[1:4] + bytes([0xFC | (length_bytes - 1), 0xE1])
    return head + len(sps).to_bytes(2) + sps + b"\1" + len(pps).to_bytes(2) + pps


@pytest.mark.parametrize("length_bytes", [1, 2, 4])
def test_lengths_have_any_number_of_bytes(length_bytes):
    sps, pps = real_sets()
    units = AccessUnits("h264", avcc(length_bytes))
    unit = units.read(memoryview(prefixed(nal(AUD, b"\xf0"), nal(SEI), nal(IDR), size=length_bytes)), flagged=True)
    assert unit.keyframe
    assert nal_units(joined(unit)) == [nal(AUD, b"\xf0"), sps, pps, nal(SEI), nal(IDR)]


def test_the_coded_picture_is_not_copied():
    packet = bytearray(annex_b(nal(SLICE, b"\xb8" + bytes([7]) * 100)))
    (part,) = AccessUnits("h264").read(memoryview(packet), flagged=False).parts
    packet[-1] = 9
    assert part[-1] == 9


def test_sets_are_only_given_to_key_frames_that_lack_them():
    sps, pps = real_sets()
    units = AccessUnits("h264", annex_b(sps, pps))
    whole = annex_b(sps, pps, nal(IDR))
    assert joined(units.read(memoryview(whole), flagged=True)) == whole
    half = units.read(memoryview(annex_b(sps, nal(IDR))), flagged=True)
    assert nal_units(joined(half)) == [sps, pps, sps, nal(IDR)]
    assert joined(units.read(memoryview(annex_b(nal(SLICE))), flagged=False)) == annex_b(nal(SLICE))


def test_a_packet_without_a_picture_is_no_access_unit_and_its_sets_are_remembered():
    sps, pps = real_sets()
    units = AccessUnits("h264")
    assert units.read(memoryview(annex_b(nal(AUD, b"\xf0"), sps, pps, nal(SEI))), flagged=False) is None
    assert nal_units(joined(units.read(memoryview(annex_b(nal(IDR))), flagged=True))) == [sps, pps, nal(IDR)]
    assert units.read(memoryview(annex_b(nal(SEI))), flagged=True) is None


def test_ffmpeg_s_flag_does_not_make_a_p_picture_a_key_frame_nor_its_absence_unmake_an_idr_picture():
    units = AccessUnits("h264", avcc())
    p_slice = nal(SLICE, b"\xe0\x80\x40")
    assert not units.read(memoryview(prefixed(p_slice)), flagged=True).keyframe
    assert units.read(memoryview(prefixed(nal(SLICE))), flagged=True).keyframe, "of I slices"
    assert not units.read(memoryview(prefixed(nal(SLICE))), flagged=False).keyframe
    assert units.read(memoryview(prefixed(nal(IDR))), flagged=False).keyframe


DAMAGED_LENGTHS = {
    "zero length": prefixed(nal(SLICE)) + bytes(4),
    "empty unit": prefixed(nal(SLICE), b"", nal(SLICE)),
    "beyond the end": prefixed(nal(SLICE)) + b"\0\0\1\0rest",
    "half a length": prefixed(nal(SLICE)) + b"\0\0",
    "huge length": b"\xff\xff\xff\xff" + nal(SLICE),
    "forbidden bit": prefixed(b"\xe1\xb8\x80"),
    "no payload": prefixed(nal(SLICE, b"")),
    "not the first slice": prefixed(nal(SLICE, b"\x40\x80\x40")),
    "SPS cut short": prefixed(nal(SPS, b"\x42"), nal(IDR)),
}


@pytest.mark.parametrize("packet", DAMAGED_LENGTHS.values(), ids=DAMAGED_LENGTHS)
def test_damaged_packets_with_lengths_are_not_sound(packet):
    unit = AccessUnits("h264", avcc()).read(memoryview(packet), flagged=True)
    assert not unit.sound
    assert not unit.keyframe


DAMAGED_ANNEX_B = {
    "empty unit": annex_b(b"", nal(SLICE)),
    "empty unit in between": annex_b(nal(SEI), b"", nal(SLICE)),
    "only a start code": START_CODE,
    "no start code": b"picture",
    "something before": b"x" + annex_b(nal(SLICE)),
    "forbidden bit": annex_b(b"\xe1\xb8\x80"),
    "no payload": annex_b(nal(SLICE, b"")),
    "not the first slice": annex_b(nal(SLICE, b"\x40\x80\x40")),
    "nothing": b"",
}


@pytest.mark.parametrize("packet", DAMAGED_ANNEX_B.values(), ids=DAMAGED_ANNEX_B)
def test_damaged_packets_of_annex_b_are_not_sound(packet):
    unit = AccessUnits("h264").read(memoryview(packet), flagged=True)
    assert not unit.sound
    assert not unit.keyframe


def test_a_damaged_unit_says_the_size_of_those_before():
    units = AccessUnits("h264", avcc())
    assert units.read(memoryview(prefixed(nal(IDR))), flagged=True)[3:5] == (320, 240)
    assert units.read(memoryview(b"\xff" * 9), flagged=False)[3:6] == (320, 240, False)


def test_zeros_around_nal_units_do_not_matter():
    sps, pps = real_sets()
    padded = b"\0" + START_CODE + sps + bytes(3) + START_CODE + pps + bytes(2) + b"\0\0\1" + nal(IDR)
    unit = AccessUnits("h264").read(memoryview(padded), flagged=True)
    assert unit.keyframe
    assert joined(unit) == padded


def test_a_unit_of_four_megabytes_is_read_as_fast_as_a_small_one():
    """Only its beginning is looked at. The best of several, because the machine may be busy."""
    units, packet = AccessUnits("h264"), memoryview(annex_b(nal(SLICE, b"\xe0" + bytes([5]) * 2**22)))
    spent = []
    for _ in range(20):
        begun = time.perf_counter()
        unit = units.read(packet, flagged=False)
        spent.append(time.perf_counter() - begun)
    assert sum(map(len, unit.parts)) > 2**22
    assert min(spent) < 0.001


def test_what_is_remembered_is_bounded():
    units = AccessUnits("h264")
    for number in range(300):
        # Many PPS with identifiers of their own.
        identifier = (number + 1).bit_length() - 1
        bits = int("0" * identifier + f"{number + 1:b}" + "1", 2)
        size = 2 * identifier + 2
        head = (bits << (-size % 8)).to_bytes(-(-size // 8))
        units.read(memoryview(annex_b(nal(PPS, head + bytes([1]) * 3000), nal(SLICE))), flagged=False)
    assert units._sets.size <= 65_536
    assert not units.read(memoryview(annex_b(nal(PPS, b"\xc1" * 5000), nal(IDR))), flagged=False).sound


@pytest.mark.parametrize(
    "description", [b"", b"\1", b"\1\2\3\4\5\6\7", b"\1" * 40, b"\xff" * 60, avcc()[:-3], bytes(30)]
)
@pytest.mark.parametrize("encoding", ["h264", "h265"])
def test_a_description_that_cannot_be_read_is_ignored(encoding, description):
    AccessUnits(encoding, description).read(memoryview(annex_b(nal(SLICE))), flagged=False)


@settings(max_examples=examples(300), deadline=None)
@given(st.sampled_from(["h264", "h265"]), st.binary(max_size=80), st.lists(st.binary(max_size=120), max_size=5))
def test_any_bytes_make_units_or_none(encoding, description, data):
    units = AccessUnits(encoding, description)
    for packet in data:
        unit = units.read(memoryview(packet), flagged=True)
        if unit is not None and not unit.keyframe:
            assert len(joined(unit)) >= len(packet) or units._length_bytes
            assert unit.encoding == encoding


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(min_size=4, max_size=60))
def test_any_bytes_as_parameter_sets_are_read_or_refused(data):
    sps, _ = real_sets()
    for read in (parameter_sets.h264_format, parameter_sets.h265_format):
        for unit in (data, sps[:8] + data):
            try:
                width, height, *_ = read(unit)
            except WireError:
                continue
            assert 0 < width <= 65_535
            assert 0 < height <= 65_535


@pytest.mark.parametrize(
    ("bits", "number"),
    [("1", 0), ("010", 1), ("011", 2), ("00100", 3), ("00111", 6), ("0001000", 7), ("000010001", 16)],
)
def test_numbers_of_exp_golomb_code(bits, number):
    data = int(bits.ljust(16, "0"), 2).to_bytes(2)
    assert parameter_sets.Bits(data, 0).ue() == number
    signed = parameter_sets.Bits(data, 0).se()
    assert signed == ((number + 1) // 2 if number % 2 else -number // 2)


def test_bytes_that_prevent_start_codes_are_no_data():
    assert parameter_sets.Bits(b"\0\0\3\1\0\0\3\0\0\3\2", 0).u(64) == 0x0000_0100_0000_0002


OPEN_GOPS = {
    "h264": ("-x264-params", "open-gop=1:keyint=11:min-keyint=11:scenecut=0:bframes=3:b-adapt=0"),
    "h265": (
        "-x265-params",
        "log-level=error:info=0:open-gop=1:keyint=11:min-keyint=11:scenecut=0:bframes=3:b-adapt=0",
    ),
}


def open_gops(encoding: str) -> Path:
    return clip(f"open-{encoding}.mp4", codec=LIBRARY[encoding], seconds=5, gop=11, options=OPEN_GOPS[encoding])


@pytest.mark.parametrize("with_pts", [True, False], ids=["times", "no times"])
@pytest.mark.parametrize("encoding", OPEN_GOPS)
def test_leading_pictures_of_the_first_open_gop_are_early(encoding, with_pts):
    """They refer to pictures before the key frame, which this connection never had. Later GOPs have all they need."""
    with av.open(str(open_gops(encoding))) as container:
        stream = container.streams.video[0]
        description = stream.codec_context.extradata
        found = [packet for packet in container.demux(stream) if packet.size]
    second = [place for place, packet in enumerate(found) if packet.is_keyframe][1]
    third = [place for place, packet in enumerate(found) if packet.is_keyframe][2]
    units = AccessUnits(encoding, description)
    begin = second - 3
    made = [
        units.read(memoryview(packet), flagged=packet.is_keyframe, pts=packet.pts if with_pts else None)
        for packet in found[begin:]
    ]
    assert [unit.early for unit in made[:3]] == [True] * 3, "before the first key frame"
    leading = [packet.pts < found[second].pts for packet in found[second:third]]
    assert any(leading), "the clip has no open GOP"
    assert [unit.early for unit in made[3 : third - begin]] == leading
    assert not any(unit.early for unit in made[third - begin :])
    # What is left decodes to a picture a unit.
    decoder = av.CodecContext.create({"h264": "h264", "h265": "hevc"}[encoding], "r")
    decoder.thread_count = 1
    kept = [unit for unit in made if not unit.early]
    pictures = [frame for unit in kept for frame in decoder.decode(av.Packet(joined(unit)))] + decoder.decode(None)
    assert len(pictures) == len(kept)


def test_behind_an_idr_picture_nothing_is_early():
    made, _ = read_clip(sample("h264", "mp4"), "h264")
    assert not any(unit.early for unit in made)
