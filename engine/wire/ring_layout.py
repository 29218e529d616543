"""Layout of a ring file, version 2.

    0     header page (4096 bytes)
            0     magic, version, capacity, generation, area size, first record's index, former ring's generation, kind;
                  written once, when the file is made
            128   producer's line:  head, sequence and time stamp of the last frame, and the next value of head
            256   producer's counts: captured, bytes, drops by reason
            384   consumer's line:  tail, floor of time stamps, longest latency in microseconds, gap, sum of latencies
                                    in microseconds, entries before it
            512   consumer's counts: stored, bytes, drops by reason, bytes lost
            640   consumer's intent: the values after the commit in progress
            1024  camera's name: length, UTF-8
            1536  owner of its frames: length, UTF-8 (engine/wire/ring_owner.py)
            2048  consumer's latency histogram, 128 counts
    4096  consumer's ledger: the frames that Redis must still have (engine/wire/ledger_layout.py)
    8192  byte ring: records, each a 64-byte header and the payload, padded to 64

Records are frames, or access units of video. ``kind`` in the first line says which (STREAM_FRAMES, STREAM_VIDEO).

The count of stored frames never falls: frames that Redis has lost since are counted separately.

All numbers are little-endian. Words have 64 bits and lie at multiples of 8, so that one store writes one word. Lines
are 128 bytes apart, because adjacent-line prefetch makes two neighbouring 64-byte lines one unit of contention on x86.

Cursors count bytes since the file was made and never wrap; a position in the ring is ``cursor % area``. The area is 128
bytes larger than the capacity, so that a frame of half the capacity fits wherever the head is: the frame must be
contiguous, so up to one record less 64 bytes may be lost to padding before it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from engine.errors import RingMismatch
from engine.wire.journal import CAMERA_TIME_NANO_END, ENCODINGS, OFFSET_US_END
from engine.wire.keys import SEQUENCE_MAX, UNIX_NANO_DIGITS
from engine.wire.ring_owner import OWNER_BYTES_MAX

MAGIC = int.from_bytes(b"EVRING\r\n", "little")
VERSION = 2
HEADER_BYTES = 8192
#: Records and payloads begin at multiples of this: one cache line.
ALIGN = 64
RECORD_HEADER_BYTES = 64
#: Room for a name's UTF-8 bytes in the header.
CAMERA_BYTES_MAX = 510
CAMERA_OFFSET = 1024
OWNER_OFFSET = 1536
HISTOGRAM_WORD = 2048 // 8
HISTOGRAM_BUCKETS = 128
#: The consumer's ledger begins here and ends with the header.
LEDGER_WORD = 4096 // 8

#: Indexes of 64-bit words in the header page.
W_MAGIC, W_VERSION, W_CAPACITY, W_GENERATION, W_AREA, W_FIRST_RECORD, W_FORMER, W_KIND = range(8)
W_HEAD, W_FIRST_SEQUENCE, W_LAST_NANO, W_RECORDS, W_NEXT_HEAD, W_NEXT_RECORDS = range(16, 22)
W_CAPTURED, W_CAPTURED_BYTES, W_RING_FULL, W_TOO_LARGE, W_CORRUPT, W_INTERRUPTED, W_LARGEST, W_BROKEN_GOP = range(
    32, 40
)
W_TAIL, W_FLOOR_NANO, W_LATENCY_MAX = range(48, 51)
#: Video: the index of the record before which at least one was given up; it is stored only if it is a key frame.
W_GAP = 51
#: The sum of the latencies that the histogram counts, in microseconds.
W_LATENCY_SUM = 52
#: Entries of the camera's journal that were written before this ring was made, plus 1; 0 until the writer has asked.
W_ENTRIES_BEFORE = 62
W_STORED, W_STORED_BYTES, W_OUTAGE, W_REFUSED, W_DAMAGED, W_LOST, W_LOST_BYTES, W_CUT_GOP = range(64, 72)
W_INTENT_TAIL, W_INTENT_WORD, W_INTENT_COUNT, W_INTENT_BYTES = range(80, 84)
W_INTENT_FROM, W_INTENT_FROM_COUNT, W_INTENT_LEDGER = range(84, 87)

#: Words that hold time stamps; all others between the header's first line and the name are counts and cursors.
_STAMPS = (W_LAST_NANO, W_FLOOR_NANO)
#: Counts and cursors of a valid ring are far below this; beyond it, sums would exceed 64 bits.
_COUNT_MAX = 2**62

#: The range of time stamps with as many digits as a key's.
_NANO_MIN, _NANO_END = 10 ** (UNIX_NANO_DIGITS - 1), 10**UNIX_NANO_DIGITS

KIND_FRAME = 0x4D415246  # "FRAM"
KIND_PADDING = 0x20444150  # "PAD "
FLAG_KEYFRAME = 1
#: The record has a camera time. Without it, the place of the camera time holds anything.
FLAG_CAMERA_TIME = 2

#: What a ring's records are.
STREAM_FRAMES, STREAM_VIDEO = range(2)

_RECORD = struct.Struct("<IIQIIIHHQQ")
#: Behind it, in the records of a video ring: the presentation time, in microseconds after the time stamp.
_OFFSET = struct.Struct("<q")
#: Behind both, in records that have it: the capture time by the camera's clock, in nanoseconds UTC.
_CAMERA_TIME = struct.Struct("<Q")
assert _RECORD.size + _OFFSET.size + _CAMERA_TIME.size <= RECORD_HEADER_BYTES


class RecordHeader(NamedTuple):
    """The header before a payload. ``size`` is in bytes (for padding: of everything after the header). Time stamps are
    in nanoseconds (``unix_nano`` UTC, ``monotonic`` of this machine's clock). ``record_index`` counts the ring's frames
    from 0."""

    kind: int
    size: int
    unix_nano: int
    sequence: int
    width: int
    height: int
    encoding: int
    flags: int
    record_index: int
    monotonic: int


#: ``pack_record(buffer, offset, *fields)`` writes a record's header, ``unpack_record(buffer, offset)`` reads it. They
#: use plain fields in the order of RecordHeader, because the data path makes no object for a header.
pack_record = _RECORD.pack_into
unpack_record = _RECORD.unpack_from


def pack_offset(buffer: memoryview, position: int, offset_us: int) -> None:
    """Write the presentation offset of the record at ``position``, in a video ring."""
    _OFFSET.pack_into(buffer, position + _RECORD.size, offset_us)


def unpack_offset(buffer: memoryview, position: int) -> int:
    """The presentation offset of the record at ``position``, in microseconds."""
    offset: int = _OFFSET.unpack_from(buffer, position + _RECORD.size)[0]
    return offset


def pack_camera_time(buffer: memoryview, position: int, camera_time_nano: int) -> None:
    """Write the camera time of the record at ``position``."""
    _CAMERA_TIME.pack_into(buffer, position + _RECORD.size + _OFFSET.size, camera_time_nano)


def unpack_camera_time(buffer: memoryview, position: int) -> int:
    """The camera time of the record at ``position``, in nanoseconds UTC; 0 if a journal entry cannot have it."""
    nano: int = _CAMERA_TIME.unpack_from(buffer, position + _RECORD.size + _OFFSET.size)[0]
    return nano if nano < CAMERA_TIME_NANO_END else 0


def storable(unix_nano: int, sequence: int) -> bool:
    """True for numbers that a key can hold."""
    return _NANO_MIN <= unix_nano < _NANO_END and 0 < sequence <= SEQUENCE_MAX


def describable(encoding: int, offset_us: int) -> bool:
    """True for an encoding and an offset that a journal entry of video can have."""
    return 0 < encoding < len(ENCODINGS) and abs(offset_us) < OFFSET_US_END


def record_bytes(payload: int) -> int:
    """Bytes of the ring that a payload occupies with its header and padding."""
    return RECORD_HEADER_BYTES + (payload + ALIGN - 1) // ALIGN * ALIGN


def area_bytes(capacity: int) -> int:
    """Bytes of the byte ring for a capacity (a multiple of 64)."""
    return capacity + 2 * ALIGN


def file_bytes(capacity: int) -> int:
    """Bytes of the whole file for a capacity."""
    return HEADER_BYTES + area_bytes(capacity)


def payload_max(capacity: int) -> int:
    """The largest frame that always fits, in bytes: half the capacity."""
    return capacity // 2


def write_identity(
    page: memoryview,
    words: memoryview,
    capacity: int,
    generation: int,
    camera: str,
    owner: bytes = b"",
    kind: int = STREAM_FRAMES,
) -> None:
    """Fill a zeroed header page; the magic is written last, so a file without it was never finished."""
    name = camera.encode()
    if len(name) > CAMERA_BYTES_MAX:
        raise RingMismatch(f"camera name of {len(name)} bytes; at most {CAMERA_BYTES_MAX}")
    for offset, text in ((CAMERA_OFFSET, name), (OWNER_OFFSET, owner)):
        page[offset : offset + 2] = len(text).to_bytes(2, "little")
        page[offset + 2 : offset + 2 + len(text)] = text
    words[W_VERSION] = VERSION
    words[W_CAPACITY] = capacity
    words[W_GENERATION] = generation
    words[W_AREA] = area_bytes(capacity)
    words[W_KIND] = kind
    words[W_MAGIC] = MAGIC


def camera_of(page: memoryview, words: memoryview) -> str:
    """The camera that a header page names. Raises RingMismatch for anything but a ring of this version."""
    if words[W_MAGIC] != MAGIC:
        raise RingMismatch("it is no ring file, or was never finished")
    if words[W_VERSION] != VERSION:
        raise RingMismatch(f"its layout is version {words[W_VERSION]}, this engine reads {VERSION}")
    try:
        return _text(page, CAMERA_OFFSET, CAMERA_BYTES_MAX).decode()
    except UnicodeDecodeError:
        raise RingMismatch("its camera name is damaged") from None


def is_video(words: memoryview) -> bool:
    """True for the header of a ring whose records are access units."""
    return bool(words[W_KIND] == STREAM_VIDEO)


def owner_of(page: memoryview) -> bytes:
    """The owner of a ring's frames, as built by ``ring_owner``; empty if none was given."""
    return _text(page, OWNER_OFFSET, OWNER_BYTES_MAX)


def _text(page: memoryview, offset: int, bytes_max: int) -> bytes:
    length = int.from_bytes(page[offset : offset + 2], "little")
    return bytes(page[offset + 2 : offset + 2 + min(length, bytes_max)])


def check_identity(page: memoryview, words: memoryview, file_size: int) -> tuple[int, str]:
    """(capacity, camera) of a header page. Raises RingMismatch that says what is invalid."""
    camera = camera_of(page, words)
    capacity = words[W_CAPACITY]
    if words[W_AREA] != area_bytes(capacity) or file_size != file_bytes(capacity) or capacity % ALIGN or not capacity:
        raise RingMismatch(f"its size is {file_size} bytes, its capacity {capacity} asks for {file_bytes(capacity)}")
    lines = words[W_HEAD : CAMERA_OFFSET // 8].tolist()
    stamps = [lines[word - W_HEAD] for word in _STAMPS]
    if max(stamps) >= _NANO_END:
        raise RingMismatch(f"its time stamps are damaged: {max(stamps)} is beyond what a key can hold")
    for word in _STAMPS:
        lines[word - W_HEAD] = 0
    if max(words[W_FIRST_RECORD], *lines, *words[HISTOGRAM_WORD : HISTOGRAM_WORD + HISTOGRAM_BUCKETS]) > _COUNT_MAX:
        raise RingMismatch("its counts are damaged")
    head, tail = words[W_HEAD], words[W_TAIL]
    if not tail <= head <= tail + words[W_AREA] or head % ALIGN or tail % ALIGN:
        raise RingMismatch(f"its cursors are damaged: head={head}, tail={tail}, area={words[W_AREA]}")
    return capacity, camera
