"""What questions cost Redis and the reader: round trips, commands, memory."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.client.tenant import ENTRIES_MAX
from engine.errors import UnknownName
from engine.wire import keys
from engine.wire.cluster_routing import split
from tests.client.stocked import PREFIX, T0, VHOST, AnyStore, Stored, frame, pipe, row, stock
from tests.servers.cluster_client import CLUSTER, AnyClient, AnyServer, ReadCluster, connections, servers
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until

CAMERAS = [f"cam{number:02d}" for number in range(10)]
FRAMES_PER_CAMERA = 6000
GAP = 33_333_333
FOREIGN_KEYS = 60_000
MIB = 2**20
#: All that reading may ask of Redis.
READING = {"xrange", "xrevrange", "xread", "mget", "exists", "hkeys", "hgetall", "pttl", "ping"}


def stored(camera: str, number: int) -> Stored:
    return Stored(camera, T0 + number * GAP, number + 1, b"%d" % (number % 10))


@pytest.fixture(scope="module")
def large(redis_kind: str) -> Iterator[AnyServer]:
    """60,000 frames beside as many keys of somebody else."""
    path = Path(tempfile.mkdtemp(prefix="ev-large-"))
    kind = ReadCluster if redis_kind == CLUSTER else RedisServer
    with kind(path) as server, server.client() as client:
        stock(client, (stored(camera, number) for number in range(FRAMES_PER_CAMERA) for camera in CAMERAS))
        names = [[f"{{{part}}}foreign:{number}" for number in range(1000)] for part in range(FOREIGN_KEYS // 1000)]
        pipe(client, (("MSET", *(word for name in part for word in (name, b"x"))) for part in names))
        assert client.dbsize() == len(CAMERAS) * (FRAMES_PER_CAMERA + 1) + FOREIGN_KEYS + 1
        yield server
    shutil.rmtree(path, ignore_errors=True)


class Meter:
    """Round trips of a store, as it makes them, the commands in them, and that Redis has counted no other meanwhile."""

    def __init__(self, store: AnyStore, client: AnyClient) -> None:
        self.trips: list[list[tuple[Any, ...]]] = []
        self._servers = servers(client)
        self._transport: Any = getattr(store, "store", store)._transport
        call = self._transport.call

        def counted(commands: Any) -> Any:
            self.trips.append(list(commands))
            return call(commands)

        self._transport.call = counted

    def __enter__(self) -> Meter:
        self.trips.clear()
        for server in self._servers:
            server.config_resetstat()
        return self

    def __exit__(self, *_: object) -> None:
        counted: Counter[str] = Counter()
        for server in self._servers:
            for name, stats in server.info("commandstats").items():
                counted[name.removeprefix("cmdstat_")] += stats["calls"]
        # Our own, and the question for a cluster's map.
        for name in ("config|resetstat", "info", "cluster|slots"):
            counted.pop(name, None)
        self.commands = Counter(name.lower() for trip in self.trips for name, *_ in trip)
        assert counted == Counter(command[0].lower() for trip in self.trips for command in self._carried_out(trip))

    def _carried_out(self, trip: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """The commands of a round trip as servers get them: a cluster is asked for each slot by itself."""
        if not self._transport.address.cluster:
            return trip
        known = self._transport._nodes._state.map
        return [piece.command for place, command in enumerate(trip) for piece in split(place, command, known)]


@pytest.fixture
def metered(open_store: Callable[..., AnyStore], large: AnyServer) -> Iterator[tuple[AnyStore, Meter]]:
    with large.client() as client:
        # Connected before anything is counted.
        client.ping()
        store = open_store(large.address)
        yield store, Meter(store, client)


def test_the_latest_frame_takes_two_round_trips(metered):
    store, meter = metered
    with meter:
        found = store.latest(CAMERAS[3])
    assert found == frame(stored(CAMERAS[3], FRAMES_PER_CAMERA - 1))
    assert len(meter.trips) == 2
    assert meter.commands == {"xrevrange": 1, "mget": 1}


@pytest.mark.parametrize("number", [0, 1, 5000, FRAMES_PER_CAMERA - 1])
def test_the_frame_at_a_moment_takes_two_round_trips(metered, number):
    store, meter = metered
    with meter:
        found = store.at(CAMERAS[3], T0 + number * GAP + GAP // 2)
    assert found == frame(stored(CAMERAS[3], number))
    assert len(meter.trips) == 2
    assert meter.commands == {"xrevrange": 1, "mget": 1}


@pytest.mark.parametrize("reverse", [False, True])
def test_a_range_takes_one_round_trip_and_its_payloads(metered, reverse):
    store, meter = metered
    start, end = T0 + 5000 * GAP, T0 + 5099 * GAP
    with meter:
        found = list(store.range(CAMERAS[7], start, end, reverse=reverse))
    assert [one.unix_nano for one in found] == sorted((one.unix_nano for one in found), reverse=reverse)
    assert len(found) == 100
    assert len(meter.trips) == 2
    assert meter.commands == {"xrevrange" if reverse else "xrange": 1, "mget": 1}


def test_payloads_come_in_chunks_of_the_size_asked_for(open_store, shared_redis, client):
    stock(client, row("cam1", 100, size=1000))
    store = open_store(shared_redis.address, chunk_bytes=10_000)
    meter = Meter(store, client)
    with meter:
        assert len(list(store.range("cam1"))) == 100
    assert meter.commands == {"xrange": 1, "mget": 10}


def test_entries_take_no_payload_along(metered):
    store, meter = metered
    with meter:
        assert len(list(store.entries(CAMERAS[7], T0, T0 + 99 * GAP))) == 100
    assert meter.commands == {"xrange": 1, "exists": 1}


def test_a_limited_range_reads_no_more_entries_than_it_brings(metered, large):
    store, meter = metered
    with meter:
        assert [one.sequence for one in store.range(CAMERAS[7], limit=3)] == [1, 2, 3]
    assert meter.trips[0][0][-2:] == ("COUNT", 3)
    assert meter.commands == {"xrange": 1, "mget": 1}


def test_a_snapshot_takes_two_round_trips_once_its_cameras_were_met(metered):
    store, meter = metered
    newest = {camera: frame(stored(camera, FRAMES_PER_CAMERA - 1)) for camera in CAMERAS}
    with meter:
        assert store.snapshot() == newest
    assert len(meter.trips) == 3
    with meter:
        assert store.snapshot() == newest
    assert len(meter.trips) == 2
    assert meter.commands == {"xrevrange": len(CAMERAS), "hkeys": 1, "mget": 1}


def test_the_first_snapshot_takes_two_round_trips_where_the_cameras_are_known(open_store, large):
    with large.client() as client:
        client.ping()
        store = open_store(large.address, cameras=CAMERAS)
        meter = Meter(store, client)
        with meter:
            assert len(store.snapshot()) == len(CAMERAS)
    assert len(meter.trips) == 2


def test_a_camera_that_is_known_and_has_nothing_takes_one_round_trip(open_store, large):
    with large.client() as client:
        client.ping()
        store = open_store(large.address, cameras=["new"])
        meter = Meter(store, client)
        with meter:
            assert store.latest("new") is None
    assert meter.commands == {"xrevrange": 1}


def test_frames_by_key_take_one_round_trip(metered):
    store, meter = metered
    wanted = [frame(stored(camera, 17)) for camera in CAMERAS]
    with meter:
        assert store.get_many(one.key for one in wanted) == wanted
    assert len(meter.trips) == 1


def test_a_count_takes_two_round_trips_a_thousand_frames(metered):
    store, meter = metered
    with meter:
        assert store.count(CAMERAS[0], end=T0 + 4999 * GAP) == 5000
    assert len(meter.trips) <= 2 * (5000 // ENTRIES_MAX + 1)


def test_no_question_walks_the_keyspace(store, client):
    stock(client, (stored(camera, number) for number in range(2500) for camera in CAMERAS[:2]))
    meter = Meter(store, client)
    last = T0 + 2499 * GAP
    asked: dict[str, int] = {}
    for question in (
        lambda: store.latest("cam00"),
        lambda: store.at("cam00", T0 + GAP),
        lambda: store.get_many([frame(stored("cam00", 1)).key]),
        lambda: list(store.range("cam00", limit=10, step="5s", reverse=True)),
        lambda: list(store.entries("cam00", limit=10)),
        lambda: store.count("cam00"),
        lambda: store.rate("cam00"),
        store.cameras,
        store.snapshot,
        store.stats,
        lambda: list(itertools.islice(store.tail(since=T0), 100)),
        lambda: list(itertools.islice(store.tail_entries("cam00", since=last), 1)),
        lambda: store.latest("cam0o"),
    ):
        with meter, contextlib.suppress(UnknownName):
            question()
        asked.update(meter.commands)
    assert asked.keys() <= READING


def test_a_long_range_never_holds_more_than_a_few_chunks(open_store, shared_redis, client):
    """Of 200 MB of frames."""
    size, count = 100_000, 2000
    stock(client, row("cam1", count, size=size))
    store = open_store(shared_redis.address, chunk_bytes=MIB)
    tracemalloc.start()
    try:
        met = 0
        for number, one in enumerate(store.range("cam1"), 1):
            assert one.data.startswith(b"cam1 %d." % number)
            met += len(one.data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert met == size * count
    assert peak < 8 * MIB
    client.flushall()


@pytest.mark.parametrize("what", ["range", "tail"])
def test_a_reader_that_stops_reading_leaves_nothing_waiting_at_the_server(open_store, shared_redis, client, what):
    frames = row("cam1", 400, size=100_000)
    stock(client, frames[:200])
    store = open_store(shared_redis.address, chunk_bytes=MIB)
    items = store.range("cam1") if what == "range" else store.tail("cam1", 0)
    first = list(itertools.islice(items, 25))

    def held(what: str) -> int:
        """Bytes that servers hold for the reader's connections, one to a server."""
        found = [int(one[what]) for one in connections(client) if one["cmd"] in ("mget", "xrange", "xread")]
        assert 1 <= len(found) <= len(servers(client))
        return sum(found)

    # What was asked for has been read by now, but for what Redis has not yet noted.
    wait_until(lambda: held("omem") == 0, 10, "an empty output buffer")
    before = held("tot-mem")
    stock(client, frames[200:])
    assert held("omem") == held("obl") == 0
    # A page or two of its own buffers come and go; what was stored meanwhile is 20 MB.
    assert held("tot-mem") <= before + 65_536 * len(servers(client))
    # And it may go on at any time. A range had seen the journal's end.
    count = 200 if what == "range" else 400
    rest = list(itertools.islice(items, count - len(first)))
    assert [one.sequence for one in first + rest] == list(range(1, count + 1))
    client.flushall()


def test_journals_are_read_by_the_keys_of_the_design(metered):
    store, _ = metered
    assert next(store.entries("cam00")).key.startswith(f"{VHOST}:{PREFIX}:cam00:")
    assert keys.journal_key(VHOST, PREFIX, "cam00") == "engine:loja:journal:frames:cam00"
