"""A whole site against the product page's way: latency, CPU, memory, and the number of cameras without a loss.

The site is ``edge-video run`` with test cameras, the embedded Valkey and a real RabbitMQ. The page's way is one Python
process that takes ready frames and calls ``r.setex`` and ``channel.basic_publish`` for each, as the page shows. It uses
the same kind of server, over a Unix socket like the site. It reads no camera, requests no confirms and keeps no
journal.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Self

import pika
import pytest
import redis
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import Results, Scale, cpu_seconds
from engine.runtime.status_processes import MIB, own_memory
from engine.shm import histogram
from engine.shm.ring_file import Observer
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import Site

FPS = 30
TTL_SECONDS = 5
#: Frame sizes: for the CPU figure, and for all others.
CPU_KB, KB = 48, 60
EXCHANGE, ROUTING_KEY = "camera.metadata", "camera.metadata.event"
#: A rate counts as carried if at least this share of the offered frames was captured and stored.
CARRIED = 0.97
#: Seconds that a consumer waits for events of frames that are captured already.
LATE_SECONDS = 1.0
#: Roles whose CPU counts as the engine's. The servers' CPU is shown separately; other programs need servers too.
OWN_ROLES = ("capture", "writer", "publisher", "supervisor")
_spawn = multiprocessing.get_context("spawn")


class Snapshot(NamedTuple):
    """A site's totals at one time: frames and access units together, and the stored access units."""

    at: float
    cpu: Counter[str]
    captured: int
    stored: int
    packets: int
    dropped: int
    held: int
    latency: list[int]


class Window(NamedTuple):
    """A site's work between two snapshots. Latencies in milliseconds, CPU in seconds by role."""

    seconds: float
    cpu: dict[str, float]
    captured: int
    stored: int
    packets: int
    dropped: int
    held: int
    latency: list[int]

    @property
    def own_cpu(self) -> float:
        return sum(self.cpu.get(role, 0.0) for role in OWN_ROLES)

    @property
    def frames_per_cpu_second(self) -> float:
        return self.stored / self.own_cpu

    @property
    def frames_per_storing_cpu_second(self) -> float:
        """CPU without capture, which the peer does not do."""
        return self.stored / (self.cpu["writer"] + self.cpu["publisher"])

    def percentile(self, share: float) -> float:
        return histogram.percentile(self.latency, share)


class Watch:
    """Observes a running site from outside: the counts of its rings, and the kernel's account of its processes."""

    def __init__(self, site: Site, broker: RabbitMQ | None = None) -> None:
        paths = site.paths
        self.site = site
        rings = [(name, paths.ring(name, video=video)) for name, video in site.config.rings]
        wait_until(lambda: all(path.exists() for _, path in rings), 30, "all rings stand", 0.005)
        self._observers = [Observer(path, name) for name, path in rings]
        self._broker = broker

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for observer in self._observers:
            observer.close()

    def capturing(self) -> int:
        """The number of cameras that have captured a frame or an access unit."""
        return len({observer.camera for observer in self._observers if observer.counts().captured})

    def roles(self) -> dict[int, str]:
        """Every process of the site by its id, including the servers."""
        site = self.site
        assert site.process is not None
        roles = {child.pid: "supervisor" for child in site.children()}
        for child in site.children():
            if "valkey" in child.name():
                roles[child.pid] = "redis"
        roles |= {process["pid"]: process["role"] for process in site.status()["processes"] if process["alive"]}
        roles[site.process.pid] = "supervisor"
        if self._broker is not None:
            roles[self._broker.pid] = "rabbitmq"
        return roles

    def snapshot(self, roles: dict[int, str]) -> Snapshot:
        counts = [observer.counts() for observer in self._observers]
        cpu: Counter[str] = Counter()
        for pid, role in roles.items():
            cpu[role] += cpu_seconds(pid)
        return Snapshot(
            time.monotonic(),
            cpu,
            sum(count.captured for count in counts),
            sum(count.stored for count in counts),
            sum(count.stored for count, end in zip(counts, self._observers, strict=True) if end.video),
            sum(count.dropped for count in counts),
            sum(count.held for count in counts),
            histogram.merge(count.latency for count in counts),
        )

    def window(self, seconds: float) -> Window:
        """Let the site run for ``seconds``, and return its work in that time."""
        roles = self.roles()
        first = self.snapshot(roles)
        time.sleep(seconds)
        last = self.snapshot(roles)
        assert {pid for pid, role in self.roles().items() if role != "redis"} <= set(roles), "a process was restarted"
        return Window(
            last.at - first.at,
            {role: last.cpu[role] - first.cpu[role] for role in last.cpu},
            last.captured - first.captured,
            last.stored - first.stored,
            last.packets - first.packets,
            last.dropped,
            last.held,
            [after - before for after, before in zip(last.latency, first.latency, strict=True)],
        )

    def memory(self) -> dict[str, list[float]]:
        """MiB of each process by role, as PSS: with its share of shared pages, without rings."""
        found: dict[str, list[float]] = {}
        for pid, role in self.roles().items():
            found.setdefault(role, []).append(own_memory(pid) / MIB)
        return found


@contextmanager
def running_site(
    directory: Path,
    cameras: Sequence[dict[str, Any]],
    broker: tuple[RabbitMQ, str] | None = None,
    *,
    ring_mb: int = 8,
    settle: float = 0.0,
    **sections: dict[str, Any],
) -> Iterator[Watch]:
    """A site that captures from all its cameras, after ``settle`` more seconds. It leaves nothing behind."""
    site = Site(directory / "site")
    amqp_url = broker[0].url(broker[1]) if broker else ""
    sections |= {"redis": {"ttl_seconds": TTL_SECONDS}, "ring": {"capacity_mb": ring_mb}}
    site.write(cameras=list(cameras), amqp_url=amqp_url, **sections)
    try:
        site.start(wait=False)
        with Watch(site, broker[0] if broker else None) as watch:
            wait_until(lambda: watch.capturing() == len(cameras), 60, f"all capture; log:\n{site.log_text()[-2000:]}")
            time.sleep(settle)
            yield watch
    finally:
        site.end()
        _remove(site.directory)


def _remove(directory: Path) -> None:
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    directory.rmdir()


def steady(scale: Scale) -> float:
    """Seconds until a site's memory no longer grows: rings were used completely, and frames expire as they come."""
    return scale.pick(0.5, 1.0, TTL_SECONDS + 2.0)


def pattern_cameras(count: int, kb: int, fps: float = FPS) -> list[dict[str, Any]]:
    return [{"id": f"cam{number}", "url": f"test://?fps={fps:g}&kb={kb}"} for number in range(count)]


class PageRun(NamedTuple):
    """The page's results. Latencies in seconds from a frame's arrival to the reply to its SETEX."""

    frames: int
    seconds: float
    cpu: float
    latencies: list[float]

    @property
    def frames_per_cpu_second(self) -> float:
        return self.frames / self.cpu

    @property
    def frames_per_second(self) -> float:
        return self.frames / self.seconds


def page_loop(pipe: Connection, socket: str, amqp_url: str, size: int, seconds: float, rate: float) -> None:
    """The page's way, in a separate process: ``rate`` frames per second, or as many as possible if ``rate`` is 0."""
    client = redis.Redis(unix_socket_path=socket, decode_responses=False)
    connection = pika.BlockingConnection(pika.URLParameters(amqp_url))
    channel = connection.channel()
    channel.exchange_declare(EXCHANGE, exchange_type="topic", durable=True)
    frame = bytes(size)
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
    latencies: list[float] = []
    client.ping()
    cpu, begun = time.process_time(), time.perf_counter()
    number = 0
    while (now := time.perf_counter()) < begun + seconds:
        arrived = begun + number / rate if rate else now
        if arrived > now:
            time.sleep(arrived - now)
        # A frame's stamp is its arrival time, even if the loop is late.
        unix_nano = time.time_ns() - int((time.perf_counter() - arrived) * 1e9) if rate else time.time_ns()
        number += 1
        camera, sequence = f"cam{number % 25}", f"{number % 99_999 + 1:05d}"
        key = f"page:frames:{camera}:{unix_nano}:{sequence}"
        client.setex(key, TTL_SECONDS, frame)
        latencies.append(time.perf_counter() - arrived)
        metadata = {
            "event_type": "frame",
            "camera_id": camera,
            "timestamp": datetime.fromtimestamp(unix_nano / 1e9, UTC).isoformat(),
            "timestamp_nano": unix_nano,
            "sequence": sequence,
            "redis_key": key,
            "vhost": "page",
            "width": 1280,
            "height": 720,
            "encoding": "jpeg",
            "size_bytes": size,
            "frame_size_bytes": size,
            "ttl_seconds": TTL_SECONDS,
        }
        channel.basic_publish(EXCHANGE, ROUTING_KEY, json.dumps(metadata), properties)
    pipe.send(PageRun(number, time.perf_counter() - begun, time.process_time() - cpu, latencies))
    connection.close()


def page_run(server: RedisServer, amqp_url: str, kb: int, seconds: float, rate: float = 0) -> PageRun:
    ours, theirs = _spawn.Pipe()
    arguments = (theirs, str(server.socket_path), amqp_url, kb * 1024, seconds, rate)
    process = _spawn.Process(target=page_loop, args=arguments, daemon=True)
    process.start()
    theirs.close()
    try:
        run: PageRun = ours.recv()
        process.join(10)
    finally:
        process.kill()
        process.join()
    return run


def listen(pipe: Connection, amqp_url: str) -> None:
    """A consumer in a separate process. It records each event's stamp and its age at receipt."""
    connection = pika.BlockingConnection(pika.URLParameters(amqp_url))
    channel = connection.channel()
    channel.exchange_declare(EXCHANGE, exchange_type="topic", durable=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, EXCHANGE, ROUTING_KEY)
    seen: list[tuple[int, int]] = []
    pipe.send("ready")
    end = math.inf
    for method, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=0.05):
        now = time.time_ns()
        if method is not None:
            stamp = json.loads(body)["timestamp_nano"]
            seen.append((stamp, now - stamp))
        if method is None or len(seen) % 32 == 0:
            if math.isinf(end) and pipe.poll():
                # Events with older stamps may still arrive.
                end = now + LATE_SECONDS * 1e9
            if now >= end:
                break
    pipe.send(seen)


@contextmanager
def consumer(amqp_url: str) -> Iterator[list[float]]:
    """Milliseconds from stamp to receipt, for events stamped within the block. The list is filled at its end."""
    ours, theirs = _spawn.Pipe()
    process = _spawn.Process(target=listen, args=(theirs, amqp_url), daemon=True)
    process.start()
    theirs.close()
    found: list[float] = []
    try:
        assert ours.recv() == "ready"
        begun = time.time_ns()
        yield found
        ended = time.time_ns()
        ours.send("end")
        assert ours.poll(30), "the consumer caught up"
        found += [late / 1e6 for stamp, late in ours.recv() if begun <= stamp < ended]
    finally:
        process.kill()
        process.join()


def share(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)]


def page_server(directory: Path) -> RedisServer:
    """The server of the page's way: the same Valkey as the site's, also on a Unix socket."""
    return RedisServer(directory / "page", binary="valkey", unix=True)


def add_vhost(broker: RabbitMQ, name: str) -> str:
    """A virtual host, and its URL. On a busy machine the broker's control port sometimes does not open at once."""
    for tries in range(3, 0, -1):
        try:
            broker.add_vhost(name)
            break
        except AssertionError:
            if tries == 1:
                raise
            time.sleep(0.5)
    return broker.url(name)


def test_cpu_and_memory_against_the_page(
    benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path, rabbitmq: RabbitMQ
) -> None:
    """CPU per frame by role with many cameras, against the page's loop, which never waits for a frame."""
    cameras = scale.pick(4, 60, 100)
    seconds = scale.pick(1.0, 2.0, 5.0)
    pages: list[PageRun] = []
    windows: list[Window] = []
    memory: dict[str, list[float]] = {}

    def one() -> None:
        # The page's server ends before the site starts, so the two do not share the cores.
        with page_server(directory) as server:
            pages.append(page_run(server, rabbitmq.url("cpu"), CPU_KB, seconds / 2))
        with running_site(
            directory, pattern_cameras(cameras, CPU_KB), (rabbitmq, "cpu"), settle=steady(scale)
        ) as watch:
            windows.append(watch.window(seconds))
            memory.update(watch.memory())

    add_vhost(rabbitmq, "cpu")
    benchmark.pedantic(one, rounds=scale.pick(1, 1, 3))
    assert all(window.stored > 0.5 * cameras * FPS * seconds for window in windows), windows
    load = f"{cameras} cameras x {FPS} fps x {CPU_KB} KB"
    against = "frames per CPU-second of the page's loop at its full speed (SETEX and basic_publish, no capture)"
    _cpu_ratio(results, "e2e.cpu.page", pages, windows, f"{against}; ours with capture and supervisor")
    _cpu_ratio(results, "e2e.cpu.storing.page", pages, windows, f"{against}; ours of writer and publisher alone")
    own = statistics.median(window.frames_per_cpu_second for window in windows)
    goal = {"goal": ">= 5000", "load": load}
    results.figure("e2e.cpu.frames per CPU-second", round(own), "frames/CPU-s", **goal)
    theirs = statistics.median(page.frames_per_cpu_second for page in pages)
    results.figure("e2e.cpu.frames per CPU-second, page", round(theirs), "frames/CPU-s", load=f"{CPU_KB} KB, unpaced")
    for role in (*OWN_ROLES, "redis", "rabbitmq"):
        used = statistics.median(window.cpu.get(role, 0.0) / window.stored * 1000 for window in windows)
        results.figure(f"e2e.cpu.{role}", round(used, 4), "CPU-s per 1,000 frames", load=load)
    for role, sizes in memory.items():
        if role in OWN_ROLES:
            name, value = ("capture, each", statistics.mean(sizes)) if role == "capture" else (role, sum(sizes))
            results.figure(f"e2e.memory.{name}", round(value, 1), "MB (PSS, rings apart)", load=load)


def _cpu_ratio(results: Results, name: str, pages: Sequence[PageRun], windows: Sequence[Window], against: str) -> None:
    storing = "storing" in name
    ours = [w.frames_per_storing_cpu_second if storing else w.frames_per_cpu_second for w in windows]
    theirs = [page.frames_per_cpu_second for page in pages]
    results.ratio(
        name,
        statistics.median(our / their for our, their in zip(ours, theirs, strict=True)),
        against=against,
        runs={"ours": [round(value) for value in ours], "page": [round(value) for value in theirs]},
    )


def test_latency_against_the_page(
    benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path, rabbitmq: RabbitMQ
) -> None:
    """Time from a frame's stamp until it can be read, and until a consumer has its event, both at the same rate."""
    cameras = scale.pick(2, 25, 25)
    seconds = scale.pick(1.0, 2.0, 5.0)
    pages: list[PageRun] = []
    windows: list[Window] = []
    announced: dict[str, list[float]] = {"ours": [], "page": []}

    def one() -> None:
        with page_server(directory) as server, consumer(rabbitmq.url("latency-page")) as found:
            pages.append(page_run(server, rabbitmq.url("latency-page"), KB, seconds, cameras * FPS))
        announced["page"] += found
        with ExitStack() as stack:
            watch = stack.enter_context(
                running_site(directory, pattern_cameras(cameras, KB), (rabbitmq, "latency"), settle=steady(scale))
            )
            with consumer(rabbitmq.url("latency")) as found:
                windows.append(watch.window(seconds))
            announced["ours"] += found

    for name in ("latency", "latency-page"):
        add_vhost(rabbitmq, name)
    benchmark.pedantic(one, rounds=scale.pick(1, 1, 3))
    assert len(announced["ours"]) >= 0.9 * sum(window.stored for window in windows)
    assert len(announced["page"]) >= 0.9 * sum(page.frames for page in pages)
    load = f"{cameras} cameras x {FPS} fps x {KB} KB"
    merged = histogram.merge(window.latency for window in windows)
    stored = {
        "ours": {"p50": histogram.percentile(merged, 0.5), "p99": histogram.percentile(merged, 0.99)},
        "page": {"p50": _page_share(pages, 0.5), "p99": _page_share(pages, 0.99)},
    }
    stored["ours"]["max"] = histogram.percentile(merged, 1.0)
    stored["page"]["max"] = _page_share(pages, 1.0)
    for side, values in stored.items():
        for name, value in values.items():
            results.figure(f"e2e.latency.readable {name}, {side}", round(value, 3), "ms", load=load)
    for side, late in announced.items():
        for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            results.figure(f"e2e.latency.announced {name}, {side}", round(share(late, part), 3), "ms", load=load)
    paced = "frames per CPU-second of the page's loop at the same rate"
    _cpu_ratio(results, "e2e.cpu.storing.page at the same rate", pages, windows, f"{paced} ({load})")
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        pairs = [
            _page_share([page], part) / window.percentile(part) for page, window in zip(pages, windows, strict=True)
        ]
        results.ratio(
            f"e2e.latency.{name}.page",
            statistics.median(pairs),
            against=f"{name} from arrival to stored of the page's loop at the same rate ({load})",
            runs=[round(pair, 3) for pair in pairs],
        )


def _page_share(pages: Sequence[PageRun], part: float) -> float:
    return 1000 * share([late for page in pages for late in page.latencies], part)


def room(cameras: int, ring_mb: int = 4) -> tuple[int, int]:
    """Bytes that a try needs, in all and in /dev/shm: frames in Redis with some expired ones, rings, processes."""
    shared = cameras * (ring_mb * MIB + MIB // 8)
    return shared + int(cameras * (FPS * KB * 1024 * TTL_SECONDS * 1.4 + 12 * MIB)), shared


class Probe(NamedTuple):
    """One try at a number of cameras."""

    cameras: int
    window: Window
    carried: bool


def test_cameras_without_a_loss(
    benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path, rabbitmq: RabbitMQ
) -> None:
    """The number of cameras that run with no frame dropped: short tries upwards, then a long run at their result.

    A ring holds seconds of frames, which would hide an excessive rate from a short try. So its rings are small.
    """
    if scale.mode == "quick":
        pytest.skip("one short try says nothing of the most")
    steps = scale.pick((4,), (), (25, 50, 100, 150, 200, 250, 300))
    seconds = scale.pick(1.0, 0.0, 5.0)
    length = scale.pick(0.0, 0.0, 30.0)
    deadline = time.monotonic() + 240
    probes: list[Probe] = []
    pages: list[PageRun] = []

    def probe(cameras: int, seconds: float, ring_mb: int) -> Probe:
        listed = pattern_cameras(cameras, KB)
        with running_site(directory, listed, (rabbitmq, "many"), ring_mb=ring_mb, settle=steady(scale)) as watch:
            window = watch.window(seconds)
        offered = cameras * FPS * window.seconds
        carried = not window.dropped and min(window.captured, window.stored) >= CARRIED * offered
        return Probe(cameras, window, carried)

    def search() -> None:
        for cameras in steps:
            if not results.fits(f"e2e.{cameras} cameras", *room(cameras)):
                break
            # A burst of other work may fail one try; an excessive rate fails the next one too.
            tried = probe(cameras, seconds, 4)
            probes.append(tried if tried.carried else probe(cameras, seconds, 4))
            if not probes[-1].carried:
                break

    def confirm() -> Probe | None:
        """The most that a long run carries; None if time runs out first."""
        for cameras in sorted({tried.cameras for tried in probes if tried.carried}, reverse=True):
            if not results.fits(f"e2e.{cameras} cameras for {length:.0f} s", *room(cameras, ring_mb=8)):
                continue
            if time.monotonic() + length > deadline:
                return None
            long = probe(cameras, length, 8)
            if long.carried:
                return long
        return None

    add_vhost(rabbitmq, "many")
    with page_server(directory) as server:
        pages.append(page_run(server, rabbitmq.url("many"), KB, seconds))
    benchmark.pedantic(search, rounds=1)
    long = confirm() if length else None
    if length:
        with page_server(directory) as server:
            pages.append(page_run(server, rabbitmq.url("many"), KB, seconds))
    carried = [tried for tried in probes if tried.carried]
    best = long or (carried[-1] if carried and not length else None)
    if scale.mode == "once":
        assert probes[0].window.stored > 0
        return
    page = statistics.mean(run.frames_per_second for run in pages) / FPS
    most = best.cameras if best else 0
    tries = [f"{tried.cameras}: {'carried' if tried.carried else 'not'}" for tried in probes]
    rate = f"x {FPS} fps x {KB} KB"
    seen = f"{best.window.seconds:.0f} s" if best else "no run"
    results.figure("e2e.cameras.without a loss", most, f"cameras {rate}", seen_over=seen, goal=">= 100", tries=tries)
    results.figure("e2e.cameras.page", round(page, 1), f"cameras {rate}", how="its frames per second / 30, unpaced")
    for name, part, goal in (("p50", 0.5, "<= 3"), ("p99", 0.99, "<= 25"), ("max", 1.0, "")):
        if best:
            late = round(best.window.percentile(part), 3)
            results.figure(f"e2e.cameras.readable {name} at the most", late, "ms", load=f"{most} cameras {rate}")
        for tried in probes:
            if tried.cameras == 100:
                late = round(tried.window.percentile(part), 3)
                note = {"load": f"{tried.cameras} cameras {rate}"} | ({"goal": goal} if goal else {})
                results.figure(f"e2e.cameras.readable {name} at 100", late, "ms", **note)
    results.curve(
        "e2e.growth of latency",
        "cameras",
        "ms from capture to readable",
        {
            name: [(tried.cameras, round(tried.window.percentile(part), 3)) for tried in carried]
            for name, part in (("p50", 0.5), ("p99", 0.99))
        },
        note="sizes that were carried; the busier the two cores, the longer a process waits for one",
    )
    results.curve(
        "e2e.growth of CPU",
        "cameras",
        "CPU-seconds per 1,000 frames",
        {
            role: [
                (tried.cameras, round(tried.window.cpu.get(role, 0.0) / max(tried.window.stored, 1) * 1000, 4))
                for tried in probes
            ]
            for role in ("capture", "writer", "publisher")
        },
        note="with more cameras a round trip carries more frames, so that a frame costs less",
    )
    for cameras in steps:
        if cameras not in {tried.cameras for tried in probes} and f"e2e.{cameras} cameras" not in results.skipped:
            results.skip(f"e2e.{cameras} cameras", f"{probes[-1].cameras} cameras {rate} were not carried already")
    results.ratio(
        "e2e.cameras.page",
        most / page,
        against="cameras that the page's one process could carry if reading them cost nothing",
        runs={"tries": tries, "page": [round(run.frames_per_second) for run in pages]},
    )
