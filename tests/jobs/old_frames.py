"""Frames as they stood before the engine came: under the old keys, or without a journal; and what must be true of them
after a job."""

from __future__ import annotations

import datetime
import functools
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import redis

from engine.jobs.keyspace_scan import Ears, Strange
from engine.servers.redis.session import Session
from engine.wire import keys
from engine.wire.journal import JournalEntry, parse_entry
from engine.wire.keys import FrameKey, build_frame_key, parse_frame_key
from engine.wire.redis_address import parse_redis_address
from engine.wire.test_mark import find_mark
from tests.client.stocked import pipe
from tests.servers.cluster_client import AnyServer
from tests.system.site import Site, missing_numbers
from tests.wire.pictures import encode

#: Nanoseconds of the first frame of most tests: 2024-11-08T00:00:00.123456789Z.
T0 = 1731024000123456789
PREFIX = "frames"
TTL_MS = 3_600_000
SECOND = 1_000_000_000


@functools.cache
def picture(width: int = 64, height: int = 48, header_bytes: int = 0) -> bytes:
    """A JPEG whose headers, before those that say its size, are so much longer, as thumbnails make them."""
    data = encode(width, height)
    extra = b""
    while len(extra) < header_bytes:
        body = bytes(range(256)) * 16
        extra += struct.pack(">BBH", 0xFF, 0xEC, len(body) + 2) + body
    return data[:2] + extra + data[2:]


class Old(NamedTuple):
    """A frame under its old key; ``ttl_ms`` 0 is without a lifetime. ``width`` and ``height`` are what its journal
    entry is to say."""

    name: bytes
    key: FrameKey
    payload: bytes
    ttl_ms: int = TTL_MS
    width: int = 64
    height: int = 48

    @property
    def new(self) -> bytes:
        """Its key afterwards."""
        return build_frame_key(self.key).encode()

    @property
    def entry(self) -> JournalEntry:
        """What the journal is to say of it."""
        encoding = "jpeg" if self.payload.startswith(b"\xff\xd8") else "unknown"
        return JournalEntry(
            self.key.unix_nano, self.key.sequence, len(self.payload), self.width, self.height, encoding, True
        )


def clock_text(unix_nano: int, digits: int = 9, offset_minutes: int | None = None) -> str:
    """RFC 3339 with so many digits of a fraction, in UTC as Z or at an offset."""
    seconds, nanos = divmod(unix_nano, SECOND)
    zone = datetime.timezone(datetime.timedelta(minutes=offset_minutes or 0))
    text = datetime.datetime.fromtimestamp(seconds, zone).strftime("%Y-%m-%dT%H:%M:%S")
    if digits:
        text += "." + f"{nanos:09d}"[:digits]
        assert nanos % 10 ** (9 - digits) == 0, "the text would lose nanoseconds"
    if offset_minutes is None:
        return text + "Z"
    sign = "-" if offset_minutes < 0 else "+"
    return f"{text}{sign}{abs(offset_minutes) // 60:02d}:{abs(offset_minutes) % 60:02d}"


def old(
    camera: str = "cam1",
    unix_nano: int = T0,
    sequence: int = 1,
    *,
    vhost: str = "loja",
    text: str | None = None,
    payload: bytes | None = None,
    ttl_ms: int = TTL_MS,
    size: tuple[int, int] = (64, 48),
) -> Old:
    """One frame; ``text`` is its timestamp where it is not written as Go's RFC3339Nano does."""
    name = f"{PREFIX}:{vhost}:{camera}:{text or clock_text(unix_nano)}:{sequence:05d}"
    tenant = keys.DEFAULT_VHOST if vhost in ("", "/") else vhost
    key = FrameKey(tenant, PREFIX, camera, unix_nano, sequence)
    if payload is None:
        payload = picture(*size) + f"{camera} {unix_nano}".encode()
    return Old(name.encode(), key, payload, ttl_ms, *size)


def row(camera: str, count: int, *, first: int = T0, gap: int = SECOND, **options: Any) -> list[Old]:
    """``count`` frames of a camera, each with bytes of its own."""
    return [old(camera, first + number * gap, number % 99_999 + 1, **options) for number in range(count)]


def put(client: redis.Redis, frames: Iterable[Old], *, new: bool = False) -> None:
    """Store frames under their old keys, or under the ``new`` ones, as the Go edition and the page's snippets do: no
    journal lists them."""
    pipe(
        client,
        (
            ("SET", frame.new if new else frame.name, frame.payload, *(("PX", frame.ttl_ms) if frame.ttl_ms else ()))
            for frame in frames
        ),
    )


def expiry(client: redis.Redis, names: Sequence[bytes]) -> list[int]:
    """When each key ends, in milliseconds of Redis's clock; -1 for never, -2 for a key that is not there. Unlike PTTL,
    this does not change while the test runs."""
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.pexpiretime(name)
        return pipeline.execute()


class Contents(NamedTuple):
    """A key: type, serialized value, end."""

    kind: bytes
    dump: bytes
    expiry: int


def contents(client: redis.Redis, pattern: str = "*") -> dict[bytes, Contents]:
    """Everything that a server holds, to be compared."""
    names = sorted(client.scan_iter(match=pattern, count=5000))
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.type(name)
            pipeline.dump(name)
        found = pipeline.execute()
    ends = expiry(client, names)
    return {
        name: Contents(kind, dump, end)
        for name, kind, dump, end in zip(names, found[0::2], found[1::2], ends, strict=True)
        if dump is not None
    }


def listed(client: redis.Redis, vhost: str, camera: str, prefix: str = PREFIX) -> list[JournalEntry]:
    """A camera's journal."""
    entries = client.xrange(keys.journal_key(vhost, prefix, camera))
    return [
        parse_entry(identifier, [word for pair in fields.items() for word in pair]) for identifier, fields in entries
    ]


def assert_in_place(client: redis.Redis, frames: Sequence[Old], ends: Sequence[int]) -> None:
    """Every frame stands under its new key with its bytes and its ``ends``, its camera's journal says so and outlives
    it, the camera is listed, and nothing is left under an old key."""
    names = [frame.new for frame in frames]
    found = expiry(client, names)
    assert found == list(ends), [each for each in zip(names, found, ends, strict=True) if each[1] != each[2]][:5]
    assert client.mget(names) == [frame.payload for frame in frames]
    before = [frame.name for frame in frames if frame.name != frame.new]
    assert not before or not client.exists(*before)
    cameras: dict[tuple[str, str], list[tuple[Old, int]]] = {}
    for frame, end in zip(frames, ends, strict=True):
        cameras.setdefault((frame.key.vhost, frame.key.camera), []).append((frame, end))
    for (vhost, camera), some in cameras.items():
        entries = listed(client, vhost, camera)
        assert entries == sorted(entries, key=lambda entry: (entry.unix_nano, entry.sequence))
        assert {frame.entry for frame, _ in some} <= set(entries)
        (journal_end,) = expiry(client, [keys.journal_key(vhost, PREFIX, camera).encode()])
        # Its lifetime is given anew, in whole milliseconds, and so may end some milliseconds from the frame's end.
        assert journal_end == -1 or all(0 < end <= journal_end + 50 for _, end in some)
        assert client.hexists(keys.cameras_key(vhost, PREFIX), camera)


def assert_journals_agree(client: redis.Redis, vhost: str, cameras: Iterable[str]) -> None:
    """Every frame of a tenant is listed in its journal, and every entry has its frame."""
    found = [parse_frame_key(name) for name in client.scan_iter(match=f"{vhost}:{PREFIX}:*", count=5000)]
    for camera in cameras:
        frames = sorted((key.unix_nano, key.sequence) for key in found if key.camera == camera)
        assert [(entry.unix_nano, entry.sequence) for entry in listed(client, vhost, camera)] == frames, camera


def drafts(client: redis.Redis) -> list[bytes]:
    """Journals that are being made anew, or that a killed job has left half made."""
    return list(client.scan_iter(match="engine:*:rebuild:*", count=100_000, _type="stream"))


def assert_drafts_expire(client: redis.Redis) -> None:
    """What a killed job has left half made ends by itself, soon; and so do notes of jobs to each other."""
    assert all(client.pttl(draft) <= 60_000 for draft in drafts(client))
    assert -1 not in expiry(client, client.keys("engine:*:rebuild:*"))


def assert_site_unharmed(site: Site, client: redis.Redis, vhost: str, *, but: Sequence[str] = ()) -> None:
    """A site that was stopped has lost nothing: of every camera but some each number is there, listed, and with the
    picture that was captured. What else stands under its cameras' keys carries no stamp."""
    assert "journal entry refused" not in site.log_text()
    cameras = {camera.id for camera in site.config.cameras} - set(but)
    own: dict[str, list[FrameKey]] = {camera: [] for camera in cameras}
    for raw in client.scan_iter(match=f"{vhost}:{PREFIX}:*", count=5000):
        key = parse_frame_key(raw)
        if key.camera in cameras and b"edge-video frame=" in (payload := client.get(raw)):
            stamp = find_mark(payload)
            assert (stamp.camera, stamp.frame, stamp.unix_nano) == (key.camera, key.sequence, key.unix_nano)
            own[key.camera].append(key)
    for camera, found in own.items():
        found.sort(key=lambda key: key.unix_nano)
        assert found, camera
        assert not missing_numbers([key.sequence for key in found]), camera
        entries = {(entry.unix_nano, entry.sequence) for entry in listed(client, vhost, camera)}
        assert {(key.unix_nano, key.sequence) for key in found} <= entries, camera


def ears() -> tuple[Ears, list[Strange]]:
    """Ears, and the list that fills with what they hear of."""
    strange: list[Strange] = []
    return Ears(strange=strange.append), strange


def session(server: AnyServer) -> Session:
    """A job's connection."""
    return Session(parse_redis_address(server.url), 20.0, checks_mode=True)
