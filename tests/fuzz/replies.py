"""Targets that are a server: whatever it answers, the writer, the publisher and the readers know what to do with it.

Sockets are pairs inside this process. The server's side says all it has to say, and closes.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import redis

from engine.client.queries import Queries
from engine.client.tenant import Tenant
from engine.client.transport import Query
from engine.errors import QueryError, RedisUnavailable, ServerRefused, UnknownName, WireError
from engine.servers.redis.connection import call
from engine.servers.redis.errors import checked
from engine.servers.redis.session import Session
from engine.shm.ring import Record
from engine.stages.capture.last_frame import last_frame_id
from engine.stages.publisher import journals
from engine.stages.publisher.gop_assembly import part_before
from engine.stages.writer.batch import Batch, Part
from engine.stages.writer.store import Refused, Store
from engine.wire.journal import JournalEntry
from engine.wire.marks import Mark
from engine.wire.redis_address import parse_redis_address
from engine.wire.resp import FrameFraming

ADDRESS = parse_redis_address("redis.invalid:6379")
FRAMING = FrameFraming("v", "frames", "cam1", 60_000)
NANO = 1_731_024_000_000_000_000
CURSOR = f"{NANO}-7"
UNIT = JournalEntry(NANO, 7, 1, 1, 1, "h264", False)
RECORDS = [Record(NANO + n, n, 640, 480, 0, 1, 0, n, memoryview(b"payload"), 0) for n in (1, 2)]
#: Answers that a client's queries may have: each of them is an error of ours.
_REFUSALS = (RedisUnavailable, ServerRefused, WireError, UnknownName, QueryError)
#: Steps of a query; a server can keep one going for ever, with an answer for each.
_STEPS_MAX = 50


class Plugged:
    """What Store.attach takes: a connection whose socket is there."""

    def __init__(self, plug: socket.socket) -> None:
        self._plug = plug

    def _get_socket(self) -> socket.socket:
        return self._plug

    def disconnect(self) -> None:
        self._plug.close()


class Connection(redis.Connection):
    """redis-py's connection over a socket that is there already."""

    def __init__(self, plug: socket.socket) -> None:
        super().__init__(protocol=2, driver_info=None, socket_timeout=5)
        self._plug = plug

    def _connect(self) -> socket.socket:
        return self._plug


@contextlib.contextmanager
def answering(data: bytes) -> Iterator[socket.socket]:
    """The client's end of a connection on which ``data`` is all that is ever answered."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            theirs.send(data)
        theirs.shutdown(socket.SHUT_WR)
        yield ours


def writer(data: bytes) -> None:
    """Replies to two batches and a call: what is told of a batch is what a sound reply says, or Redis is away."""
    with answering(data) as plug:
        store = Store(ADDRESS, 1, lambda: None)
        store.attach(Plugged(plug))  # type: ignore[arg-type]
        with contextlib.suppress(RedisUnavailable):
            store.send(Batch([Part(FRAMING, RECORDS, NANO)]))
            store.send(Batch([Part(FRAMING, RECORDS[:1]), Part(FRAMING, RECORDS[1:])]))
            for rings in (1, 2):
                before = store.in_flight
                try:
                    refused = store.receive()
                except Refused:
                    assert store.connected, "what was refused is known to be refused"
                    assert store.in_flight == before - 1
                    continue
                assert len(refused) == rings
                assert all(isinstance(text, str) for errors in refused for text in errors.values())
            store.call([FRAMING.newest()])
        assert store.connected or store.in_flight == 0
        store.close()


def publisher(data: bytes) -> None:
    """One question first, chosen by the first byte, then the others."""
    asked: list[Callable[[journals.Journals], object]] = [
        lambda journal: _check_cursors(journal.cursors()),
        lambda journal: _check_read(journal.read({"cam1": (0, 0), "cam2": (NANO, 7)}, 10)),
        lambda journal: journal.overview(),
        lambda journal: journal.written(),
        lambda journal: journal.alive([("cam1", JournalEntry(NANO, 1, 1, 1, 1, "jpeg", True))]),
        lambda journal: journal.save({"cam1": Mark((NANO, 7), 1)}, "5"),
        lambda journal: part_before(UNIT, journal.before("cam1", (NANO, 7), 10)),
    ]
    first = data[0] % len(asked) if data else 0
    with answering(data[1:]) as plug:
        connection = Connection(plug)
        journal = journals.Journals(ADDRESS, 1, "v", "frames", ["cam1", "cam2"])
        journal._session._connection = connection
        with contextlib.suppress(RedisUnavailable, ServerRefused):
            for question in asked[first:] + asked[:first]:
                question(journal)
                if not journal._session.connected:
                    break
        connection.disconnect()
    with answering(data[1:]) as plug, contextlib.suppress(RedisUnavailable, ServerRefused):
        session = Session(ADDRESS, 1)
        session._connection = Connection(plug)
        nano, sequence = last_frame_id(session, "v", "frames", "cam1")
        assert nano < 10**19
        assert sequence < 10**5


def reader(data: bytes) -> None:
    """One of the client's queries, chosen by the first byte, over a server's answers."""
    queries = Queries(Tenant("v", "frames", frozenset(["cam1"])), 2**20)
    asked: list[Callable[[], Query[Any]]] = [
        lambda: queries.nearest("cam1", NANO),
        lambda: _chunks(queries.range("cam1", None, None)),
        lambda: _chunks(queries.range("cam1", None, None, payload=False, reverse=True, step="1s")),
        lambda: _chunks(queries.tail(None, None, payload=True, block_ms=1)),
        lambda: _chunks(queries.tail(["cam1"], 5, payload=False, block_ms=1)),
        lambda: queries.get_many([f"v:frames:cam1:{NANO}:00001", f"v:frames:cam1:{NANO}:00002"]),
        queries.cameras,
        queries.snapshot,
        lambda: queries.count("cam9", None, None),
        lambda: queries.rate("cam1", None, None, "1s"),
        queries.stats,
    ]
    with answering(data[1:]) as plug:
        connection = Connection(plug)
        with contextlib.suppress(*_REFUSALS):
            carry(asked[data[0] % len(asked) if data else 0](), connection)
        connection.disconnect()


def _chunks(walk: Any) -> Query[None]:
    while not walk.done:
        yield from walk.chunk()


def carry(query: Query[Any], connection: redis.Connection) -> None:
    """Run a query as ``Transport.run`` does, over one connection."""
    with contextlib.closing(query), contextlib.suppress(StopIteration):
        commands = next(query)
        for _ in range(_STEPS_MAX):
            commands = query.send(checked(ADDRESS, commands, call(ADDRESS, connection, *commands)))


def _check_cursors(cursors: journals.Cursors) -> None:
    assert cursors.marks.keys() <= {"cam1", "cam2"}
    for mark in cursors.marks.values():
        assert max(mark.at) < 2**64


def _check_read(found: list[journals.CameraRead]) -> None:
    for camera, entries, _, unreadable in found:
        assert camera in ("cam1", "cam2")
        assert len(entries) + unreadable
