"""How costs grow with the number of cameras, the size of frames, and the number of stored frames.

Writer and publisher: CPU of this process per frame or event, while it runs an agent from full rings or journals until
everything is acknowledged. Filling and the servers' CPU are not counted. Ring: the time of a write, a poll and a commit
in one process. Queries: the time of each call, in turn on servers that hold few frames and many, against the product
page's recipes with KEYS and SCAN.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pika
import pytest
import redis

from benchmarks import publisher_peers
from benchmarks.harness import Results, Scale
from benchmarks.in_process import InProcessPublisher, InProcessWriter, Spent, Stopwatch, site_config
from engine import FrameStore
from engine.shm import ring_file
from engine.shm.ring import Consumer, Producer, Record
from engine.stages.writer.batch import Batch, Part
from engine.stages.writer.store import Store
from engine.wire.redis_address import parse_redis_address
from engine.wire.resp import FrameFraming
from tests.client.stocked import Stored, stock
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer

KIB = 1024
MIB = 2**20
VHOST = "default"
#: Stored frames: ten cameras in turn, 100 bytes each, 1 ms apart, with a lifetime of an hour.
STOCKED_CAMERAS = 10
STOCKED_GAP_NANO = 1_000_000
STOCKED_TTL_MS = 3_600_000
STOCKED_BATCH = 256
RANGE = 100
Points = list[tuple[float, float]]


@pytest.fixture
def server(directory: Path) -> Iterator[RedisServer]:
    with RedisServer(directory / "redis", unix=True) as running:
        yield running


def microseconds(spent: list[Spent], frames: int) -> float:
    """CPU per frame: the median of some measurements of ``frames`` frames each."""
    return round(statistics.median(one.cpu_seconds for one in spent) / frames * 1e6, 2)


def test_writer_by_cameras(results: Results, scale: Scale, directory: Path, server: RedisServer) -> None:
    """Three states of a site's rings: all full; one frame in each; one frame in one ring, which costs most per frame
    and is an idle site's state."""
    counts = scale.pick([1, 8], [1, 50, 200], [1, 10, 25, 50, 100, 200])
    rounds = scale.pick(1, 5, 15)
    payload = memoryview(os.urandom(10 * KIB))
    series: dict[str, Points] = {"rings full": [], "a frame in every ring": [], "a frame in one ring": []}
    client = server.client()
    with ExitStack() as stack:
        sites = {}
        for cameras in counts:
            capacity = max(400 // cameras * 11 * KIB // MIB + 1, 1)
            config = site_config(directory / f"run{cameras}", server.address, cameras, ring={"capacity_mb": capacity})
            sites[cameras] = stack.enter_context(InProcessWriter(config))
        spent: dict[tuple[str, int], list[Spent]] = {(name, cameras): [] for name in series for cameras in counts}
        frames = {
            cameras: {"rings full": max(400 // cameras, 2) * cameras, "a frame in every ring": cameras}
            for cameras in counts
        }
        for _ in range(rounds):
            client.flushall()
            for cameras, writer in sites.items():
                for name, count in frames[cameras].items():
                    writer.fill(count, [payload])
                    spent[name, cameras].append(writer.drain())
                for _ in range(10):
                    writer.fill(1, [payload], rings=1)
                    spent["a frame in one ring", cameras].append(writer.drain())
    for (name, cameras), found in spent.items():
        series[name].append((cameras, microseconds(found, frames[cameras].get(name, 1))))
    results.curve(
        "growth.writer.cameras",
        "cameras",
        "us of the writer's CPU a frame (10 KB)",
        series,
        "Rings full: with many cameras a batch holds a few frames of each, and each camera in it costs a PEXPIRE and a "
        "commit, so the line rises until a batch holds one of each. A frame in one ring: a batch of one frame looks at "
        "all rings, a straight line. A frame in every ring: what a batch costs by itself is shared by more",
    )
    _record_flat(results, "growth.writer.cameras.flat", series["rings full"], "the CPU a frame with one camera")
    first, last = series["a frame in one ring"][0], series["a frame in one ring"][-1]
    per_ring = (last[1] - first[1]) / (last[0] - first[0])
    results.figure("growth.writer.cameras.look", round(per_ring, 3), "us of the writer's CPU a batch for each ring")


def _record_flat(results: Results, name: str, points: Points, what: str) -> None:
    """The cost at the curve's start divided by the cost at its end."""
    results.ratio(name, points[0][1] / points[-1][1], against=what, unit="of it")


def test_publisher_by_cameras(
    results: Results, scale: Scale, directory: Path, server: RedisServer, rabbitmq: RabbitMQ
) -> None:
    """The same number of entries, in one journal or in many, announced in batches or singly."""
    counts = scale.pick([1, 8], [1, 50, 200], [1, 10, 50, 100, 200])
    events = scale.pick(200, 2_000, 4_000)
    rounds = scale.pick(1, 1, 5)
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url() + "?heartbeat=0"))
    publisher_peers.declare(connection)
    series: dict[str, Points] = {}
    client = server.client()
    for kind, label in (("event", "singly"), ("batch", "in batches")):
        points = series.setdefault(label, [])
        spent: dict[int, list[Spent]] = {cameras: [] for cameras in counts}
        for number in range(rounds + 1):
            for cameras in counts:
                client.flushall()
                config = site_config(
                    directory / f"run{cameras}",
                    server.address,
                    cameras,
                    amqp={"amqp_url": rabbitmq.url()},
                    metadata={"format": kind},
                )
                with InProcessPublisher(config) as publisher:
                    now = time.time_ns()
                    stored = (
                        Stored(f"cam{place % cameras}", now + place, place // cameras + 1, b"x", False)
                        for place in range(events)
                    )
                    stock(client, stored, vhost=VHOST, cameras={})
                    took = publisher.drain(events)
                if number or scale.mode == "once":
                    spent[cameras].append(took)
        points += [(cameras, microseconds(spent[cameras], events)) for cameras in counts]
    connection.channel().queue_delete(publisher_peers.QUEUE)
    connection.close()
    results.curve(
        "growth.publisher.cameras",
        "cameras",
        "us of the publisher's CPU an event",
        series,
        f"{events} events in all, so a camera has the fewer the more there are. One read asks for all journals.",
    )
    _record_flat(results, "growth.publisher.cameras.flat", series["singly"], "the CPU an event with one camera")


def test_by_frame_size(results: Results, scale: Scale, directory: Path, server: RedisServer) -> None:
    sizes = scale.pick([10, 60], [10, 60, 200, 500], [10, 20, 60, 100, 200, 350, 500])
    rounds = scale.pick(1, 3, 9)
    volume = scale.pick(1, 16, 24) * MIB
    config = site_config(directory / "run", server.address, 4, ring={"capacity_mb": volume // 4 // MIB + 4})
    client = server.client()
    payload = memoryview(os.urandom(sizes[-1] * KIB))
    writer_spent: dict[int, list[Spent]] = {size: [] for size in sizes}
    ring_spent: dict[int, list[float]] = {size: [] for size in sizes}
    frames = {size: volume // (size * KIB) for size in sizes}
    path = Path("/dev/shm") / f"{directory.name}.ring"
    ring_file.create(path, 8 * MIB, "cam", floor_nano=time.time_ns())
    try:
        producer, consumer = Producer(path, "cam"), Consumer(path, "cam")
        with InProcessWriter(config) as writer:
            for _ in range(rounds):
                for size in sizes:
                    client.flushall()
                    part = payload[: size * KIB]
                    writer.fill(frames[size], [part])
                    writer_spent[size].append(writer.drain())
                    ring_spent[size].append(_through_ring(producer, consumer, part, frames[size]))
        producer.close()
        consumer.close()
    finally:
        path.unlink()
    writer_points = [(float(size), microseconds(writer_spent[size], frames[size])) for size in sizes]
    ring_points = [(float(size), round(statistics.median(ring_spent[size]) * 1e6, 2)) for size in sizes]
    results.curve(
        "growth.size",
        "KB a frame",
        "us a frame",
        {"writer (CPU)": writer_points, "ring: write, poll, commit": ring_points},
        "Straight lines: what a frame costs by itself, and the copies of its bytes, into the ring and into the socket.",
    )
    for name, points in (("writer", writer_points), ("ring", ring_points)):
        _record_straight(results, f"growth.{name}.size.straight", points)


def _through_ring(producer: Producer, consumer: Consumer, payload: memoryview, frames: int) -> float:
    """Seconds per frame."""
    begun = time.perf_counter()
    for _ in range(frames):
        producer.write((payload,), producer.floor_nano + 1, time.monotonic_ns(), 1280, 720)
        records = consumer.poll(MIB, 64)
        assert len(records) == 1
        consumer.commit(records, time.monotonic_ns())
    return (time.perf_counter() - begun) / frames


def _record_straight(results: Results, name: str, points: Points) -> None:
    """The largest size's cost as predicted by the line through the two smaller sizes, divided by the real cost."""
    (x0, y0), (x1, y1), (x2, y2) = points[0], points[-2], points[-1]
    line = y0 + (y1 - y0) * (x2 - x0) / max(x1 - x0, 1)
    results.ratio(name, line / y2, against="the line through the curve's other points", unit="of its cost")


def fill_server(server: RedisServer, frames: int, begin_nano: int) -> None:
    """Store small frames with the writer's own connection, without rings."""
    store = Store(parse_redis_address(server.url), 30.0, lambda: None)
    store.attach(store.open())
    framings = [FrameFraming(VHOST, "frames", f"cam{n}", STOCKED_TTL_MS) for n in range(STOCKED_CAMERAS)]
    payload = memoryview(bytes(100))
    for first in range(0, frames, STOCKED_CAMERAS * STOCKED_BATCH):
        last = min(first + STOCKED_CAMERAS * STOCKED_BATCH, frames)
        parts = []
        for number, framing in enumerate(framings):
            records = [
                Record(
                    begin_nano + place * STOCKED_GAP_NANO,
                    place // STOCKED_CAMERAS % 99_999 + 1,
                    64,
                    48,
                    0,
                    1,
                    0,
                    0,
                    payload,
                    0,
                )
                for place in range(first + number, last, STOCKED_CAMERAS)
            ]
            if records:
                parts.append(Part(framing, records))
        store.send(Batch(parts))
        if store.in_flight > 1:
            assert not any(store.receive())
    while store.in_flight:
        assert not any(store.receive())
    store.close()


class Asked:
    """A server with many frames, and the queries to it: the engine's, and the product page's."""

    def __init__(self, server: RedisServer, frames: int) -> None:
        self.frames = frames
        self.begin = time.time_ns() - frames * STOCKED_GAP_NANO
        fill_server(server, frames, self.begin)
        self.client = server.client()
        assert self.client.dbsize() == frames + STOCKED_CAMERAS
        self.store = FrameStore(server.url, VHOST)
        self.times: dict[str, list[float]] = {}
        self._random = random.Random(frames)

    def moment(self) -> tuple[str, int, int]:
        """A camera, the time of one of its frames, and the time of the 99th frame after it."""
        number = self._random.randrange(STOCKED_CAMERAS)
        mine = self.frames // STOCKED_CAMERAS
        place = self._random.randrange(mine - RANGE) * STOCKED_CAMERAS + number
        start = self.begin + place * STOCKED_GAP_NANO
        return f"cam{number}", start, start + (RANGE - 1) * STOCKED_CAMERAS * STOCKED_GAP_NANO

    def newest_nano(self, camera: str) -> int:
        """The time of a camera's last frame."""
        place = self.frames - STOCKED_CAMERAS + int(camera.removeprefix("cam"))
        return self.begin + place * STOCKED_GAP_NANO

    def _timed(self, name: str, ask: Callable[[], list[int]]) -> list[int]:
        with Stopwatch() as watch:
            found = ask()
        self.times.setdefault(name, []).append(watch.spent.seconds)
        return found

    def ask_engine(self) -> None:
        """Call latest, at and range once each, at a random place, and check the results."""
        camera, start, end = self.moment()
        frame = self._timed("latest", lambda: [_nano(self.store.latest(camera))])
        assert frame == [self.newest_nano(camera)]
        assert self._timed("at", lambda: [_nano(self.store.at(camera, start + 1))]) == [start]
        found = self._timed("range", lambda: [frame.unix_nano for frame in self.store.range(camera, start, end)])
        assert len(found) == RANGE
        assert found[0] == start
        assert len(self._timed("bare range", lambda: bare_range(self.client, camera, start, end))) == RANGE

    def ask_as_the_page(self) -> None:
        """Do the same with the page's recipes."""
        camera, start, end = self.moment()
        assert self._timed("latest", lambda: page_latest(self.client, camera)) == [self.newest_nano(camera)]
        assert self._timed("at", lambda: page_at(self.client, camera, start + 1)) == [start]
        assert len(self._timed("range", lambda: page_range(self.client, camera, start, end))) == RANGE

    def median(self, name: str) -> float:
        """Milliseconds."""
        return statistics.median(self.times[name]) * 1e3

    def close(self) -> None:
        """Disconnect from the server."""
        self.store.close()
        self.client.close()


def bare_range(client: redis.Redis, camera: str, start: int, end: int) -> list[int]:
    """The minimal range query with redis-py: XRANGE, MGET, and no checks."""
    ids = [
        entry for entry, _ in client.execute_command("XRANGE", f"engine:{VHOST}:journal:frames:{camera}", start, end)
    ]
    keys = [
        b"%b:frames:%b:%b:%05d" % (VHOST.encode(), camera.encode(), nano, int(number))
        for nano, number in (entry.split(b"-") for entry in ids)
    ]
    return [len(payload) for payload in client.mget(keys)]


def _nano(frame: object) -> int:
    return int(getattr(frame, "unix_nano", 0))


def page_latest(client: redis.Redis, camera: str) -> list[int]:
    """``KEYS "{vhost}:frames:cam1:*" | sort -t: -k4 -n | tail -1``, and the frame."""
    found = max(client.keys(f"{VHOST}:frames:{camera}:*"), key=lambda key: int(key.split(b":")[3]))
    assert client.get(found)
    return [int(found.split(b":")[3])]


def page_at(client: redis.Redis, camera: str, when: int) -> list[int]:
    """The same keys, and the last one that is not later than the given time."""
    keys = client.keys(f"{VHOST}:frames:{camera}:*")
    nano, found = max((nano, key) for key in keys if (nano := int(key.split(b":")[3])) <= when)
    assert client.get(found)
    return [nano]


def page_range(client: redis.Redis, camera: str, start: int, end: int) -> list[int]:
    """``get_frames_last_hour``: find all keys of the camera by SCAN, compare their times, fetch those in the range."""
    found = {}
    for key in client.scan_iter(match=f"{VHOST}:frames:{camera}:*"):
        if start <= (nano := int(key.split(b":")[3])) <= end:
            found[nano] = client.get(key)
    return sorted(found)


def test_by_frames_stored(results: Results, scale: Scale, directory: Path) -> None:
    """Frames have 100 bytes, so that a million fit. The engine's queries go to all servers in turn."""
    counts = scale.pick([2_000, 5_000], [10_000, 100_000], [10_000, 100_000, 1_000_000])
    # 300 bytes per frame with its entry; the page's list of all keys needs as much again in this process.
    counts = [count for count in counts if results.fits(f"growth.{count:,} frames stored", 800 * count)]
    queries = scale.pick(5, 200, 1_000)
    with ExitStack() as stack:
        asked = []
        for count in counts:
            server = stack.enter_context(RedisServer(directory / f"redis{count}", unix=True))
            asked.append(Asked(server, count))
            stack.callback(asked[-1].close)
        for one in asked:
            one.ask_engine()
            one.times.clear()
        for _ in range(queries):
            for one in asked:
                one.ask_engine()
        engine = {name: [(float(one.frames), round(one.median(name), 4)) for one in asked] for name in asked[0].times}
        engine.pop("bare range")
        pairs = zip(asked[-1].times["bare range"], asked[-1].times["range"], strict=True)
        bare_shares = [bare / ours for bare, ours in pairs]
        single = {name: [one.times[name] for one in asked] for name in asked[0].times}
        for one in asked:
            one.times.clear()
            for _ in range(scale.pick(1, 2, 3) if one.frames < 1_000_000 else 1):
                one.ask_as_the_page()
        page = {name: [(float(one.frames), round(one.median(name), 4)) for one in asked] for name in engine}
    recipes = {"latest": "KEYS, sort, tail", "at": "KEYS, sort", "range": "SCAN and GET"}
    for name, points in engine.items():
        label = "range of 100" if name == "range" else name
        results.curve(
            f"growth.{name}",
            "frames stored",
            f"ms for {label}",
            {"engine": points, f"page: {recipes[name]}": page[name]},
            "The engine's is flat (a journal is searched as a tree); the page's walks every key of the server.",
        )
        few, many = single[name][0], single[name][-1]
        results.ratio(
            f"growth.{name}.flat",
            statistics.median(few) / statistics.median(many),
            against=f"the median with {counts[0]:,} frames stored, at {counts[-1]:,}",
            unit="of its time",
            goal=">= 0.667" if name == "latest" else "",
        )
        results.ratio(
            # Its time is proportional to the number of frames, so each number has its own floor.
            f"growth.{name}.page.{counts[-1] // 1000}k",
            page[name][-1][1] / points[-1][1],
            against=f"the page's {recipes[name]} with {counts[-1]:,} frames stored",
            unit="times faster",
        )
        late = sorted(many)[int(len(many) * 0.99)] * 1e3
        goal = {"goal": "<= 1"} if name == "latest" else {}
        results.figure(f"growth.{name}.p99", round(late, 3), f"ms with {counts[-1]:,} frames stored", **goal)
    results.ratio(
        "growth.range.limit",
        statistics.median(bare_shares),
        against="redis-py's bare XRANGE and MGET of the same 100 frames",
        unit="of its speed",
    )
