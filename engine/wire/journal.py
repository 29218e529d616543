"""Entries of a camera's journal: a Redis stream with id ``{unix_nano}-{sequence}`` and six to eight short fields.

Field names are one letter because each entry of a stream's listpack repeats them: ``s`` payload size in bytes, ``w``
width and ``h`` height in pixels, ``e`` encoding, ``k`` 1 for a frame that decodes alone, ``n`` the entry's number. A
camera's video has a journal of its own. Its entries are access units, and have one more field: ``p``, the presentation
time as an offset to the time stamp, in microseconds. Where the camera tells the time by its own clock, an entry ends
with ``c``: when the camera captured the frame, in nanoseconds since the epoch (UTC).

Frames are numbered by ``sequence``, entries by ``n``. A dropped frame uses up a sequence number but no entry number. So
a gap in ``n`` is exactly the entries that were trimmed unread, on every server and after a journal was rebuilt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from engine.errors import WireError
from engine.wire.keys import check_numbers

#: Redis keeps both parts of an id in 64 bits.
_ID_DIGITS_MAX = 20
_NUMBER_DIGITS_MAX = 18
_CAMERA_TIME_DIGITS_MAX = 19
#: Camera times are less than this, in nanoseconds.
CAMERA_TIME_NANO_END = 10**_CAMERA_TIME_DIGITS_MAX
_NAMES = [b"s", b"w", b"h", b"e", b"k"]
_NAMES_NUMBERED = [*_NAMES, b"n"]
_NAMES_VIDEO = [*_NAMES, b"p", b"n"]
#: Offsets of presentation are less than this, in microseconds before or after the time stamp: 15 digits.
OFFSET_US_END = 10**15
_OFFSET = re.compile(rb"-?[0-9]{1,15}")
#: A JPEG's entry as the engine writes it: id and fields, joined by spaces. There are as many spaces as in any joined
#: entry with so many fields, so none is part of a field.
_USUAL_FIELDS = 12
_USUAL = re.compile(
    rb"([1-9][0-9]{18})-([1-9][0-9]{0,4}) s ([0-9]{1,18}) w ([0-9]{1,18}) h ([0-9]{1,18}) e ([a-z0-9]+) k ([01])"
    rb" n ([0-9]{1,18})"
)

#: Encodings by the number that ring records carry; the journal and the metadata carry the name.
ENCODINGS = ("jpeg", "h264", "h265")
#: Those of access units.
VIDEO_ENCODINGS = ENCODINGS[1:]


class JournalEntry(NamedTuple):
    """One stored frame as the journal lists it; ``size`` is in bytes, ``width`` and ``height`` in pixels.

    ``number`` counts the entries that the site's writer wrote to this journal, from 1. It is 0 if the writer did not
    know it, if no publisher was configured, and in entries of a job or of an older version. ``offset_us`` is the
    presentation time of an access unit, in microseconds after ``unix_nano``; 0 for JPEGs. ``camera_time_nano`` is the
    capture time by the camera's clock, in nanoseconds UTC; None if the camera did not tell.
    """

    unix_nano: int
    sequence: int
    size: int
    width: int
    height: int
    encoding: str
    keyframe: bool
    number: int = 0
    offset_us: int = 0
    camera_time_nano: int | None = None


#: (unix_nano, sequence) of an entry.
EntryId = tuple[int, int]


class JournalSpan(NamedTuple):
    """A journal's span, by ids: its first entry, the last entry that was ever added, and the newest that was deleted
    individually (trimming is not deleting)."""

    first: EntryId
    last: EntryId
    deleted: EntryId


#: The span of a journal that does not exist.
NO_JOURNAL = JournalSpan((2**63, 0), (0, 0), (0, 0))


def entry_id(unix_nano: int, sequence: int) -> str:
    """The stream id of a frame."""
    return f"{unix_nano}-{sequence}"


def parse_entry_id(text: bytes | str) -> EntryId:
    """(unix_nano, sequence) of a stream id. Raises WireError."""
    plain = text.encode("utf-8", "replace") if isinstance(text, str) else text
    nano, _, sequence = plain.partition(b"-")
    if not (nano.isdigit() and sequence.isdigit() and max(len(nano), len(sequence)) <= _ID_DIGITS_MAX):
        raise WireError(f"journal entry id {plain[:60]!r} is not unix_nano-sequence")
    return int(nano), int(sequence)


def parse_span(reply: Sequence[Any]) -> JournalSpan:
    """The span in an XINFO STREAM reply (RESP2: name, value, name, value, …). Raises WireError.

    Servers before Redis 7 do not report deletions, so any entry may have been deleted there.
    """
    try:
        named = dict(zip(reply[0::2], reply[1::2], strict=True))
        last = parse_entry_id(named[b"last-generated-id"])
        entry = named[b"first-entry"]
        first = parse_entry_id(entry[0]) if entry else (last[0] + 1, 0)
        deleted = named.get(b"max-deleted-entry-id")
        return JournalSpan(first, last, last if deleted is None else parse_entry_id(deleted))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise WireError(f"invalid reply to XINFO STREAM: {error!r}") from None


def entry_fields(entry: JournalEntry) -> tuple[bytes, ...]:
    """The entry's fields as XADD takes them: name, value, name, value, …"""
    offset = (b"p", b"%d" % entry.offset_us) if entry.encoding in VIDEO_ENCODINGS else ()
    numbered = (b"n", b"%d" % entry.number) if entry.number else ()
    timed = () if entry.camera_time_nano is None else (b"c", b"%d" % entry.camera_time_nano)
    return (
        b"s", b"%d" % entry.size,
        b"w", b"%d" % entry.width,
        b"h", b"%d" % entry.height,
        b"e", entry.encoding.encode(),
        b"k", b"1" if entry.keyframe else b"0",
        *offset,
        *numbered,
        *timed,
    )  # fmt: skip


def parse_entry(identifier: bytes, fields: Sequence[bytes]) -> JournalEntry:
    """Inverse of entry_id and entry_fields, for the flat field list of XRANGE and XREAD in RESP2.

    Unknown fields are ignored, so that a later version may add some. Raises WireError.
    """
    # One match is quicker than the checks of _parse_any, which returns the same.
    if len(fields) == _USUAL_FIELDS:
        try:
            match = _USUAL.fullmatch(b" ".join((identifier, *fields)))
        except TypeError:
            match = None
        if match:
            nano, sequence, size, width, height, encoding, keyframe, number = match.groups()
            return JournalEntry(
                int(nano), int(sequence), int(size), int(width), int(height),
                encoding.decode(), keyframe == b"1", int(number),
            )  # fmt: skip
    return _parse_any(identifier, fields)


def _parse_any(identifier: bytes, fields: Sequence[bytes]) -> JournalEntry:
    unix_nano, sequence = parse_entry_id(identifier)
    try:
        check_numbers(unix_nano, sequence)
    except WireError as error:
        raise WireError(f"journal entry {identifier!r}: {error}") from None
    number: bytes = b"0"
    offset: bytes = b"0"
    camera_time_nano: int | None = None
    if len(fields) in (14, 16) and fields[-2] == b"c":
        camera_time_nano = _camera_time(identifier, fields[-1])
        fields = fields[:-2]
    if len(fields) == 12 and fields[0::2] == _NAMES_NUMBERED:
        size, width, height, encoding, keyframe, number = fields[1::2]
    elif len(fields) == 14 and fields[0::2] == _NAMES_VIDEO:
        size, width, height, encoding, keyframe, offset, number = fields[1::2]
    else:
        try:
            named = dict(zip(fields[0::2], fields[1::2], strict=False))
            size, width, height, encoding, keyframe = (named[name] for name in _NAMES)
            number, offset = named.get(b"n", number), named.get(b"p", offset)
            if b"c" in named:
                camera_time_nano = _camera_time(identifier, named[b"c"])
        except TypeError:
            raise WireError(f"journal entry {identifier!r} is not made of byte strings") from None
        except KeyError as error:
            raise WireError(f"journal entry {identifier!r} has no field {error.args[0]!r}") from None
    for name, value in ((b"s", size), (b"w", width), (b"h", height), (b"n", number)):
        if not isinstance(value, bytes) or not value.isdigit() or len(value) > _NUMBER_DIGITS_MAX:
            raise WireError(f"journal entry {identifier!r}: field {name!r} is {repr(value)[:30]}, not a number")
    if not isinstance(offset, bytes) or not _OFFSET.fullmatch(offset):
        raise WireError(f"journal entry {identifier!r}: field {b'p'!r} is {repr(offset)[:30]}, not an offset")
    try:
        text = encoding.decode("ascii")
        offset_us = int(offset) if text in VIDEO_ENCODINGS else 0
        return JournalEntry(
            unix_nano, sequence, int(size), int(width), int(height), text, keyframe == b"1", int(number), offset_us,
            camera_time_nano,
        )  # fmt: skip
    except (UnicodeDecodeError, AttributeError) as error:
        raise WireError(f"journal entry {identifier!r}: field {b'e'!r}: {error}") from None


def _camera_time(identifier: bytes, value: object) -> int:
    if isinstance(value, bytes) and value.isdigit() and len(value) <= _CAMERA_TIME_DIGITS_MAX:
        return int(value)
    raise WireError(f"journal entry {identifier!r}: field {b'c'!r} is {repr(value)[:30]}, not a time")
