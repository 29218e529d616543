"""Fragmented MP4 (ISO 14496-12) of one video track, byte by byte: its header, and fragments. Pure.

Written here and not by FFmpeg, because a fragment is 120 bytes before the payload: the web process then needs no PyAV
(30 MB of memory), no threads, and can begin each viewer's film at any key frame without muxing again.

    header:    ftyp moov(mvhd trak(… stsd(entry) …) mvex(trex))
    fragment:  moof(mfhd traf(tfhd tfdt trun)) mdat
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from engine.client.film_track import TICKS

_TRACK = 1
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
#: A sample that decodes alone, and one that depends on others (ISO 14496-12, 8.8.3.1).
_SYNC, _NOT_SYNC = 0x02000000, 0x01010000
#: ``trun``: with the payload's offset; and of each sample its duration, size, flags, and offset of presentation.
_TRUN_FLAGS = 0x1 | 0x100 | 0x200 | 0x400 | 0x800
#: ``tfhd``: offsets count from the beginning of the ``moof``.
_BASE_IS_MOOF = 0x020000


class Sample(NamedTuple):
    """One picture. ``duration``: until the next is decoded; ``offset``: from its decoding to its presentation; in
    ticks."""

    data: bytes
    duration: int
    offset: int
    keyframe: bool


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box."""
    return b"".join((struct.pack(">I4s", 8 + sum(map(len, parts)), kind), *parts))


def full_box(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    """A box with a version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def visual_entry(kind: bytes, width: int, height: int, *boxes: bytes) -> bytes:
    """A sample entry of video. ``boxes`` describe the codec."""
    return box(
        kind,
        struct.pack(">6xH16xHHIIIH32xHh", 1, width, height, 0x480000, 0x480000, 0, 1, 0x18, -1),
        *boxes,
    )


def jpeg_entry(width: int, height: int) -> bytes:
    """The sample entry of JPEGs: MPEG-4 visual, whose object type says JPEG (ISO 14496-1)."""
    decoder = struct.pack(">BBBB3xII", 4, 13, 0x6C, 0x11, 0, 0)
    content = struct.pack(">HB", _TRACK, 0) + decoder + b"\x06\x01\x02"
    return visual_entry(b"mp4v", width, height, full_box(b"esds", 0, 0, b"\x03", bytes([len(content)]), content))


def header(entry: bytes, width: int, height: int) -> bytes:
    """The beginning of a film, for one sample entry."""
    stbl = box(
        b"stbl",
        full_box(b"stsd", 0, 0, struct.pack(">I", 1), entry),
        full_box(b"stts", 0, 0, bytes(4)),
        full_box(b"stsc", 0, 0, bytes(4)),
        full_box(b"stsz", 0, 0, bytes(8)),
        full_box(b"stco", 0, 0, bytes(4)),
    )
    dinf = box(b"dinf", full_box(b"dref", 0, 0, struct.pack(">I", 1), full_box(b"url ", 0, 1)))
    mdia = box(
        b"mdia",
        full_box(b"mdhd", 0, 0, struct.pack(">IIIIHH", 0, 0, TICKS, 0, 0x55C4, 0)),
        full_box(b"hdlr", 0, 0, struct.pack(">I4s12x", 0, b"vide"), b"video\0"),
        box(b"minf", full_box(b"vmhd", 0, 1, bytes(8)), dinf, stbl),
    )
    # In the track's header, the size has 16 bits behind the point.
    tkhd = (
        struct.pack(">IIIII8xHHHH", 0, 0, _TRACK, 0, 0, 0, 0, 0, 0)
        + _MATRIX
        + struct.pack(">II", width << 16, height << 16)
    )
    mvhd = struct.pack(">IIIIIH10x", 0, 0, TICKS, 0, 0x10000, 0x100) + _MATRIX + struct.pack(">24xI", _TRACK + 1)
    return box(b"ftyp", b"iso5", struct.pack(">I", 512), b"iso5iso6mp41") + box(
        b"moov",
        full_box(b"mvhd", 0, 0, mvhd),
        box(b"trak", full_box(b"tkhd", 0, 3, tkhd), mdia),
        box(b"mvex", full_box(b"trex", 0, 0, struct.pack(">IIIII", _TRACK, 1, 0, 0, 0))),
    )


def fragment(number: int, time: int, samples: Sequence[Sample]) -> bytes:
    """Fragment ``number`` (from 1) of a film. Its first sample is decoded at ``time``, in ticks."""
    rows = b"".join(
        struct.pack(
            ">IIIi",
            sample.duration,
            len(sample.data),
            _SYNC if sample.keyframe else _NOT_SYNC,
            sample.offset,
        )
        for sample in samples
    )
    # moof, mfhd, traf, tfhd, tfdt and trun are 8, 16, 8, 16, 20 and 20 bytes long without rows; mdat has 8 more.
    size = 88 + len(rows)
    moof = box(
        b"moof",
        full_box(b"mfhd", 0, 0, struct.pack(">I", number)),
        box(
            b"traf",
            full_box(b"tfhd", 0, _BASE_IS_MOOF, struct.pack(">I", _TRACK)),
            full_box(b"tfdt", 1, 0, struct.pack(">Q", time)),
            full_box(b"trun", 1, _TRUN_FLAGS, struct.pack(">Ii", len(samples), size + 8), rows),
        ),
    )
    payload = sum(len(sample.data) for sample in samples)
    return b"".join((moof, struct.pack(">I4s", 8 + payload, b"mdat"), *(sample.data for sample in samples)))
