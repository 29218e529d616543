"""The NAL units of H.264 and H.265 in the forms that streams and files have them: after start codes (Annex B), after
lengths, and in the records ``avcC`` and ``hvcC`` of MP4 (ISO 14496-15). All input is untrusted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

#: Finds the start code before a NAL unit. A fourth byte, 0, may stand before it.
find_start = re.compile(b"\0\0\1").search


class Kinds(NamedTuple):
    """Types of NAL units: of slices, of slices of key frames, of parameter sets. H.264 has no VPS."""

    header_bytes: int
    slices: range
    keys: range
    sets: frozenset[int]
    vps: int
    sps: int
    pps: int
    delimiter: int


KINDS: dict[str, Kinds] = {
    "h264": Kinds(1, range(1, 6), range(5, 6), frozenset({7, 8, 13}), 0, 7, 8, 9),
    "h265": Kinds(2, range(32), range(16, 24), frozenset({32, 33, 34}), 32, 33, 34, 35),
}


class Damaged(Exception):
    """The packet has a NAL unit that cannot be."""


def annex_b(data: memoryview) -> Iterator[memoryview]:
    """The NAL units between start codes, without the zeros after each."""
    found = find_start(data)
    while found is not None:
        begin = found.end()
        found = find_start(data, begin)
        end = without_zeros(data, begin, found.start() if found else len(data))
        if end > begin:
            yield data[begin:end]


def without_zeros(data: memoryview, begin: int, end: int) -> int:
    """The end of a NAL unit without the zeros that may follow it."""
    while end > begin and not data[end - 1]:
        end -= 1
    return end


def prefixed(data: memoryview, length_bytes: int) -> Iterator[memoryview]:
    """The NAL units of a packet that has a length before each. Raises Damaged if a length cannot be."""
    offset, size = 0, len(data)
    while offset < size:
        begin = offset + length_bytes
        offset = begin + int.from_bytes(data[offset:begin])
        if offset > size or offset <= begin:
            raise Damaged
        yield data[begin:offset]


def avcc(data: memoryview) -> Iterator[memoryview]:
    """The parameter sets of an ``avcC`` record: first those of a sequence, then those of pictures."""
    offset = 5
    for mask in (0x1F, 0xFF):
        count, offset = _number(data, offset, 1) & mask, offset + 1
        for _ in range(count):
            size = _number(data, offset, 2)
            yield _part(data, offset + 2, size)
            offset += 2 + size


def hvcc(data: memoryview) -> Iterator[memoryview]:
    """The parameter sets of an ``hvcC`` record, which has them in arrays by type."""
    offset = 23
    for _ in range(_number(data, 22, 1)):
        count, offset = _number(data, offset + 1, 2), offset + 3
        for _ in range(count):
            size = _number(data, offset, 2)
            yield _part(data, offset + 2, size)
            offset += 2 + size


def _number(data: memoryview, offset: int, size: int) -> int:
    return int.from_bytes(_part(data, offset, size))


def _part(data: memoryview, offset: int, size: int) -> memoryview:
    if not size or offset + size > len(data):
        raise Damaged
    return data[offset : offset + size]
