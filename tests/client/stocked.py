"""A Redis stocked with frames as the engine's writer stores them, and both stores behind one blocking face."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import redis

from engine import AsyncFrameStore, Frame, FrameStore
from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_fields, entry_id
from engine.wire.state import CameraStatus, encode_status
from tests.servers.cluster_client import ClusterClient

VHOST = "loja"
PREFIX = "frames"
TTL_MS = 300_000
WIDTH, HEIGHT = 64, 48
STATUS = CameraStatus("active", 1731024000123456789, codec="MJPG", mode="passthrough", width=WIDTH, height=HEIGHT)
#: Nanoseconds of the first frame of most tests.
T0 = 1731024000123456789
#: Commands of one round trip.
_PIPELINE = 2000


class Stored(NamedTuple):
    """A frame and its journal entry; of one that is not ``there`` only the entry stands."""

    camera: str
    unix_nano: int
    sequence: int
    payload: bytes
    there: bool = True


def stock(
    client: redis.Redis | ClusterClient,
    frames: Iterable[Stored],
    *,
    vhost: str = VHOST,
    prefix: str = PREFIX,
    cameras: Mapping[str, CameraStatus] | None = None,
) -> None:
    """Store ``frames``, which are in order within a camera. ``cameras`` are listed in the cameras hash; None: those of
    the frames."""
    listed: dict[str, CameraStatus] = dict(cameras or {})
    names: dict[str, tuple[str, str]] = {}

    def commands() -> Iterator[tuple[Any, ...]]:
        for camera, unix_nano, sequence, payload, there in frames:
            if camera not in names:
                key_prefix = keys.frame_key_prefix(vhost, prefix, camera)
                names[camera] = key_prefix, keys.journal_key(vhost, prefix, camera)
                if cameras is None:
                    listed[camera] = STATUS
            key_prefix, journal = names[camera]
            if there:
                key = key_prefix + keys.frame_key_suffix(unix_nano, sequence)
                yield "SET", key, payload, "PX", TTL_MS
            entry = JournalEntry(unix_nano, sequence, len(payload), WIDTH, HEIGHT, "jpeg", True)
            yield "XADD", journal, entry_id(unix_nano, sequence), *entry_fields(entry)
        for _, journal in names.values():
            yield "PEXPIRE", journal, TTL_MS
        for camera, status in listed.items():
            yield "HSET", keys.cameras_key(vhost, prefix), camera, encode_status(status)

    pipe(client, commands())


def pipe(client: redis.Redis | ClusterClient, commands: Iterable[tuple[Any, ...]]) -> None:
    """Run many commands, a few round trips in all; none may fail. redis-py's pipeline takes four times as long."""
    if isinstance(client, ClusterClient):
        client.pipe(commands)
        return
    connection: Any = client.connection_pool.get_connection()
    todo = iter(commands)
    try:
        while part := list(itertools.islice(todo, _PIPELINE)):
            connection.send_packed_command(connection.pack_commands(part))
            for _ in part:
                connection.read_response()
    finally:
        client.connection_pool.release(connection)


def row(camera: str, count: int, *, first: int = T0, gap: int = 1_000_000_000, size: int = 0) -> list[Stored]:
    """``count`` frames of a camera, ``gap`` nanoseconds apart, each with a payload of its own of ``size`` bytes or
    more."""
    return [
        Stored(camera, first + number * gap, number + 1, f"{camera} {number + 1}".encode().ljust(size, b"."))
        for number in range(count)
    ]


def frame(stored: Stored, vhost: str = VHOST, prefix: str = PREFIX) -> Frame:
    """What a reader is to get of a stored frame."""
    camera, unix_nano, sequence, payload, _ = stored
    size = len(payload)
    return Frame(vhost, prefix, camera, unix_nano, sequence, size, WIDTH, HEIGHT, "jpeg", True, payload)


class AwaitedItems:
    """The iterator of an AsyncFrameStore, waited for."""

    def __init__(self, items: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._items = items
        self._loop = loop

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self._loop.run_until_complete(self._items.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def poll(self) -> Any:
        return self._loop.run_until_complete(self._items.poll())

    def close(self) -> None:
        self._loop.run_until_complete(self._items.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._items, name)


class AwaitedStore:
    """An AsyncFrameStore with an event loop of its own and FrameStore's methods."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.store = AsyncFrameStore(*args, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.close()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.store, name)
        return self._waiting(value) if callable(value) else value

    def _waiting(self, method: Any) -> Any:
        def ask(*args: Any, **options: Any) -> Any:
            answer = method(*args, **options)
            if asyncio.iscoroutine(answer):
                return self.loop.run_until_complete(answer)
            return AwaitedItems(answer, self.loop)

        return ask


#: Both stores, for tests that ask them the same.
STORES = (FrameStore, AwaitedStore)
AnyStore = FrameStore | AwaitedStore
