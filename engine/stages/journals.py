"""The publisher's view of Redis: entries not yet announced, cursors, and the cameras' states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from redis.connection import AbstractConnection
from redis.exceptions import ResponseError

from engine.errors import RedisUnavailable, ServerRefused, WireError
from engine.stages.clock import latest_floor
from engine.stages.redis_link import call, connect, demoted
from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_id, parse_entry, parse_entry_id
from engine.wire.replies import first_numbers
from engine.wire.urls import RedisAddress

#: The cursor of a camera of which nothing was ever confirmed: the journal's beginning.
BEGINNING = "0-0"


class JournalRead(NamedTuple):
    """What one look found: entries in order, by camera; the id of the last of each; entries that do not parse."""

    entries: list[tuple[str, JournalEntry]]
    last: dict[str, str]
    unreadable: int


class Journals:
    """Journals, cursors and states of one site. Every method but ``close`` connects if need be.

    All raise RedisUnavailable where Redis is away or refuses, and begin anew at the next call.
    """

    def __init__(
        self, address: RedisAddress, timeout_seconds: float, vhost: str, prefix: str, cameras: Iterable[str]
    ) -> None:
        self._address = address
        self._timeout = timeout_seconds
        self._connection: AbstractConnection | None = None
        self._streams = {keys.journal_key(vhost, prefix, camera).encode(): camera for camera in cameras}
        self._keys = {camera: stream for stream, camera in self._streams.items()}
        self._frames = {camera: keys.frame_key_prefix(vhost, prefix, camera) for camera in self._keys}
        self._cursor_key = keys.cursor_key(vhost, prefix)
        self._cameras_key = keys.cameras_key(vhost, prefix)

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def cursors(self) -> dict[str, str]:
        """Camera -> id of the last confirmed entry, BEGINNING where there is none that is an id."""
        stored = _pairs(self._call(("HGETALL", self._cursor_key))[0])
        return {camera: _cursor(stored.get(camera.encode(), b"")) for camera in self._keys}

    def save_cursors(self, cursors: Mapping[str, str]) -> None:
        """Write the cursors of some cameras."""
        self._call(("HSET", self._cursor_key, *(part for pair in cursors.items() for part in pair)))

    def read(self, after: Mapping[str, str], count: int) -> JournalRead:
        """Up to ``count`` entries of each camera behind the ids in ``after``, without waiting."""
        reply = self._call(("XREAD", "COUNT", count, "STREAMS", *(self._keys[c] for c in after), *after.values()))[0]
        entries: list[tuple[str, JournalEntry]] = []
        last: dict[str, str] = {}
        unreadable = 0
        for stream, found in reply or ():
            camera = self._streams[stream]
            for identifier, fields in found:
                try:
                    entries.append((camera, parse_entry(identifier, fields)))
                except WireError:
                    unreadable += 1
            last[camera] = found[-1][0].decode()
        return JournalRead(entries, last, unreadable)

    def newest(self) -> dict[str, str]:
        """Camera -> id of its journal's last entry, for cameras whose journal has any."""
        replies = self._call(*(("XREVRANGE", key, "+", "-", "COUNT", 1) for key in self._keys.values()))
        return {camera: reply[0][0].decode() for camera, reply in zip(self._keys, replies, strict=True) if reply}

    def missed(self, cursors: Mapping[str, str]) -> int:
        """How many frames' entries were trimmed behind the cursors before anyone read them, by their numbers.

        Numbers that were dropped before they were stored count here too: nothing tells them apart any more.
        """
        known = {camera: cursor for camera, cursor in cursors.items() if cursor != BEGINNING}
        commands: list[tuple[Any, ...]] = []
        for camera, cursor in known.items():
            commands.append(("XRANGE", self._keys[camera], cursor, cursor))
            commands.append(("XRANGE", self._keys[camera], f"({cursor}", "+", "COUNT", 1))
        replies = self._call(*commands) if commands else []
        count = 0
        for cursor, standing, following in zip(known.values(), replies[0::2], replies[1::2], strict=True):
            if not standing and following:
                first = parse_entry_id(following[0][0])[1]
                count += (first - parse_entry_id(cursor)[1] - 1) % keys.SEQUENCE_MAX
        return count

    def alive(self, frames: Iterable[tuple[str, JournalEntry]]) -> list[bool]:
        """For each frame, whether Redis still has it."""
        commands = [
            ("EXISTS", self._frames[camera] + keys.frame_key_suffix(entry.unix_nano, entry.sequence))
            for camera, entry in frames
        ]
        return [bool(reply) for reply in self._call(*commands)] if commands else []

    def states(self) -> dict[str, bytes]:
        """Camera -> its state as the writer left it, for this site's cameras."""
        stored = _pairs(self._call(("HGETALL", self._cameras_key))[0])
        return {camera: stored[camera.encode()] for camera in self._keys if camera.encode() in stored}

    def _call(self, *commands: tuple[Any, ...]) -> list[Any]:
        if self._connection is None:
            self._connection = connect(self._address, self._timeout)
        try:
            replies = call(self._address, self._connection, *commands)
        except (RedisUnavailable, ServerRefused):
            self._connection = None
            raise
        for reply in replies:
            if isinstance(reply, ResponseError):
                if self._address.sentinel and demoted(reply):
                    self.close()
                raise RedisUnavailable(f"Redis at {self._address} refuses to be read: {reply}")
        return replies


def newest_numbers(
    address: RedisAddress, connection: AbstractConnection, vhost: str, prefix: str, camera: str
) -> tuple[int, int]:
    """(unix_nano, sequence) of a journal's last entry, (0, 0) where there is none. Raises RedisUnavailable.

    Entries so far ahead of the clock that no camera wrote them are passed over.
    """
    journal = keys.journal_key(vhost, prefix, camera)
    floor = latest_floor()
    reply = call(address, connection, ("XREVRANGE", journal, floor, "-", "COUNT", 1))[0]
    numbers = first_numbers(reply)
    return numbers if numbers[0] <= floor else (0, 0)


def cursor_of(entry: JournalEntry) -> str:
    """The cursor that stands on ``entry``."""
    return entry_id(entry.unix_nano, entry.sequence)


def _cursor(stored: bytes) -> str:
    try:
        numbers = parse_entry_id(stored)
        if max(numbers) >= 2**64:
            raise WireError(f"cursor {stored!r} is beyond what a stream can hold")
        return entry_id(*numbers)
    except WireError:
        # Events that are sent twice are allowed for; a publisher that cannot begin would send none.
        return BEGINNING


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[0::2], flat[1::2], strict=True))
