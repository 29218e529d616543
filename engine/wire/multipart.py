"""Heads of the parts of a multipart body (RFC 2046, section 5.1), as far as cameras keep to it."""

from __future__ import annotations

import re

#: Behind the boundary in the last line of a body.
CLOSING = b"--"
#: Longest head of a part, in bytes.
HEAD_BYTES_MAX = 8192
#: Parts that claim to be larger are not believed, in bytes: no camera has such a picture.
_PART_BYTES_MAX = 2**28

#: A part's head: its boundary's line, and its headers. Lines may end with LF alone.
HEAD = re.compile(rb"(--[^\r\n]*)\r?\n((?:[^\r\n]+\r?\n)*)\r?\n")
#: The same if they state a length, which is the second group.
HEAD_WITH_LENGTH = re.compile(
    rb"(--[^\r\n]*)\r?\n(?:[^\r\n]+\r?\n)*?(?i:content-length)[ \t]*:[ \t]*([0-9]{1,20})[ \t]*\r?\n"
    rb"(?:[^\r\n]+\r?\n)*\r?\n"
)
_NOT_NEWLINE = re.compile(rb"[^\r\n]")
_LENGTH = re.compile(rb"(?im)^content-length[ \t]*:[ \t]*([0-9]{1,20})[ \t]*\r?$")
_MIXED = re.compile(r"(?i)\s*multipart/x-mixed-replace\s*(?:;|$)")


def is_mixed_replace(content_type: str) -> bool:
    """True for the type of a body whose parts replace each other: a stream of pictures."""
    return bool(_MIXED.match(content_type))


def skip_newlines(data: bytes | bytearray, begin: int, end: int) -> int:
    """The offset of the first byte from ``begin`` on that is no part of a line end; ``end`` if there is none."""
    match = _NOT_NEWLINE.search(data, begin, end)
    return match.start() if match else end


def part_size(headers: bytes) -> int:
    """The length that a part's headers state, in bytes; 0 if they state none that can be used."""
    match = _LENGTH.search(headers)
    size = int(match[1]) if match else 0
    return size if size <= _PART_BYTES_MAX else 0
