"""JPEG byte streams: checks whether one is a complete picture, its size, and whether it decodes alone.

Markers and segments follow ITU-T T.81, annex B. Only the headers are parsed. Entropy-coded data is never scanned, so
the cost does not grow with the frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from engine.errors import WireError

SOI = b"\xff\xd8"
EOI = b"\xff\xd9"
_SOS = 0xDA
_DHT = 0xC4
_COM = 0xFE
#: Start-of-frame markers: C0..CF without DHT (C4), JPG (C8) and DAC (CC).
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Bytes that a camera may append after EOI (padding to even or to a word).
_TRAILING_BYTES_MAX = 64
#: The most segments that are read before the first scan: enough for 64 MiB of comments.
_SEGMENTS_MAX = 1100


class JpegInfo(NamedTuple):
    """Width and height in pixels; ``scan`` is the offset of the first SOS marker; ``end`` is one past EOI."""

    width: int
    height: int
    has_huffman_tables: bool
    scan: int
    end: int


def inspect(data: bytes | memoryview) -> JpegInfo:
    """Parse a picture's headers. Raises WireError for anything that is not one complete JPEG."""
    size = len(data)
    if size < 4 or bytes(data[:2]) != SOI:
        raise WireError(f"no JPEG: {size} bytes that begin with {bytes(data[:4]).hex()!r}")
    width, height, tables, seen, sized = 0, 0, False, 2, False
    for marker, offset, end in _segments(data):
        if marker == _SOS and width and height:
            return JpegInfo(width, height, tables, offset, find_end(data, offset))
        if marker in _SOF and offset + 9 <= size:
            if sized:
                raise WireError(f"JPEG of {size} bytes has a second frame header at offset {offset}")
            sized = True
            height, width = struct.unpack_from(">HH", data, offset + 5)
        elif marker == _DHT:
            tables = True
        seen = offset if marker == _SOS else end
    raise WireError(f"JPEG of {size} bytes has damaged headers at offset {seen}")


def describe(head: bytes | memoryview) -> tuple[int, int, str]:
    """(width, height, encoding) of data that begins with ``head``; the size is 0 if ``head`` does not contain it.

    The encoding is ``jpeg`` for anything that begins like a JPEG, else ``unknown``.
    """
    if head[:2] != SOI:
        return 0, 0, "unknown"
    for marker, offset, _ in _segments(head):
        if marker in _SOF and offset + 9 <= len(head):
            height, width = struct.unpack_from(">HH", head, offset + 5)
            return width, height, "jpeg"
    return 0, 0, "jpeg"


def _segments(data: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
    """(marker, offset, end) of each segment after SOI up to the first scan; stops early at invalid data."""
    offset = 2
    for _ in range(_SEGMENTS_MAX):
        if offset + 4 > len(data) or data[offset] != 0xFF:
            return
        marker = data[offset + 1]
        if marker == 0xFF:
            offset += 1
            continue
        end = offset + 2 + max(data[offset + 2] << 8 | data[offset + 3], 2)
        yield marker, offset, end
        if marker == _SOS:
            return
        offset = end


def find_end(data: bytes | memoryview, scan: int) -> int:
    """The offset one past EOI, for a picture whose first scan begins at ``scan``.

    Data after the first EOI is not part of the picture (FFmpeg's RTP depacketizer adds a second one if the camera sent
    its own). Raises WireError if there is no EOI.
    """
    begin = max(scan, len(data) - _TRAILING_BYTES_MAX)
    found = bytes(data[begin:]).find(EOI)
    if found < 0:
        raise WireError(f"JPEG of {len(data)} bytes is cut short: no end of image")
    return begin + found + len(EOI)


def standalone(data: memoryview, info: JpegInfo) -> tuple[bytes | memoryview, ...]:
    """``data`` as parts that together decode alone: missing Huffman tables are replaced by the standard ones."""
    if info.has_huffman_tables:
        return (data[: info.end],)
    return data[: info.scan], STANDARD_HUFFMAN_TABLES, data[info.scan : info.end]


def comment_segment(text: bytes) -> bytes:
    """A COM segment of ``text``."""
    return b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text


def comments(data: bytes | memoryview) -> list[bytes]:
    """The texts of the COM segments before the first scan. Raises WireError for anything but a JPEG."""
    inspect(data)
    return [bytes(data[offset + 4 : end]) for marker, offset, end in _segments(data) if marker == _COM]


def _huffman_segment() -> bytes:
    """The tables of ITU-T T.81, annex K.3.3 to K.3.6, as one DHT segment. An MJPEG stream may leave them out."""
    dc_luminance = bytes.fromhex("00 01 05 01 01 01 01 01 01 00 00 00 00 00 00 00") + bytes(range(12))
    dc_chrominance = bytes.fromhex("00 03 01 01 01 01 01 01 01 01 01 00 00 00 00 00") + bytes(range(12))
    ac_luminance = bytes.fromhex(
        "00 02 01 03 03 02 04 03 05 05 04 04 00 00 01 7d"
        "01 02 03 00 04 11 05 12 21 31 41 06 13 51 61 07 22 71 14 32 81 91 a1 08 23 42 b1 c1 15 52 d1 f0"
        "24 33 62 72 82 09 0a 16 17 18 19 1a 25 26 27 28 29 2a 34 35 36 37 38 39 3a 43 44 45 46 47 48 49"
        "4a 53 54 55 56 57 58 59 5a 63 64 65 66 67 68 69 6a 73 74 75 76 77 78 79 7a 83 84 85 86 87 88 89"
        "8a 92 93 94 95 96 97 98 99 9a a2 a3 a4 a5 a6 a7 a8 a9 aa b2 b3 b4 b5 b6 b7 b8 b9 ba c2 c3 c4 c5"
        "c6 c7 c8 c9 ca d2 d3 d4 d5 d6 d7 d8 d9 da e1 e2 e3 e4 e5 e6 e7 e8 e9 ea f1 f2 f3 f4 f5 f6 f7 f8"
        "f9 fa"
    )
    ac_chrominance = bytes.fromhex(
        "00 02 01 02 04 04 03 04 07 05 04 04 00 01 02 77"
        "00 01 02 03 11 04 05 21 31 06 12 41 51 07 61 71 13 22 32 81 08 14 42 91 a1 b1 c1 09 23 33 52 f0"
        "15 62 72 d1 0a 16 24 34 e1 25 f1 17 18 19 1a 26 27 28 29 2a 35 36 37 38 39 3a 43 44 45 46 47 48"
        "49 4a 53 54 55 56 57 58 59 5a 63 64 65 66 67 68 69 6a 73 74 75 76 77 78 79 7a 82 83 84 85 86 87"
        "88 89 8a 92 93 94 95 96 97 98 99 9a a2 a3 a4 a5 a6 a7 a8 a9 aa b2 b3 b4 b5 b6 b7 b8 b9 ba c2 c3"
        "c4 c5 c6 c7 c8 c9 ca d2 d3 d4 d5 d6 d7 d8 d9 da e2 e3 e4 e5 e6 e7 e8 e9 ea f2 f3 f4 f5 f6 f7 f8"
        "f9 fa"
    )
    tables = b"\x00" + dc_luminance + b"\x10" + ac_luminance + b"\x01" + dc_chrominance + b"\x11" + ac_chrominance
    return b"\xff\xc4" + struct.pack(">H", len(tables) + 2) + tables


STANDARD_HUFFMAN_TABLES = _huffman_segment()
