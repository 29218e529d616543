"""Marks the H.265 of an MP4 as ``hvc1``, the only kind that Apple's players take. FFmpeg's muxer writes ``hev1``, and
PyAV has no way to ask for the other.

Both are the same but for the name and a flag: with ``hvc1``, the sample entry promises to hold all parameter sets
(ISO/IEC 14496-15). It does: the units repeat those that stand there.
"""

from __future__ import annotations

import os
from typing import IO

_HEADER_BYTES = 8
#: Bytes of HEVCDecoderConfigurationRecord before the number of its arrays.
_RECORD_BYTES = 22
_COMPLETE = 0x80


def tag_hvc1(moov: bytes) -> bytes:
    """The box ``moov``, and what may stand around it, with the mark. The length stays the same."""
    tagged = bytearray(moov)
    entry = tagged.find(b"hev1", tagged.find(b"stsd"))
    record = tagged.find(b"hvcC", entry)
    at = record + 4 + _RECORD_BYTES
    if entry < 0 or record < 0 or at >= len(moov):
        return moov
    tagged[entry : entry + 4] = b"hvc1"
    arrays, at = tagged[at], at + 1
    for _ in range(arrays):
        if at >= len(moov):
            # The parameter sets were damaged, and the muxer wrote no list of them.
            return moov
        tagged[at] |= _COMPLETE
        sets, at = int.from_bytes(tagged[at + 1 : at + 3]), at + 3
        for _ in range(sets):
            at += 2 + int.from_bytes(tagged[at : at + 2])
    return bytes(tagged)


def tag_file(file: IO[bytes]) -> None:
    """Mark a complete MP4, open for reading and writing."""
    at = 0
    while len(header := _read(file, at, 2 * _HEADER_BYTES)) >= _HEADER_BYTES:
        size = int.from_bytes(header[:4])
        if size == 1:
            # The size does not fit; 64 bits follow the name.
            size = int.from_bytes(header[8:16])
        if header[4:8] == b"moov":
            tagged = tag_hvc1(_read(file, at, size))
            file.seek(at)
            file.write(tagged)
            return
        if size < _HEADER_BYTES:
            return
        at += size


def _read(file: IO[bytes], at: int, size: int) -> bytes:
    file.seek(at, os.SEEK_SET)
    return file.read(size)
