"""Parameter sets that a key frame is given: those that its slice needs, the newest sent, and no other."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.wire.access_unit import START_CODE, AccessUnits
from tests.examples import examples
from tests.nal_bits import nal_unit, ue
from tests.stages.video_clips import clip, joined, nal_type, nal_units, packets, picture_units

AUD, NUMBERS = bytes((9, 0xF0)), st.integers(0, 2)


class Sent(NamedTuple):
    """A parameter set of H.264: an SPS of ``variant`` + 1 macroblocks a row, or a PPS that names the SPS ``sps``."""

    sps: int
    variant: int
    pps: int | None = None

    @property
    def key(self) -> tuple[int, int]:
        return (7, self.sps) if self.pps is None else (8, self.pps)

    @property
    def unit(self) -> bytes:
        if self.pps is not None:
            return nal_unit(b"\x68", ue(self.pps) + ue(self.sps) + ue(self.variant) * 4)
        rest = ue(0) + ue(2) + ue(1) + "0" + ue(self.variant) + ue(0) + "1100"
        return nal_unit(b"\x67\x42\x00\x1e", ue(self.sps) + rest)


def idr(pps: int) -> bytes:
    return nal_unit(b"\x65", "1" + ue(7) + ue(pps) + "1011" * 4)


def annex_b(*units: bytes) -> bytes:
    return b"".join(START_CODE + unit for unit in units)


def newest(log: list[Sent]) -> dict[tuple[int, int], Sent]:
    return {sent.key: sent for sent in log}


def holds(log: list[Sent], pps: Sent) -> bool:
    """Whether exactly one SPS has been behind this PPS since it came, and is still there."""
    at = len(log) - log[::-1].index(pps)
    before, after = newest(log[:at]).get((7, pps.sps)), [sent for sent in log[at:] if sent.key == (7, pps.sps)]
    return len({*([before] if before else []), *after}) == 1


def needed(log: list[Sent], pps: int) -> list[bytes]:
    """What a picture with this PPS needs, of all the sets that were sent; empty if something is missing."""
    known = newest(log)
    named = known.get((8, pps))
    if named is None or not holds(log, named):
        return []
    others = [sent for key, sent in sorted(known.items()) if key[0] == 8 and sent.sps == named.sps and holds(log, sent)]
    return [known[7, named.sps].unit, *(sent.unit for sent in others)]


SETS = st.builds(Sent, NUMBERS, NUMBERS, st.none() | NUMBERS)


@settings(max_examples=examples(500), deadline=None)
@given(st.lists(st.tuples(st.lists(SETS, max_size=3), st.none() | NUMBERS, st.booleans()), max_size=12))
def test_a_key_frame_has_what_its_slice_refers_to_the_newest_sent(script):
    """A script is of packets, each with some sets, an IDR picture with this PPS, or none, and a delimiter, or none."""
    units, log = AccessUnits("h264"), []
    for sets, pps, delimited in script:
        log += sets
        before, own = [AUD] * delimited, [sent.unit for sent in sets]
        packet = annex_b(*before, *own, *([] if pps is None else [idr(pps)]))
        if not packet:
            continue
        unit = units.read(memoryview(packet), flagged=False)
        if pps is None:
            assert unit is None
            continue
        wanted = needed(log, pps)
        assert unit.keyframe == bool(wanted)
        assert unit.lacks_sets != unit.keyframe
        lacking = not set(wanted) <= set(own)
        assert nal_units(joined(unit)) == [*before, *(wanted if lacking else []), *own, idr(pps)]
        if unit.keyframe:
            assert unit.width == 16 * (newest(log)[7, newest(log)[8, pps].sps].variant + 1)
            alone = AccessUnits("h264").read(memoryview(joined(unit)), flagged=False)
            assert alone[1:] == unit[1:]


def sets_of(data: bytes, encoding: str) -> list[bytes]:
    return [unit for unit in nal_units(data) if unit not in picture_units(data, encoding)]


CHANGES = {
    "h264": ("libx264", ("-bf", "0"), ("-bf", "0", "-x264-params", "sps-id=3")),
    "h265": ("libx265", *[("-x265-params", "log-level=error:bframes=0:info=0")] * 2),
}


@pytest.mark.parametrize("encoding", CHANGES)
def test_after_a_change_of_resolution_nothing_of_the_former_sets_is_put_in(encoding):
    """In H.264 the sets of the larger pictures have identifiers of their own, in H.265 the same ones."""
    codec, *options = CHANGES[encoding]
    small = packets(clip(f"small-{encoding}.ts", codec=codec, seconds=2, options=options[0]))
    large = packets(clip(f"large-{encoding}.ts", codec=codec, seconds=2, size="640x480", options=options[1]))
    units = AccessUnits(encoding)
    assert units.read(memoryview(small[0]), flagged=True).keyframe
    assert units.read(memoryview(large[0]), flagged=True).keyframe
    bare = annex_b(*picture_units(large[10], encoding))
    unit = units.read(memoryview(bare), flagged=True)
    wanted = [each for each in sets_of(large[10], encoding) if nal_type(each, encoding) not in (9, 35)]
    assert (unit.keyframe, unit.width, unit.height) == (True, 640, 480)
    assert nal_units(joined(unit)) == [*wanted, *picture_units(large[10], encoding)]


@pytest.mark.parametrize("changed", [32, 33])
def test_a_set_of_h265_that_changes_takes_those_with_it_that_name_it(changed):
    path = clip("named.ts", codec="libx265", seconds=1, options=CHANGES["h265"][1])
    data = packets(path)[0]
    sets = [unit for unit in sets_of(data, "h265") if nal_type(unit, "h265") != 35]
    bare = annex_b(*picture_units(data, "h265"))
    units = AccessUnits("h265", annex_b(*sets))
    assert units.read(memoryview(bare), flagged=True).keyframe
    (before,) = (unit for unit in sets if nal_type(unit, "h265") == changed)
    after = before[:-1] + bytes([before[-1] ^ 0x40])
    assert units.read(memoryview(annex_b(after)), flagged=False) is None
    assert units.read(memoryview(bare), flagged=True).lacks_sets
    assert units.read(memoryview(annex_b(*sets)), flagged=False) is None
    assert nal_units(joined(units.read(memoryview(bare), flagged=True))) == [*sets, *picture_units(data, "h265")]
