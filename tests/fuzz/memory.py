"""Targets that open shared memory which somebody else has written: rings, status pages, and what a former run left."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
from pathlib import Path

import hiredis

from engine import config
from engine.errors import FrameTooLarge, InputError, RingMismatch, WireError
from engine.shm import ring_file, site
from engine.shm.ring import Consumer, Producer
from engine.shm.ring_file import Drop
from engine.shm.status_page import TEXT_BYTES_MAX, StatusPage
from engine.wire import ring_layout as layout
from engine.wire.journal import parse_entry
from engine.wire.resp import FrameFraming, VideoFraming
from engine.wire.state import decode_status

#: Names the directory, in the environment, that a fuzzing process leaves its files to: it ends without tidying up.
PARENT = "EDGE_VIDEO_FUZZ_DIRECTORY"
CAMERA = "cam1"
NANO = 1_731_024_000_000_000_000
CAPACITY = 4096
FRAMING = FrameFraming("v", "frames", CAMERA, 60_000)
UNIT_FRAMING = VideoFraming("v", "frames", CAMERA, 60_000)
#: Rounds in which a ring must be empty: each takes a frame, or gives up all.
_ROUNDS_MAX = 200


def ring(data: bytes) -> None:
    """Patches (offset of 2 bytes, length of 1, bytes) over a ring in which four frames stand: it is refused, or goes
    on; what comes out can be stored; and counts are exact where nobody wrote over them."""
    _use(*_patched(sound_ring(), data))


def video_ring(data: bytes) -> None:
    """The same over a ring of access units: what comes out decodes, too."""
    _use(*_patched(sound_video_ring(), data))


def ring_bytes(data: bytes) -> None:
    """A ring file of any bytes is refused, or goes on."""
    _use(data, False)


def page(data: bytes) -> None:
    """A status page of any bytes is refused, or has a text and counts; a start replaces one that is refused."""
    path = _directory() / "capture cam1.status"
    _put(path, data)
    try:
        watched = StatusPage.watch(path)
    except RingMismatch:
        StatusPage.create(path)
        StatusPage.watch(path).close()
        return
    assert len(watched.text) <= TEXT_BYTES_MAX
    with contextlib.suppress(WireError):
        decode_status(watched.text)
    assert len(watched.counts.tolist()) == 64
    assert min(watched.pid, watched.started_nano, watched.heartbeat_nano, watched.restarts) >= 0
    watched.close()
    claimed = StatusPage.claim(path)
    claimed.text = b"the owner's text"
    assert claimed.text == b"the owner's text"
    claimed.close()


def leftovers(data: bytes) -> None:
    """What stands under a ring's name is adopted or named with a reason, and swept away; but frames that somebody else
    may be waiting for are refused as a whole, and stay."""
    paths = site.SitePaths.of(_site())
    _put(paths.ring(CAMERA), data)
    _put(paths.ring("cam9"), data)
    found = site.leftovers(_site())
    assert len(found) == 2
    assert all(left.fits or left.reason for left in found)
    assert [left.fits for left in found if left.path == paths.ring("cam9")] == [False]
    try:
        swept = site.sweep(_site())
    except InputError:
        assert any(left.foreign and left.held for left in found)
        assert all(left.path.exists() for left in found)
        return
    assert all(not left.fits for left in swept)


def _patched(sound: bytes, data: bytes) -> tuple[bytes, bool]:
    """A ring with patches over it, and whether its header is as it was."""
    content, exact = bytearray(sound), True
    while len(data) > 3:
        offset, length = int.from_bytes(data[:2], "little") % len(content), data[2]
        patch = data[3 : 3 + length][: len(content) - offset]
        content[offset : offset + len(patch)] = patch
        exact &= offset >= layout.HEADER_BYTES
        data = data[3 + length :]
    return bytes(content), exact


def _use(content: bytes, exact: bool) -> None:
    path = _directory() / "cam1.ring"
    _put(path, content)
    try:
        observer = ring_file.Observer(path, CAMERA)
        observer.counts()
        observer.close()
        producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
    except RingMismatch:
        return
    try:
        _work(producer, consumer, exact=exact)
    finally:
        producer.close()
        consumer.close()


def _work(producer: Producer, consumer: Consumer, *, exact: bool) -> None:
    _drain(consumer, exact)
    consumer.release_oldest(consumer.capacity // 2, Drop.OUTAGE)
    for number in range(3):
        if producer.floor_nano + 1 < 10**19:
            with contextlib.suppress(FrameTooLarge):
                _write(producer, bytes([number]) * 100, producer.floor_nano + 1)
    last = _drain(consumer, exact)[-1:]
    counts = consumer.counts()
    if exact:
        assert last == [bytes([2]) * 100]
        assert counts.captured == counts.stored + counts.dropped + counts.held, counts
        assert counts.held == counts.held_bytes == 0, counts


def _write(producer: Producer, payload: bytes, unix_nano: int) -> None:
    """A frame, or a key frame of video."""
    producer.write((payload,), max(unix_nano, NANO), 0, 640, 480, encoding=int(producer.video))


def _drain(consumer: Consumer, exact: bool) -> list[bytes]:
    """Every record that the ring returns, as it is stored. In a video ring, a key frame follows each gap."""
    found = []
    framing = UNIT_FRAMING if consumer.video else FRAMING
    expected = -1
    for _ in range(_ROUNDS_MAX):
        if not consumer.pending:
            return found
        records = consumer.poll(2**30, 3)
        for record in records:
            payload = bytes(record.payload)
            assert payload
            assert not (consumer.video and exact) or record.keyframe or record.record_index == expected
            expected = record.record_index + 1
            head = framing.before(record.unix_nano, record.sequence, len(payload))
            shape = (record.width, record.height, record.encoding, record.keyframe, 1, record.offset_us)
            reader = hiredis.Reader()
            reader.feed(head + payload + framing.after(record.unix_nano, record.sequence, len(payload), *shape))
            first, second = reader.gets(), reader.gets()
            assert first[0] == b"SET", "two commands, whole"
            assert first[2] == payload
            assert second[0] == b"XADD"
            assert len(second) == (17 if consumer.video else 15)
            parse_entry(second[2], second[3:])
            assert not reader.has_data()
            found.append(payload)
        consumer.commit(records, 10**9)
    raise AssertionError(f"frames are pending and not handed out: head={consumer.head}, tail={consumer.tail}")


@functools.cache
def sound_ring() -> bytes:
    """A ring file in which four frames stand, padding among them, after as many that were stored."""
    path = _directory() / "sound.ring"
    path.unlink(missing_ok=True)
    ring_file.create(path, CAPACITY, CAMERA, last_sequence=99_990, floor_nano=NANO)
    producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
    for number in range(12):
        producer.write((bytes([65 + number]) * (100 + 97 * number % 700),), NANO + 1 + number, 0, 640, 480)
        if number < 8:
            consumer.commit(consumer.poll(2**20, 1), 10**9)
    assert len(_peek(consumer)) == 4
    producer.close()
    consumer.close()
    return path.read_bytes()


@functools.cache
def sound_video_ring() -> bytes:
    """A ring file in which access units stand: the rest of a GOP whose beginning was given up, and a whole one."""
    path = _directory() / "sound.video.ring"
    path.unlink(missing_ok=True)
    ring_file.create(path, CAPACITY, CAMERA, last_sequence=99_990, floor_nano=NANO, video=True)
    producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
    for number in range(12):
        producer.write(
            (bytes([65 + number]) * (100 + 97 * number % 700),), NANO + 1 + number, 0, 640, 480,
            encoding=1, keyframe=number % 4 == 0, offset_us=-40_000 * number,
        )  # fmt: skip
        if number < 5:
            consumer.commit(consumer.poll(2**20, 1), 10**9)
        elif number == 5:
            consumer.release(consumer.poll(2**20, 1), Drop.OUTAGE)
    assert consumer.counts().held == 6
    producer.close()
    consumer.close()
    return path.read_bytes()


def sound_page() -> bytes:
    """A status page with a camera's state."""
    path = _directory() / "sound.status"
    path.unlink(missing_ok=True)
    claimed = StatusPage.claim(path)
    claimed.text = b'{"state":"active","width":640,"height":480}'
    claimed.close()
    return path.read_bytes()


def _peek(consumer: Consumer) -> list[int]:
    numbers = [record.record_index for record in consumer.poll(2**20, 100)]
    consumer.rewind()
    return numbers


def _put(path: Path, data: bytes) -> None:
    """A new file each time: a mapping of the last one may still stand."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, data)
    os.close(descriptor)


@functools.cache
def _directory() -> Path:
    path = Path(tempfile.mkdtemp(prefix="edge-video-t-fuzz-", dir=os.environ.get(PARENT, "/dev/shm")))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def _site() -> config.Config:
    made = config.parse(
        f"""
        site = {{ run_directory = "{_directory()}" }}
        ring = {{ capacity_mb = 1, directory = "{_directory()}" }}
        [[cameras]]
        id = "{CAMERA}"
        url = "test://"
        """.encode(),
        {},
    )
    site.SitePaths.of(made).directory.mkdir(mode=0o700)
    return made
