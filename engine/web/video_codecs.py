"""What a film of H.264 or H.265 says about its codec: ``avcC`` and ``hvcC`` (ISO 14496-15), and the name for Media
Source (RFC 6381). All is read from the parameter sets of a key frame, which are untrusted. Pure."""

from __future__ import annotations

import struct
from typing import NamedTuple

from engine.client.video import VideoUnit
from engine.errors import WireError
from engine.web.video_boxes import box, header, visual_entry
from engine.wire.nal_units import KINDS, annex_b
from engine.wire.parameter_sets import SET_BYTES_MAX, Bits

#: Profiles of H.264 whose ``avcC`` ends with the format of colours.
_HIGH_PROFILES = frozenset({100, 110, 122, 144})
#: Parameter sets of one kind in a record.
_SETS_MAX = 31


class Track(NamedTuple):
    """How a film begins. ``codec`` is its name for Media Source, ``header`` its first bytes. ``sets`` are the parameter
    sets in it, which samples do not repeat."""

    codec: str
    header: bytes
    sets: frozenset[bytes]
    encoding: str


def track_of(unit: VideoUnit) -> Track:
    """The track of a film that begins with this key frame. Raises WireError if its parameter sets are damaged."""
    kinds = KINDS[unit.encoding]
    found: dict[int, list[bytes]] = {kinds.vps: [], kinds.sps: [], kinds.pps: []}
    for nal in annex_b(memoryview(unit.data)):
        kind = _kind(unit.encoding, nal)
        if kind in kinds.slices:
            break
        if kind in found and kind in kinds.sets and bytes(nal) not in found[kind]:
            found[kind].append(bytes(nal))
    sets = [one for several in found.values() for one in several]
    if not (found[kinds.sps] and found[kinds.pps]):
        raise WireError(f"unit {unit.key} has no parameter sets")
    if any(len(one) > SET_BYTES_MAX for one in sets) or any(len(several) > _SETS_MAX for several in found.values()):
        raise WireError(f"unit {unit.key} has parameter sets that are too large, or too many")
    sps, pps = found[kinds.sps], found[kinds.pps]
    if unit.encoding == "h264":
        codec, kind_of_entry, record = f"avc1.{sps[0][1:4].hex()}", b"avc1", box(b"avcC", _avcc(sps, pps))
    else:
        profile = _profile(sps[0])
        codec, kind_of_entry = _h265_name(profile), b"hvc1"
        record = box(b"hvcC", _hvcc(profile, sps[0], {kind: several for kind, several in found.items() if several}))
    entry = visual_entry(kind_of_entry, unit.width, unit.height, record)
    return Track(codec, header(entry, unit.width, unit.height), frozenset(sets), unit.encoding)


def payload_of(track: Track, unit: VideoUnit) -> bytes:
    """A unit as a film has it: a length before each NAL unit, without the parameter sets of its header."""
    parts: list[bytes | memoryview] = []
    for nal in annex_b(memoryview(unit.data)):
        if unit.keyframe and len(nal) <= SET_BYTES_MAX and bytes(nal) in track.sets:
            continue
        parts += (len(nal).to_bytes(4), nal)
    return b"".join(parts)


def _kind(encoding: str, nal: memoryview) -> int:
    return nal[0] & 0x1F if encoding == "h264" else nal[0] >> 1 & 0x3F


def _avcc(sps: list[bytes], pps: list[bytes]) -> bytes:
    if len(sps[0]) < 4:
        raise WireError("a parameter set is cut short")
    record = bytes([1, *sps[0][1:4], 0xFF, 0xE0 | len(sps)]) + _prefixed(sps) + bytes([len(pps)]) + _prefixed(pps)
    if sps[0][1] not in _HIGH_PROFILES:
        return record
    bits = Bits(sps[0], 4)
    bits.ue()
    chroma = bits.ue()
    if chroma == 3:
        bits.u(1)
    return record + bytes([0xFC | chroma & 3, 0xF8 | bits.ue() & 7, 0xF8 | bits.ue() & 7, 0])


def _profile(sps: bytes) -> bytes:
    """The 12 bytes of an SPS of H.265 that say profile, tier and level, and the byte before them."""
    plain = sps[2:].replace(b"\0\0\3", b"\0\0")[:13]
    if len(plain) < 13:
        raise WireError("a parameter set is cut short")
    return plain


def _h265_name(profile: bytes) -> str:
    """The name of a codec (ISO 14496-15, annex E.3)."""
    space, tier, idc = profile[1] >> 6, profile[1] >> 5 & 1, profile[1] & 0x1F
    # The flags of compatible profiles are written with the first flag as the lowest bit.
    flags = int(f"{int.from_bytes(profile[2:6]):032b}"[::-1], 2)
    constraints = [f".{byte:X}" for byte in profile[6:12].rstrip(b"\0")]
    return f"hvc1.{' ABC'[space].strip()}{idc}.{flags:X}.{'LH'[tier]}{profile[12]}{''.join(constraints)}"


def _hvcc(profile: bytes, sps: bytes, sets: dict[int, list[bytes]]) -> bytes:
    layers, nested = profile[0] >> 1 & 7, profile[0] & 1
    bits = Bits(sps, 2)
    bits.u(8 + 96)
    present = [(bits.u(1), bits.u(1)) for _ in range(layers)]
    if layers:
        bits.u(2 * (8 - layers))
    for has_profile, has_level in present:
        bits.u(88 * has_profile + 8 * has_level)
    bits.ue()
    chroma = bits.ue()
    if chroma == 3:
        bits.u(1)
    bits.ue()
    bits.ue()
    if bits.u(1):
        for _ in range(4):
            bits.ue()
    luma_depth, chroma_depth = bits.ue() & 7, bits.ue() & 7
    record = (
        b"\1"
        + profile[1:13]
        + struct.pack(
            ">HBBBBHBB",
            0xF000,
            0xFC,
            0xFC | chroma & 3,
            0xF8 | luma_depth,
            0xF8 | chroma_depth,
            0,
            (layers + 1) << 3 | nested << 2 | 3,
            len(sets),
        )
    )
    for kind, several in sets.items():
        record += struct.pack(">BH", 0x80 | kind, len(several)) + _prefixed(several)
    return record


def _prefixed(sets: list[bytes]) -> bytes:
    return b"".join(len(one).to_bytes(2) + one for one in sets)
