"""H.264 cameras over RTSP: what a camera costs in each mode, and how many run without a loss.

The cameras are one process on the same two cores (``tests/servers/rtsp_video.py``). It encodes nothing: it sends the
access units of a clip over TCP, 720p at 15 frames a second and 2.5 Mbit/s, with a key frame every 2 s. The clip is a
street, scaled up, or a test picture where that clip is missing. The process's CPU is shown, but is not the engine's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import Results, Scale, cpu_seconds, quotients
from benchmarks.measured_site import CARRIED, OWN_ROLES, Watch, Window, add_vhost, running_site, steady
from benchmarks.most import confirm, most, search
from benchmarks.video_peers import Readers, Work
from engine.runtime.status_processes import MIB, own_memory
from tests.servers.clips import Stream, make_clip, read_clip, street_clip
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.rtsp_video import RtspVideo

FPS = 15
#: Seconds from one key frame to the next.
GOP_SECONDS = 2.0
LOAD = f"720p x {FPS} fps x 2.5 Mbit/s"
#: Shared memory of a camera's two rings, in MiB.
RINGS = {"ring_mb": 2, "video": {"capacity_mb": 4}}
#: Tries at the most cameras behind the first one, and seconds after which none begins.
TRIES_MAX, TRIES_SECONDS = 6, 100.0
#: Seconds of the run that must carry the most.
LONG_SECONDS = 20.0
#: Groups of cameras that are measured side by side: the keys of a camera in each. There are many of the first, so that
#: the writer works as at a dense site.
GROUPS: dict[str, dict[str, Any]] = {
    "video": {"video": True, "decode": "none"},
    "key": {"decode": "key"},
    "video and key": {"video": True, "decode": "key"},
    "all": {"decode": "all"},
}


@pytest.fixture(scope="module")
def stream(scale: Scale, tmp_path_factory: pytest.TempPathFactory) -> Stream:
    path = tmp_path_factory.mktemp("clips") / "street.mp4"
    if scale.mode == "once":
        return read_clip(make_clip(path, seconds=4, fps=FPS, gop=round(FPS * GOP_SECONDS)))
    return read_clip(street_clip(path, seconds=20))


def cameras_of(urls: Sequence[str], **keys: Any) -> list[dict[str, Any]]:
    return [{"id": f"cam{number}", "url": url, **keys} for number, url in enumerate(urls)]


class Probe(NamedTuple):
    """One try at a number of cameras. ``start`` is the time from the command until all were stored, in seconds;
    ``sender`` the CPU seconds of the process that plays the cameras."""

    cameras: int
    start: float
    window: Window
    sender: float
    memory: dict[str, list[float]]

    @property
    def cores(self) -> float:
        """The engine's own CPU, supervisor included."""
        return self.window.own_cpu / self.window.seconds

    @property
    def cores_used(self) -> float:
        """All CPU: servers and the sender included."""
        return (sum(self.window.cpu.values()) + self.sender) / self.window.seconds

    @property
    def carried(self) -> bool:
        """True if nothing was dropped, and all came that the cameras sent."""
        window, sent = self.window, self.cameras * self.window.seconds
        jpegs = window.stored - window.packets
        return (
            not window.dropped
            and window.packets >= CARRIED * sent * FPS
            and jpegs >= CARRIED * sent / GOP_SECONDS - self.cameras
        )


@contextmanager
def dense_site(
    directory: Path, stream: Stream, cameras: int, broker: tuple[RabbitMQ, str], settle: float
) -> Iterator[tuple[Watch, RtspVideo, float]]:
    """A site of ``cameras`` cameras with video and JPEGs of the key frames, their sender, and the seconds of its
    start."""
    with RtspVideo.alike(directory / "sender", stream, cameras) as sender:
        listed = cameras_of(sender.urls, video=True, decode="key")
        begun = time.monotonic()
        with running_site(directory, listed, broker, **RINGS) as watch:
            start = time.monotonic() - begun
            time.sleep(settle)
            yield watch, sender, start


@pytest.mark.timeout(600)
def test_video_cameras_without_a_loss(
    benchmark: BenchmarkFixture,
    results: Results,
    scale: Scale,
    directory: Path,
    rabbitmq: RabbitMQ,
    stream: Stream,
) -> None:
    """A hundred cameras, then short tries with more of them, and a longer run at the most."""
    if scale.mode == "quick":
        pytest.skip("one short try says nothing of the most")
    first, peers = scale.pick(2, 0, 100), scale.pick(1, 0, 4)
    seconds = scale.pick(1.0, 0.0, 60.0)
    probes: list[Probe] = []
    opencv: list[Work] = []

    def probe(cameras: int, seconds: float = 5.0) -> Probe:
        with dense_site(directory, stream, cameras, (rabbitmq, "video"), steady(scale)) as (watch, sender, start):
            before = cpu_seconds(sender.pid)
            window = watch.window(seconds)
            return Probe(cameras, start, window, cpu_seconds(sender.pid) - before, watch.memory())

    def peer() -> Work:
        with RtspVideo.alike(directory / "sender", stream, peers) as sender, Readers(sender.urls) as readers:
            before = readers.work()
            time.sleep(seconds / 5)
            return readers.work().since(before)

    def find() -> None:
        opencv.append(peer())
        tried = lambda cameras: probe(cameras, seconds if cameras == first else 5.0)  # noqa: E731
        fits = lambda cameras: results.fits(f"video.{cameras} cameras", *room(cameras))  # noqa: E731
        more = scale.pick(0, 0, TRIES_MAX)
        probes.extend(search(tried, [first], tries_max=more, seconds_max=TRIES_SECONDS, fits=fits))
        opencv.append(peer())

    add_vhost(rabbitmq, "video")
    benchmark.pedantic(find, rounds=1)
    if not probes:
        pytest.skip("this machine has no room for the first try")
    hundred = next((tried for tried in probes if tried.cameras == first and tried.carried), probes[0])
    assert hundred.window.packets > 0
    if scale.mode == "once":
        return
    best = most(probes)
    if best and best.cameras != first:
        best = confirm(lambda cameras: probe(cameras, LONG_SECONDS), best.cameras)
    show(results, hundred)
    tries = [f"{tried.cameras}: {'carried' if tried.carried else 'not'}" for tried in probes]
    count, seen = (best.cameras, f"{best.window.seconds:.0f} s") if best else (0, "no run")
    goal = {"goal": ">= 100"} if scale.mode == "full" else {}
    results.figure("video.cameras.without a loss", count, f"cameras {LOAD}", seen_over=seen, tries=tries, **goal)
    # What both cores could decode and encode, if nothing else ran on them.
    fill = [2 / (work.ms / 1e3 * FPS) for work in opencv]
    results.figure("video.cameras.opencv", round(statistics.mean(fill), 1), f"cameras {LOAD}", how="fill two cores")
    results.median(
        "video.cameras.opencv",
        [count / cameras for cameras in fill],
        against="cameras whose frames OpenCV could decode and encode on two cores that do nothing else",
    )


def show(results: Results, probe: Probe) -> None:
    """The figures of a run of a hundred cameras (fewer in a quick run)."""
    window, load = probe.window, f"{probe.cameras} cameras {LOAD}, JPEGs of key frames"
    name = f"video.{probe.cameras} cameras"
    goals = probe.cameras == 100
    results.figure(f"{name}.dropped", window.dropped, "frames and packets", load=load, **_goal("<= 0", goals))
    results.figure(f"{name}.own CPU", round(probe.cores, 3), "cores", load=load, **_goal("<= 1", goals))
    results.figure(f"{name}.start", round(probe.start, 1), "s until all are stored", load=load, **_goal("<= 15", goals))
    for role in (*OWN_ROLES, "redis", "rabbitmq"):
        results.figure(f"{name}.cpu.{role}", round(window.cpu.get(role, 0.0) / window.seconds, 3), "cores", load=load)
    sender = round(probe.sender / window.seconds, 3)
    results.figure(f"{name}.cpu.cameras", sender, "cores", load=f"{load}; the process that sends them")
    for part, at in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        results.figure(f"{name}.readable {part}", round(window.percentile(at), 3), "ms", load=load)
    own = statistics.mean(probe.memory["capture"])
    results.figure(f"{name}.memory", round(own, 1), "MB (PSS, rings apart) a camera's process", load=load)


def _goal(goal: str, given: bool) -> dict[str, str]:
    return {"goal": goal} if given else {}


def room(cameras: int) -> tuple[int, int]:
    """Bytes that a try needs, in all and in /dev/shm: rings, packets and JPEGs in Redis, processes."""
    shared = cameras * 7 * MIB
    return shared + cameras * (2 * 2 * MIB + 24 * MIB), shared


def test_cost_of_each_mode(
    benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path, stream: Stream
) -> None:
    """CPU and memory of a camera's process in each mode, and of a process with OpenCV, side by side at one time.

    All cameras send the same. What is stored also costs the writer: its CPU is divided among all frames and packets,
    although a frame has more bytes.
    """
    each = scale.pick(1, 2, 3)
    sizes = dict.fromkeys(GROUPS, each) | {"video": scale.pick(1, 20, 100)}
    seconds = scale.pick(2.0, 4.0, 6.0)
    runs: dict[str, list[float]] = {group: [] for group in (*GROUPS, "opencv", "writer")}
    memory: dict[str, float] = {}
    with RtspVideo.alike(directory / "sender", stream, sum(sizes.values()) + each) as sender:
        urls = iter(sender.urls)
        listed = [
            {"id": f"{group}-{number}", "url": next(urls), **keys}
            for group, keys in GROUPS.items()
            for number in range(sizes[group])
        ]
        with running_site(directory, listed, settle=steady(scale), **RINGS) as watch, Readers(list(urls)) as readers:

            def one() -> None:
                frames, cpu = readers.work(), _cpu_by_group(watch)
                window = watch.window(seconds)
                peer, spent = readers.work().since(frames), _cpu_by_group(watch)
                assert not window.dropped
                for group, size in sizes.items():
                    sent = size * FPS * window.seconds
                    runs[group].append((spent[group] - cpu[group]) / sent * 1e3)
                runs["opencv"].append(peer.ms)
                runs["writer"].append(window.cpu["writer"] / window.stored * 1e3)

            benchmark.pedantic(one, rounds=scale.pick(1, 1, 3))
            memory = _memory_by_group(watch)
    load = f"{len(listed)} cameras {LOAD} at one time, {sizes['video']} with video only, {each} of each other mode"
    for group, ms in runs.items():
        unit = "CPU ms for each frame sent" if group in GROUPS else "CPU ms a frame"
        results.figure(f"video.cpu.{group}", round(statistics.median(ms), 4), unit, load=load)
    stored, made = ([ms + writer for ms, writer in zip(runs[g], runs["writer"], strict=True)] for g in ("video", "all"))
    against = 'CPU of a frame that is decoded and encoded, with `decode = "all"`: capture on both sides'
    results.median("video.packet.capture", quotients(runs["all"], runs["video"]), against=against)
    against = "CPU of a frame that is decoded, encoded and stored: capture and writer on both sides"
    results.median("video.packet.stored", quotients(made, stored), against=against, goal=">= 12")
    against = '`decode = "all"` of the same cameras; a key frame every 2 s: CPU of capture'
    results.median("video.key.all", quotients(runs["all"], runs["key"]), against=against, goal=">= 6")
    against = "VideoCapture.read and imencode in a process a camera: CPU of a frame; ours also has the ring"
    results.median("video.all.opencv", quotients(runs["opencv"], runs["all"]), against=against)
    for group, goal in (("video", "<= 14"), ("video and key", "<= 24"), ("key", ""), ("all", "")):
        name, value = f"video.memory.{group}", round(memory[group], 1)
        results.figure(name, value, "MB (PSS, rings apart)", load=load, **_goal(goal, bool(goal)))
    against = 'memory of a camera\'s process with `decode = "all"`'
    for group in ("video", "video and key"):
        results.ratio(f"video.memory.{group}", memory["all"] / memory[group], against=against)


def _captures(watch: Watch) -> Iterator[tuple[str, int]]:
    """The group and the process id of each camera's process."""
    for process in watch.site.status()["processes"]:
        if process["role"] == "capture" and process["alive"]:
            yield process["camera"].rpartition("-")[0], process["pid"]


def _cpu_by_group(watch: Watch) -> dict[str, float]:
    found = dict.fromkeys(GROUPS, 0.0)
    for group, pid in _captures(watch):
        found[group] += cpu_seconds(pid)
    return found


def _memory_by_group(watch: Watch) -> dict[str, float]:
    """MiB of a camera's process, on average."""
    found: dict[str, list[float]] = {}
    for group, pid in _captures(watch):
        found.setdefault(group, []).append(own_memory(pid) / MIB)
    return {group: statistics.mean(sizes) for group, sizes in found.items()}
