"""Valid inputs to begin with, a list a target: what mutations and the fuzzer start from."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2

from engine.wire import jpeg, keys, metadata
from engine.wire import ring_layout as layout
from engine.wire import test_mark as stamp
from engine.wire.journal import JournalEntry
from tests.fuzz import memory, stored_video, video
from tests.fuzz.pictures import PACKET
from tests.fuzz.replies import CURSOR, NANO
from tests.wire.pictures import encode

_ENTRY_ID = f"{NANO + 1}-1".encode()
_FIELDS = (b"s", b"7", b"w", b"640", b"h", b"480", b"e", b"jpeg", b"k", b"1")
_ROOT = Path(__file__).parents[2]


def resp(value: object) -> bytes:
    """A reply in RESP2."""
    if isinstance(value, list | tuple):
        return b"*%d\r\n" % len(value) + b"".join(map(resp, value))
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    return b"$-1\r\n"


def _transaction(frames: int, others: int) -> bytes:
    queued = b"+OK\r\n" + b"+QUEUED\r\n" * (2 * frames + others)
    results = b"+OK\r\n" + resp(_ENTRY_ID)
    return queued + b"*%d\r\n" % (2 * frames + others) + results * frames + b":1\r\n" * others


def _pictures() -> list[bytes]:
    return [encode(32, 24), encode(48, 32, cv2.IMWRITE_JPEG_QUALITY, 30, seed=3), encode(16, 16, gray=True)]


def _without_tables(picture: bytes) -> bytes:
    at = picture.index(b"\xff\xc4")
    return picture[:at] + picture[jpeg.inspect(picture).scan :]


def _stamped(picture: bytes) -> bytes:
    text = stamp.build_mark(stamp.FrameMark("cam: 1%", 42, NANO))
    return picture[:2] + jpeg.comment_segment(text) + picture[2:]


def _multipart(pictures: list[bytes]) -> bytes:
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n"
    return b"".join(part % (len(picture), picture) for picture in pictures)


def _events() -> list[bytes]:
    entry = JournalEntry(NANO + 1, 1, 7, 640, 480, "jpeg", True)
    event = metadata.FrameEvents("v", "frames", "cam1", 60).event(entry)
    unit = JournalEntry(NANO + 1, 1, 7, 640, 480, "h264", True)
    gop = metadata.GopEvents("v", "frames", "cam1", 60).event(metadata.Gop(unit, unit, 1, 7, NANO + 2))
    status = metadata.StatusEvent("cam1", "2024-11-08T00:00:00.000000000Z", NANO, "offline", 3, "away")
    return [
        metadata.encode_event(event),
        metadata.encode_event(status),
        metadata.encode_event(gop),
        b'[{"event_type":"later","width":"x"},%b]' % metadata.encode_event(gop),
        metadata.encode_batch([event, event]),
        b'{"camera_id":"c","timestamp":"2024-11-08T14:30:00.5+01:00","timestamp_nano":%d,"sequence":"3","vhost":"/",'
        b'"frame_size_bytes":9}' % NANO,
        b'{"camera_id":"c","timestamp_nano":' + b"9" * 4400 + b"}",
        b'{"camera_id":"\\ud800","redis_key":"v:frames:c:%d:00001"}' % NANO,
    ]


def _patches(ring: bytes) -> list[bytes]:
    """Noise over one field of one of the records that stand in a ring."""
    starts = [at for at in range(layout.HEADER_BYTES, len(ring), layout.ALIGN) if ring[at : at + 4] == b"FRAM"]
    # The record's kind, size, stamp, number, encoding, flags, count, and the offset of a unit.
    fields = ((0, 4), (4, 4), (8, 8), (16, 4), (28, 2), (30, 2), (32, 8), (48, 8))
    return [
        (start + offset).to_bytes(2, "little") + bytes([length]) + byte * length
        for start in starts
        for offset, length in fields
        for byte in (b"\xff", b"\0", b"\1")
    ]


def _readings() -> list[bytes]:
    """Sound answers, one of them for each of the reader's queries."""
    page = resp([[_ENTRY_ID, _FIELDS]])
    state = (b"cam1", b'{"state":"active"}')
    newest = b":1\r\n"
    answers = (
        page + resp([b"payload"]),
        page + resp([b"payload"]),
        page + newest,
        resp([b"cam1"]) + page + resp([[b"engine:v:journal:frames:cam1", [[_ENTRY_ID, _FIELDS]]]]) + resp([b"payload"]),
        resp([]) + newest + resp([[b"engine:v:journal:frames:cam1", [[_ENTRY_ID, _FIELDS]]]]) + newest,
        resp([b"payload", None]) + page + resp([]),
        resp(state),
        page + resp([b"cam1"]) + resp([b"payload"]),
        resp([]) + resp([b"cam1"]) + b":0\r\n",
        page + newest,
        resp(state) + page + b":5000\r\n",
    )
    return [bytes([number]) + answer for number, answer in enumerate(answers)]


def _publishing() -> list[bytes]:
    page = resp([[_ENTRY_ID, _FIELDS]])
    stream = resp([[b"engine:v:journal:frames:cam1", [[_ENTRY_ID, _FIELDS], [_ENTRY_ID, (b"x", b"y")]]]])
    cursors = resp([b"cam1", CURSOR.encode()])
    answers = cursors + stream + page + resp([]) + resp([]) + page + b":1\r\n" + resp([b"cam1", b"{}"]) + b":1\r\n"
    first = [b"\0" + answers, b"\1" + stream, b"\2" + page + resp([]), b"\3" + resp([]) + page]
    return [*first, b"\5" + cursors, b"\6" + page]


@functools.cache
def seeds(target: str) -> list[bytes]:
    """Valid inputs of a target, and some that are wrong in a way that is hard to find by chance."""
    small = _pictures()
    bare = [_without_tables(picture) for picture in small]
    queued = _transaction(2, 2) + _transaction(2, 2) + resp([[_ENTRY_ID, _FIELDS]])
    sites = sorted((_ROOT / "profiles").glob("*.toml"))
    ring = memory.sound_ring()
    made: dict[str, list[bytes]] = {
        "access_units": video.packet_seeds(),
        "address": [b"rtsp://u:p@10.0.0.1:554/a?user=b&password=c", b"test://?size=64x48&fps=5&kb=2&frames=3",
                    b"rediss://u:p@h:6380/2", b"unix:///run/r.sock?db=1", b"amqp://u:p@h:5672/v", b"/dev/video0",
                    b"http://[::1]:80/a", b"redis://h/" + b"9" * 4400, b"1280x720"],
        "camera_state": [b'{"state":"active","timestamp_nano":5,"last_error":"x","mode":"transcode","width":640}',
                         b'{"timestamp_nano":' + b"9" * 4400 + b"}", b"[" * 2000],
        "decoder": stored_video.unit_seeds(),
        "film": stored_video.unit_seeds(),
        "header_walk": [*small, *bare],
        "journal_entry": [b"\n".join([_ENTRY_ID, *more, *_FIELDS]) for more in ((), (b"v", b"2"), (b"p", b"-40000"))],
        "key": [f"v:frames:cam%3A1:{NANO}:00042".encode(), b"engine:v:cameras:frames", b"amqp://h/v%2Fw",
                f"engine:v:video:a%2Fb/cam%3A1:{NANO}:00042".encode()],
        "leftovers": [ring[:size] for size in (0, 100, 4096, len(ring))],
        "message": _events(),
        "moment": [b"-30s", b"1.5h", b"2024-11-08T14:30:60.123456789+05:30", str(NANO).encode(), b"now", b"9" * 4400],
        "multipart": [
            b"\3\0\7\xff" + _multipart(small * 2),
            b"\0" + _multipart(small).replace(b"Content-Length", b"X") + b"--frame--",
            b"\2\x30\x10" + _multipart([bare[0], small[0][:-9], small[1]]).replace(b"\r\n", b"\n"),
        ],
        "old_key": [b"frames:v:cam:1:2024-11-08T14:30:00.5Z:00042", f"a b:frames:c:d:{NANO}:00001".encode()],
        "packets": [PACKET.join([small[0], small[0], small[1], bare[0]]), PACKET.join([small[0], small[0][:-9]])],
        "picture_stamp": [_stamped(picture) for picture in small],
        "publisher": _publishing(),
        "reader": _readings(),
        "ring": [b"", b"\x80\x00\x08" + b"\x40" + b"\0" * 7, *_patches(ring)],
        "ring_bytes": [ring],
        "site_file": [b'[[cameras]]\nid = "c"\nurl = "test://?kb=9"\n', *(path.read_bytes() for path in sites)],
        "status_page": [memory.sound_page()],
        "stream": [_multipart(small[:2] * 4), b"".join(small[:1] * 8), small[0]],
        "video_file": video.file_seeds(),
        "video_reader": stored_video.reply_seeds(resp),
        "video_ring": [b"", *_patches(memory.sound_video_ring())],
        "writer": [queued, b"-LOADING Redis is loading\r\n" * 6 + b"-ERR EXEC without MULTI\r\n", b"*1\r\n" * 12,
                   b"%1\r\n*0\r\n:1\r\n"],
    }  # fmt: skip
    assert made.keys() >= {target}, target
    return made[target]


def dictionary(target: str) -> list[bytes]:
    """Words that an input of a target is made of."""
    if target in ("decoder", "film"):
        return [
            stored_video.UNIT,
            b"\0\0\1",
            b"\0\0\0\1",
            b"\0\0\3",
            b"\x67",
            b"\x68",
            b"\x65",
            b"\x41",
            b"\x40\1",
            b"\x26\1",
        ]
    if target in ("writer", "publisher", "reader", "video_reader"):
        return [b"+QUEUED\r\n", b"+OK\r\n", b"*0\r\n", b"*-1\r\n", b"$-1\r\n", b"*2\r\n", b":0\r\n", b"-ERR x\r\n",
                resp(_ENTRY_ID), resp(_FIELDS), resp([[_ENTRY_ID, _FIELDS]]),
                resp(b"engine:v:journal:frames:cam1")]  # fmt: skip
    if target in ("header_walk", "packets", "multipart", "picture_stamp", "stream"):
        return [b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xc4", b"\xff\xc0", b"\xff\xfe", PACKET, b"--frame\r\n"]
    if target in ("access_units", "video_file"):
        return [
            b"\0\0\1",
            b"\0\0\0\1\x67",
            b"\0\0\1\x68",
            b"\0\0\1\x65\xb8",
            b"\0\0\1\x41",
            b"\0\0\3",
            b"\0\0\1\x26\1",
            PACKET,
        ]
    if target == "site_file":
        return [b"[[cameras]]\n", b"[redis]\n", b"[ring]\n", b"\nurl = ", b"\nid = ", b"\\u0000", b"run_directory"]
    return [b"%3A", str(NANO).encode(), keys.ENGINE.encode(), b"9" * 20]
