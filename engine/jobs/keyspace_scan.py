"""Finds frames and access units that journals may not list, by a step-by-step scan of the keyspace, and reads the data
that a journal would list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from engine.errors import WireError
from engine.servers.redis.errors import Command
from engine.servers.redis.session import Session, batches, is_error
from engine.wire import jpeg
from engine.wire.journal import JournalEntry
from engine.wire.keys import FrameKey
from engine.wire.stored_unit import describe_unit

#: Keys held at a time; each camera's journal is rebuilt once for each such part.
PART_MAX = 50_000
#: Keys examined in one round trip.
_LOOK_MAX = 100
#: Bytes of a JPEG or access unit that tell what it is in almost every case, and if there are large comments, thumbnails
#: or SEI messages.
_HEAD_BYTES = 1024
_LONG_HEAD_BYTES = 256 * 1024


class Strange(NamedTuple):
    """A key that a job leaves alone, and the reason."""

    key: str
    reason: str


class Ears(NamedTuple):
    """Callbacks of a job: ``step`` after each step of its scan, ``strange`` for each key that it leaves alone."""

    step: Callable[[], None] = lambda: None
    strange: Callable[[Strange], None] = lambda _: None

    def leave(self, name: bytes, reason: str) -> None:
        """Report a key that is left alone."""
        self.strange(Strange(name.decode("utf-8", "backslashreplace"), reason))


#: Keys of one camera, as they are in Redis, and the frames that they name.
Named = list[tuple[bytes, FrameKey]]


class Stored(NamedTuple):
    """A frame or access unit by its key in Redis, as a journal would list it; ``ttl_ms`` is WITHOUT_TTL if it has
    none."""

    name: bytes
    key: FrameKey
    entry: JournalEntry
    ttl_ms: int

    @property
    def identifier(self) -> tuple[int, int]:
        """Its journal id."""
        return self.key.unix_nano, self.key.sequence


def scan_frames(
    session: Session, pattern: str, parse: Callable[[bytes], FrameKey | None], ears: Ears
) -> Iterator[dict[tuple[str, str], Named]]:
    """Matching keys in parts, by (vhost, camera). ``parse`` returns None for keys to ignore, and raises WireError for
    keys to report."""
    part: dict[bytes, FrameKey] = {}
    for found in session.scan(pattern):
        for name in found:
            try:
                key = parse(name)
            except WireError as error:
                ears.leave(name, str(error))
                continue
            if key is not None:
                part[name] = key
        ears.step()
        if len(part) >= PART_MAX:
            yield _by_camera(part)
            part = {}
    if part:
        yield _by_camera(part)


def _by_camera(part: dict[bytes, FrameKey]) -> dict[tuple[str, str], Named]:
    cameras: dict[tuple[str, str], Named] = {}
    for name, key in part.items():
        cameras.setdefault((key.vhost, key.camera), []).append((name, key))
    return cameras


def look_at(session: Session, named: Named, ears: Ears, *, video: bool = False) -> tuple[list[Stored], Named]:
    """The frames of some keys, or with ``video`` the access units, and the keys that are gone. Reports keys that hold
    neither. Raises RedisUnavailable."""
    stored: list[Stored] = []
    gone: Named = []
    for part in batches(named, _LOOK_MAX):
        _look(session, part, ears, stored, gone, _describe_unit if video else _describe_frame)
    return stored, gone


def _look(
    session: Session,
    named: Sequence[tuple[bytes, FrameKey]],
    ears: Ears,
    stored: list[Stored],
    gone: Named,
    describe: Callable[[bytes], _Shape],
) -> None:
    commands: list[Command] = []
    for name, _ in named:
        commands += [("PTTL", name), ("STRLEN", name), ("GETRANGE", name, 0, _HEAD_BYTES - 1)]
    replies = session.try_call(*commands)
    for number, (name, key) in enumerate(named):
        ttl_ms, size, head = replies[3 * number : 3 * number + 3]
        if is_error(size) and "wrong kind of value" in str(size):
            ears.leave(name, "holds no string")
            continue
        session.check(commands[3 * number : 3 * number + 3], [ttl_ms, size, head])
        if ttl_ms == -2:
            gone.append((name, key))
        else:
            shape = describe(head)
            if not shape.whole and size > _HEAD_BYTES:
                (head,) = session.call(("GETRANGE", name, 0, _LONG_HEAD_BYTES - 1))
                shape = describe(head)
            if not shape.encoding:
                ears.leave(name, "holds no access unit of H.264 or H.265")
                continue
            entry = JournalEntry(
                key.unix_nano, key.sequence, size, shape.width, shape.height, shape.encoding, shape.keyframe
            )
            stored.append(Stored(name, key, entry, ttl_ms))


class _Shape(NamedTuple):
    """What a payload's beginning tells. ``whole``: more of it would tell no more. ``encoding`` is empty if the payload
    may not be listed."""

    encoding: str
    width: int
    height: int
    keyframe: bool
    whole: bool


def _describe_frame(head: bytes) -> _Shape:
    width, height, encoding = jpeg.describe(head)
    return _Shape(encoding, width, height, True, bool(width) or encoding != "jpeg")


def _describe_unit(head: bytes) -> _Shape:
    unit = describe_unit(head)
    return (
        _Shape(unit.encoding, unit.width, unit.height, unit.keyframe, True) if unit else _Shape("", 0, 0, False, False)
    )
