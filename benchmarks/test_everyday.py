"""Sites as most are: a few cameras that speak HTTP or RTSP, Redis by TCP, an event a frame, a consumer that listens.

The cameras are a process of their own (``tests/servers/http_cameras.py``, ``rtsp_camera.py``, ``rtsp_video.py``), whose
CPU is shown and is nobody's. In each round the peers run right before the engine, with the same cameras, servers and
consumer: an ``ffmpeg`` a camera piped into redis-py, and the product page's way with OpenCV where the cores suffice.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.events import share
from benchmarks.everyday_peers import COPY, ENCODE, ffmpeg_pipes, opencv_loops
from benchmarks.everyday_site import RING_MB, Observed, Place, SiteRun
from benchmarks.harness import OURS, Results, Scale, in_turns, quotients
from benchmarks.measured_site import OWN_ROLES, Window, add_vhost
from benchmarks.video_peers import Work
from engine.shm import histogram
from tests.servers.clips import make_clip, read_clip, street_clip
from tests.servers.http_cameras import HttpCameras
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.rtsp_video import RtspVideo

KB = 48
#: Cameras of which the peer encodes every frame: more of them would not find enough of two cores.
ENCODED_MAX = 4
#: The engine's aims. CPU in milliseconds a frame, by load; latencies in milliseconds.
CPU_GOALS = {"8x30": "<= 0.38", "32x30": "<= 0.22"}
LATENCY_GOALS = {"readable": {"p50": "<= 3", "p99": "<= 8"}, "event": {"p50": "<= 3", "p99": "<= 10"}}
PERCENTILES = {"p50": 0.5, "p99": 0.99}


class Load(NamedTuple):
    """Cameras that send JPEG by HTTP, and the peers that run beside."""

    cameras: int
    fps: int
    peers: tuple[str, ...] = ()
    rounds: int = 1

    @property
    def name(self) -> str:
        return f"{self.cameras}x{self.fps}"


#: Of more frames a second than the first, OpenCV would lose most.
LOADS = (
    Load(4, 15, ("opencv", "ffmpeg")),
    Load(8, 30, ("ffmpeg", "copy"), 2),
    Load(32, 30, ("ffmpeg", "copy"), 2),
    Load(100, 30),
)


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
    if scale.mode != "full" and load.name not in scale.pick(("4x15",), ("8x30",), ()):
        pytest.skip("other loads give the first look")
    name, cameras = load.name, scale.pick(2, load.cameras, load.cameras)
    memory: list[float] = []
    with (
        HttpCameras(place.directory / "cameras", cameras, fps=load.fps, kilobytes=KB) as sender,
        place.observed(cameras) as seen,
    ):
        urls = sender.urls
        peers: dict[str, Any] = {
            "opencv": lambda: place.peer(opencv_loops, urls),
            "ffmpeg": lambda: place.peer(ffmpeg_pipes, urls[:ENCODED_MAX], ENCODE),
            "copy": lambda: place.peer(ffmpeg_pipes, urls, COPY, memory=memory),
        }
        sides = {peer: peers[peer] for peer in load.peers}
        sides[OURS] = lambda: place.run(cameras_of(urls), sender.pid)
        measured = in_turns(benchmark, sides, scale.pick(1, 1, load.rounds), warmup=0)
    runs: list[SiteRun] = measured.pop(OURS)
    title = f"{cameras} HTTP cameras x {load.fps} fps x {KB} KB"
    assert all(run.window.stored > 0.5 * cameras * load.fps * place.seconds for run in runs), runs
    record_cpu(results, name, title, runs, measured)
    record_latency(results, name, title, runs, seen)
    record_losses(results, name, title, runs, cameras * load.fps)
    if name == "32x30":
        record_publisher(results, title, runs)
    if name == "8x30":
        record_memory(results, title, runs[-1], statistics.median(memory), cameras)


def record_cpu(
    results: Results, name: str, load: str, runs: list[SiteRun], peers: dict[str, list[Work]], unit: str = "ms a frame"
) -> None:
    ours = [run.own_ms for run in runs]
    goal = {"goal": CPU_GOALS[name]} if name in CPU_GOALS else {}
    results.figure(f"everyday.cpu.{name}", round(statistics.median(ours), 3), unit, load=load, **goal)
    for role in (*OWN_ROLES, "rabbitmq"):
        used = round(statistics.median(run.ms(role) for run in runs), 4)
        results.figure(f"everyday.cpu.{name}.{role}", used, unit, load=load)
    sender = statistics.median(run.cameras_cpu / run.window.seconds for run in runs)
    results.figure(f"everyday.cpu.{name}.cameras", round(sender, 3), "cores of the process that sends them", load=load)
    loop = "and of the loop that stores each JPEG with SETEX and announces it"
    against = {
        "ffmpeg": f"an ffmpeg a camera that encodes JPEG, as the Go edition starts it (at most {ENCODED_MAX}), {loop}",
        "copy": f"an ffmpeg a camera that passes the JPEG on, {loop}",
        "opencv": "VideoCapture, imencode and SETEX, a thread a camera, without events",
    }
    for peer, works in peers.items():
        theirs = [work.ms for work in works]
        results.figure(f"everyday.cpu.{name}.{peer}", round(statistics.median(theirs), 3), "ms a frame", load=load)
        results.median(
            f"everyday.cpu.{name}.{peer}",
            quotients(theirs, ours),
            against=f"CPU a frame of {against[peer]} ({load})",
            unit="times less CPU",
            goal=">= 5" if peer == "ffmpeg" and name in CPU_GOALS else "",
        )


def record_latency(results: Results, name: str, load: str, runs: list[SiteRun], seen: Observed) -> None:
    """Latencies as figures; the delay of an event also as a ratio to the broker's own round trip."""
    merged = histogram.merge(run.window.latency for run in runs)
    each = [run.delays(seen) for run in runs]
    assert all(each), "events of followed cameras were seen"
    late = [delay for found in each for delay in found]
    trips = [trip for run in runs for trip in run.trips.ms]
    for percentile, part in PERCENTILES.items():
        for kind, value in (("readable", histogram.percentile(merged, part)), ("event", share(late, part))):
            what = "ms from capture to readable" if kind == "readable" else "ms from stored to received as an event"
            goal = LATENCY_GOALS[kind][percentile]
            results.figure(f"everyday.{kind}.{name}.{percentile}", round(value, 2), what, load=load, goal=goal)
        what = "ms: a message of that size, confirmed and received, beside the site"
        results.figure(f"everyday.broker.{name}.{percentile}", round(share(trips, part), 2), what, load=load)
        results.median(
            f"everyday.event.{name}.{percentile}.broker",
            [share(run.trips.ms, part) / share(found, part) for run, found in zip(runs, each, strict=True)],
            against=f"{percentile} of a message that the broker confirms and delivers, beside the same site ({load})",
            unit="of the delay",
        )


def record_publisher(results: Results, load: str, runs: list[SiteRun]) -> None:
    used = statistics.median(run.ms("publisher") * 1e3 for run in runs)
    results.figure("everyday.publisher.cpu", round(used, 1), "us an event", load=load, goal="<= 40")
    results.median(
        "everyday.publisher.pika",
        [run.trips.cpu_ms / run.ms("publisher") for run in runs],
        against=f"CPU of pika for a message that it publishes, has confirmed and receives, beside the site ({load})",
        unit="times less CPU",
    )


def record_losses(results: Results, name: str, load: str, runs: list[SiteRun], per_second: float) -> None:
    dropped = sum(run.window.dropped for run in runs)
    results.figure(f"everyday.dropped.{name}", dropped, "frames", load=load, goal="<= 0")
    results.median(
        f"everyday.stored.{name}",
        [run.window.stored / (per_second * run.window.seconds) for run in runs],
        against=f"the frames that the cameras' rate gives ({load})",
        unit="of the frames",
    )


def record_memory(results: Results, load: str, run: SiteRun, theirs: float, cameras: int) -> None:
    own = {role: sum(run.memory.get(role, ())) for role in OWN_ROLES}
    rings = cameras * RING_MB
    for role, size in own.items():
        results.figure(f"everyday.memory.{role}", round(size, 1), "MB (PSS, rings apart)", load=load)
    results.figure("everyday.memory.all", round(sum(own.values()), 1), "MB (PSS, rings apart)", load=load, goal="<= 65")
    results.figure(
        "everyday.memory.rings",
        rings,
        "MB of shared memory",
        load=f"{load}; {RING_MB} MB a camera, half of the default",
    )
    results.figure(
        "everyday.memory.copy", round(theirs, 1), "MB (PSS)", load=f"{load}; an ffmpeg a camera, and its loop"
    )
    against = f"memory of an ffmpeg a camera and of its loop; ours without rings ({load})"
    results.ratio("everyday.memory.copy", theirs / sum(own.values()), against=against, unit="times less")
    against = f"the same; ours with {RING_MB} MB of ring a camera"
    results.ratio(
        "everyday.memory.copy.rings", theirs / (sum(own.values()) + rings), against=against, unit="times less"
    )


def test_rtsp_jpeg_cameras(benchmark: BenchmarkFixture, results: Results, scale: Scale, place: Place) -> None:
    """JPEG by RTSP. GStreamer makes the pictures, which are small: each costs it some milliseconds."""
    if scale.mode == "quick":
        pytest.skip("HTTP cameras give the first look")
    cameras, fps = scale.pick(1, 8, 8), 15
    with (
        RtspCamera(place.directory / "cameras", codec="mjpeg", fps=fps) as sender,
        place.observed(cameras) as seen,
    ):
        urls = [sender.url] * cameras
        sides: dict[str, Any] = {
            "copy": lambda: place.peer(ffmpeg_pipes, urls, COPY),
            OURS: lambda: place.run(cameras_of(urls), sender.pid),
        }
        measured = in_turns(benchmark, sides, 1, warmup=0)
    runs: list[SiteRun] = measured.pop(OURS)
    title = f"{cameras} RTSP cameras x {fps} fps, JPEG of 768x432"
    assert all(run.window.stored > 0.5 * cameras * fps * place.seconds for run in runs), runs
    record_cpu(results, "rtsp jpeg", title, runs, measured)
    record_latency(results, "rtsp jpeg", title, runs, seen)
    record_losses(results, "rtsp jpeg", title, runs, cameras * fps)


def test_rtsp_h264_cameras(benchmark: BenchmarkFixture, results: Results, scale: Scale, place: Place) -> None:
    """H.264 by RTSP, stored as it is sent with JPEGs of the key frames, against an ffmpeg a camera that makes a JPEG of
    every frame."""
    if scale.mode == "quick":
        pytest.skip("HTTP cameras give the first look")
    cameras, fps = scale.pick(1, 8, 8), 15
    clip = place.directory / "clip.mp4"
    stream = read_clip(make_clip(clip) if scale.mode == "once" else street_clip(clip))
    with RtspVideo.alike(place.directory / "cameras", stream, cameras) as sender, place.observed(cameras):
        sides: dict[str, Any] = {
            "ffmpeg": lambda: place.peer(ffmpeg_pipes, sender.urls[:ENCODED_MAX], ENCODE),
            OURS: lambda: place.run(cameras_of(sender.urls, video=True, decode="key"), sender.pid),
        }
        measured = in_turns(benchmark, sides, 1, warmup=0)
    runs: list[SiteRun] = measured.pop(OURS)
    assert all(run.window.packets > 0.5 * cameras * fps * place.seconds for run in runs), runs
    title = f"{cameras} RTSP cameras x {fps} fps, H.264 of 720p; ours: video as sent and JPEGs of key frames"
    record_cpu(results, "rtsp h264", title, runs, measured, "ms a packet or JPEG")
    dropped = sum(run.window.dropped for run in runs)
    results.figure("everyday.dropped.rtsp h264", dropped, "frames and packets", load=title, goal="<= 0")


def test_idle_site(benchmark: BenchmarkFixture, results: Results, scale: Scale, place: Place) -> None:
    """Ten cameras at one frame a second, against an ffmpeg a camera."""
    if scale.mode != "full":
        pytest.skip("a lower rate of the same")
    cameras = 10
    with HttpCameras(place.directory / "cameras", cameras, fps=1, kilobytes=KB) as sender:

        def ours() -> Window:
            with place.site(cameras_of(sender.urls)) as watch:
                return watch.window(1.5 * place.seconds)

        sides: dict[str, Any] = {"copy": lambda: place.peer(ffmpeg_pipes, sender.urls, COPY), OURS: ours}
        measured = in_turns(benchmark, sides, 1, warmup=0)
    window: Window = measured[OURS][0]
    copy = measured["copy"][0].ms * cameras / 1e3
    load = f"{cameras} HTTP cameras x 1 fps x {KB} KB"
    own = window.own_cpu / window.seconds
    results.figure("everyday.idle", round(own * 100, 2), "% of a core", load=load, goal="<= 5")
    for role in OWN_ROLES:
        used = window.cpu.get(role, 0.0) / window.seconds * 100
        results.figure(f"everyday.idle.{role}", round(used, 2), "% of a core", load=load)
    results.figure("everyday.idle.copy", round(copy * 100, 2), "% of a core", load=load)
    results.ratio(
        "everyday.idle.copy",
        copy / own,
        against=f"CPU of an ffmpeg a camera and of their loop, without a supervisor ({load})",
        unit="times less",
    )
