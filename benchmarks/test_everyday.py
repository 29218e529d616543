"""Sites as most are: a few cameras that speak HTTP or RTSP, Redis by TCP, an event a frame, a consumer that listens.

The cameras are a process of their own (``tests/servers/http_cameras.py``, ``rtsp_camera.py``, ``rtsp_video.py``), whose
CPU is shown and is nobody's. In each round the peers run right before the engine, with the same cameras, servers and
consumer: an ``ffmpeg`` a camera piped into redis-py, and the product page's way with OpenCV where the cores suffice.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.events import consumer, delays, round_trips, share, stored
from benchmarks.everyday_peers import COPY, ENCODE, Peer, Servers, ffmpeg_pipes, opencv_loops
from benchmarks.harness import OURS, Results, Scale, cpu_seconds, in_turns, quotients
from benchmarks.measured_site import OWN_ROLES, Watch, Window, add_vhost, running_site
from benchmarks.video_peers import Work
from engine.shm import histogram
from tests.servers.clips import make_clip, read_clip, street_clip
from tests.servers.http_cameras import HttpCameras
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.rtsp_video import RtspVideo

KB = 48
#: Cameras whose journals are followed: enough for percentiles, and few enough to cost little.
FOLLOWED = 4
#: The engine's aims. CPU in milliseconds a frame, by load; latencies in milliseconds.
CPU_GOALS = {"8x30": "<= 0.38", "32x30": "<= 0.22"}
LATENCY_GOALS = {"readable": {"p50": "<= 3", "p99": "<= 8"}, "event": {"p50": "<= 3", "p99": "<= 10"}}
PERCENTILES = {"p50": 0.5, "p99": 0.99}


class Load(NamedTuple):
    """Cameras that send JPEG by HTTP, and what is compared there."""

    cameras: int
    fps: int
    rounds: int
    #: Whether an ffmpeg a camera, and OpenCV, are run beside. OpenCV has no chance with more frames.
    ffmpeg: bool = True
    opencv: bool = False

    @property
    def name(self) -> str:
        return f"{self.cameras}x{self.fps}"


LOADS = (
    Load(4, 15, 2, opencv=True),
    Load(8, 30, 2),
    Load(32, 30, 3),
    # Latency only. These take most of two cores by themselves.
    Load(100, 30, 1, ffmpeg=False),
)


class Day(NamedTuple):
    """What a site did in one window."""

    window: Window
    #: CPU seconds of the process that plays the cameras.
    cameras_cpu: float
    #: Milliseconds from stored to event, and of the broker's own round trips under the same load.
    delays: list[float]
    trips: list[float]
    memory: dict[str, list[float]]

    def ms(self, role: str) -> float:
        """CPU milliseconds a frame."""
        return self.window.cpu.get(role, 0.0) / self.window.stored * 1e3

    @property
    def own_ms(self) -> float:
        return self.window.own_cpu / self.window.stored * 1e3


class Place(NamedTuple):
    """Where sites and peers run: servers that stay up from round to round."""

    directory: Path
    redis: RedisServer
    broker: RabbitMQ
    vhost: str
    seconds: float
    settle: float

    @property
    def amqp_url(self) -> str:
        return self.broker.url(self.vhost)

    @property
    def servers(self) -> Servers:
        return Servers({"host": "127.0.0.1", "port": self.redis.port}, self.amqp_url)

    @contextmanager
    def site(self, cameras: list[dict[str, Any]], ring_mb: int = 4) -> Iterator[Watch]:
        address = {"address": self.redis.address}
        target = (self.broker, self.vhost)
        with running_site(self.directory, cameras, target, ring_mb=ring_mb, settle=self.settle, redis=address) as watch:
            yield watch

    def day(self, cameras: list[dict[str, Any]], sender_pid: int, *, ring_mb: int = 4) -> Day:
        """A site of ``cameras``: CPU and latencies in one window, and the broker's round trips right after it."""
        followed = [camera["id"] for camera in cameras[:FOLLOWED]]
        with self.site(cameras, ring_mb) as watch, ExitStack() as seen:
            events = seen.enter_context(consumer(self.amqp_url))
            entries = seen.enter_context(stored(self.servers.redis, self.vhost, followed))
            before = cpu_seconds(sender_pid)
            window = watch.window(self.seconds)
            sender = cpu_seconds(sender_pid) - before
            seen.close()
            with consumer(self.amqp_url):
                trips = round_trips(self.amqp_url, max(10, round(self.seconds * 25)), 0.01)
            return Day(window, sender, delays(entries, events), trips, watch.memory())

    def peer(self, target: Any, urls: list[str], *arguments: Any, memory: list[float] | None = None) -> Work:
        """A peer's work, with a consumer of its events. Its memory is added to ``memory``."""
        with consumer(self.amqp_url), Peer(target, urls, self.servers, *arguments) as peer:
            time.sleep(self.settle / 2)
            work = peer.over(self.seconds)
            if memory is not None:
                memory.append(peer.memory())
        return work


@pytest.fixture
def place(scale: Scale, directory: Path, rabbitmq: RabbitMQ, request: pytest.FixtureRequest) -> Iterator[Place]:
    vhost = request.node.name.replace("[", "-").replace("]", "")
    add_vhost(rabbitmq, vhost)
    with RedisServer(directory / "redis") as server:
        yield Place(directory, server, rabbitmq, vhost, scale.pick(1.0, 3.0, 4.0), scale.pick(0.2, 2.0, 3.0))


def cameras_of(urls: list[str], **keys: Any) -> list[dict[str, Any]]:
    return [{"id": f"cam{number}", "url": url, **keys} for number, url in enumerate(urls)]


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_http_cameras(benchmark: BenchmarkFixture, results: Results, scale: Scale, place: Place, load: Load) -> None:
    """CPU a frame, latencies and losses of JPEG cameras, against an ffmpeg a camera and against OpenCV."""
    if scale.mode != "full" and load.name not in scale.pick(("4x15",), ("8x30", "32x30"), ()):
        pytest.skip("the smallest load shows that it works")
    name, cameras = load.name, scale.pick(2, load.cameras, load.cameras)
    memory: list[float] = []
    with HttpCameras(place.directory / "cameras", cameras, fps=load.fps, kilobytes=KB) as sender:
        sides: dict[str, Any] = {OURS: lambda: place.day(cameras_of(sender.urls), sender.pid)}
        if load.opencv:
            sides["opencv"] = lambda: place.peer(opencv_loops, sender.urls)
        if load.ffmpeg:
            sides["ffmpeg"] = lambda: place.peer(ffmpeg_pipes, sender.urls, COPY, memory=memory)
        measured = in_turns(benchmark, sides, scale.pick(1, 1, load.rounds), warmup=0)
    days: list[Day] = measured.pop(OURS)
    title = f"{cameras} HTTP cameras x {load.fps} fps x {KB} KB"
    assert all(day.window.stored > 0.5 * cameras * load.fps * place.seconds for day in days), days
    assert all(day.delays and day.trips for day in days)
    record_cpu(results, name, title, days, measured)
    record_latency(results, name, title, days)
    record_losses(results, name, title, days, cameras * load.fps)
    if name == "32x30":
        used = statistics.median(day.ms("publisher") * 1e3 for day in days)
        results.figure("everyday.publisher.cpu", round(used, 1), "us an event", load=title, goal="<= 40")
    if name == "8x30":
        record_memory(results, title, days[-1], statistics.median(memory), cameras * 4)


def record_cpu(
    results: Results, name: str, load: str, days: list[Day], peers: dict[str, list[Work]], unit: str = "ms a frame"
) -> None:
    ours = [day.own_ms for day in days]
    goal = {"goal": CPU_GOALS[name]} if name in CPU_GOALS else {}
    results.figure(f"everyday.cpu.{name}", round(statistics.median(ours), 3), unit, load=load, **goal)
    for role in (*OWN_ROLES, "rabbitmq"):
        used = round(statistics.median(day.ms(role) for day in days), 4)
        results.figure(f"everyday.cpu.{name}.{role}", used, unit, load=load)
    sender = statistics.median(day.cameras_cpu / day.window.seconds for day in days)
    results.figure(f"everyday.cpu.{name}.cameras", round(sender, 3), "cores of the process that sends them", load=load)
    against = {
        "ffmpeg": "CPU a frame of an ffmpeg a camera, and of the redis-py loop that stores and announces its JPEGs",
        "opencv": "CPU a frame of VideoCapture, imencode and SETEX, a thread a camera, without events",
    }
    for peer, works in peers.items():
        theirs = [work.ms for work in works]
        results.figure(f"everyday.cpu.{name}.{peer}", round(statistics.median(theirs), 3), unit, load=load)
        results.median(
            f"everyday.cpu.{name}.{peer}",
            quotients(theirs, ours),
            against=f"{against[peer]} ({load})",
            unit="times less CPU",
            **({"goal": ">= 5"} if peer == "ffmpeg" and name in CPU_GOALS else {}),
        )


def record_latency(results: Results, name: str, load: str, days: list[Day]) -> None:
    """Latencies as figures; the delay of an event also as a ratio to the broker's own round trip."""
    merged = histogram.merge(day.window.latency for day in days)
    late = [delay for day in days for delay in day.delays]
    trips = [trip for day in days for trip in day.trips]
    for percentile, part in PERCENTILES.items():
        for kind, value in (("readable", histogram.percentile(merged, part)), ("event", share(late, part))):
            what = "ms from capture to readable" if kind == "readable" else "ms from stored to received as an event"
            goal = LATENCY_GOALS[kind][percentile]
            results.figure(f"everyday.{kind}.{name}.{percentile}", round(value, 2), what, load=load, goal=goal)
        what = "ms: a message of that size, confirmed and received, beside the site"
        results.figure(f"everyday.broker.{name}.{percentile}", round(share(trips, part), 2), what, load=load)
        results.median(
            f"everyday.event.{name}.{percentile}.broker",
            [share(day.trips, part) / share(day.delays, part) for day in days],
            against=f"{percentile} of a message that the broker confirms and delivers, beside the same site ({load})",
            unit="of the delay",
        )


def record_losses(results: Results, name: str, load: str, days: list[Day], per_second: float) -> None:
    dropped = sum(day.window.dropped for day in days)
    results.figure(f"everyday.dropped.{name}", dropped, "frames", load=load, goal="<= 0")
    results.median(
        f"everyday.stored.{name}",
        [day.window.stored / (per_second * day.window.seconds) for day in days],
        against=f"the frames that the cameras' rate gives ({load})",
        unit="of the frames",
    )


def record_memory(results: Results, load: str, day: Day, theirs: float, rings_mb: float) -> None:
    own = {role: sum(day.memory.get(role, ())) for role in OWN_ROLES}
    for role, size in own.items():
        results.figure(f"everyday.memory.{role}", round(size, 1), "MB (PSS, rings apart)", load=load)
    results.figure("everyday.memory", round(sum(own.values()), 1), "MB (PSS, rings apart)", load=load, goal="<= 65")
    results.figure("everyday.memory.rings", rings_mb, "MB of shared memory", load=f"{load}, `capacity_mb = 4`")
    results.figure("everyday.memory.ffmpeg", round(theirs, 1), "MB (PSS)", load=load)
    results.ratio(
        "everyday.memory.ffmpeg",
        theirs / (sum(own.values()) + rings_mb),
        against=f"memory of an ffmpeg a camera with its redis-py loop; ours with the rings ({load})",
        unit="times less",
    )


def test_rtsp_jpeg_cameras(benchmark: BenchmarkFixture, results: Results, scale: Scale, place: Place) -> None:
    """JPEG by RTSP. GStreamer makes the pictures, which are small: each costs it some milliseconds."""
    if scale.mode == "quick":
        pytest.skip("HTTP cameras give the first look")
    cameras, fps = scale.pick(2, 8, 8), 15
    with RtspCamera(place.directory / "cameras", codec="mjpeg", fps=fps) as sender:
        urls = [sender.url] * cameras
        sides: dict[str, Any] = {
            "ffmpeg": lambda: place.peer(ffmpeg_pipes, urls, COPY),
            OURS: lambda: place.day(cameras_of(urls), sender.pid),
        }
        measured = in_turns(benchmark, sides, 1, warmup=0)
    days: list[Day] = measured.pop(OURS)
    title = f"{cameras} RTSP cameras x {fps} fps, JPEG of 768x432"
    assert all(day.window.stored > 0.5 * cameras * fps * place.seconds and day.delays for day in days), days
    record_cpu(results, "rtsp.jpeg", title, days, measured)
    record_latency(results, "rtsp.jpeg", title, days)
    record_losses(results, "rtsp.jpeg", title, days, cameras * fps)


def test_rtsp_h264_cameras(benchmark: BenchmarkFixture, results: Results, scale: Scale, place: Place) -> None:
    """H.264 by RTSP, stored as it is sent with JPEGs of the key frames, against an ffmpeg a camera that makes JPEGs of
    all."""
    if scale.mode == "quick":
        pytest.skip("HTTP cameras give the first look")
    cameras, fps = scale.pick(2, 8, 8), 15
    clip = place.directory / "clip.mp4"
    stream = read_clip(scale.pick(make_clip, street_clip, street_clip)(clip))
    with RtspVideo.alike(place.directory / "cameras", stream, cameras) as sender:
        listed = cameras_of(sender.urls, video=True, decode="key")
        sides: dict[str, Any] = {
            "ffmpeg": lambda: place.peer(ffmpeg_pipes, sender.urls, ENCODE),
            OURS: lambda: place.day(listed, sender.pid),
        }
        measured = in_turns(benchmark, sides, 1, warmup=0)
    days: list[Day] = measured.pop(OURS)
    assert all(day.window.packets > 0.5 * cameras * fps * place.seconds for day in days), days
    title = f"{cameras} RTSP cameras x {fps} fps, H.264 of 720p; ours: video as sent and JPEGs of key frames"
    record_cpu(results, "rtsp.h264", title, days, measured, "ms a packet or JPEG")
    record_losses(results, "rtsp.h264", title, days, cameras * fps)


def test_idle_site(benchmark: BenchmarkFixture, results: Results, scale: Scale, place: Place) -> None:
    """Ten cameras at one frame a second, against an ffmpeg a camera."""
    if scale.mode == "once":
        pytest.skip("a lower rate of the same")
    cameras = 10
    with HttpCameras(place.directory / "cameras", cameras, fps=1, kilobytes=KB) as sender:

        def ours() -> Window:
            with place.site(cameras_of(sender.urls)) as watch:
                return watch.window(2 * place.seconds)

        def theirs() -> float:
            with Peer(ffmpeg_pipes, sender.urls, place.servers, COPY) as peer:
                return peer.over(place.seconds).cpu_seconds / place.seconds

        sides: dict[str, Any] = {"ffmpeg": theirs, OURS: ours}
        measured = in_turns(benchmark, sides, 1, warmup=0)
    (window,), (ffmpeg,) = measured[OURS], measured["ffmpeg"]
    load = f"{cameras} HTTP cameras x 1 fps x {KB} KB"
    own = window.own_cpu / window.seconds
    results.figure("everyday.idle", round(own * 100, 2), "% of a core", load=load, goal="<= 5")
    for role in OWN_ROLES:
        used = window.cpu.get(role, 0.0) / window.seconds * 100
        results.figure(f"everyday.idle.{role}", round(used, 2), "% of a core", load=load)
    results.figure("everyday.idle.ffmpeg", round(ffmpeg * 100, 2), "% of a core", load=load)
    results.ratio(
        "everyday.idle.ffmpeg",
        ffmpeg / own,
        against=f"CPU of an ffmpeg a camera with its redis-py loop, which watches no process ({load})",
        unit="times less",
    )
