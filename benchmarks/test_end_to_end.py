"""A whole site against the product page's way: latency, CPU, memory, and the number of cameras without a loss.

The site is ``edge-video run`` with test cameras, the embedded Valkey and a real RabbitMQ. The page's way is one Python
process that takes ready frames and calls ``r.setex`` and ``channel.basic_publish`` for each, as the page shows. It uses
the same kind of server, over a Unix socket like the site. It reads no camera, requests no confirms and keeps no
journal.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.events import consumer, share
from benchmarks.harness import Results, Scale
from benchmarks.measured_site import (
    CARRIED,
    FPS,
    OWN_ROLES,
    TTL_SECONDS,
    Window,
    add_vhost,
    pattern_cameras,
    running_site,
    steady,
)
from benchmarks.most import confirm, search
from benchmarks.page_peers import PageRun, page_run, page_server
from engine.runtime.status_processes import MIB
from engine.shm import histogram
from tests.servers.rabbitmq import RabbitMQ

#: Frame sizes: for the CPU figure, and for all others.
CPU_KB, KB = 48, 60
#: Tries at the most cameras behind the first ones, and seconds after which none begins.
TRIES_MAX, TRIES_SECONDS = 6, 80.0
#: Rings of the longer run at the most.
LONG_RING_MB = 8


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
        announced["page"] += [event.age_ms for event in found]
        with ExitStack() as stack:
            watch = stack.enter_context(
                running_site(directory, pattern_cameras(cameras, KB), (rabbitmq, "latency"), settle=steady(scale))
            )
            with consumer(rabbitmq.url("latency")) as found:
                windows.append(watch.window(seconds))
            announced["ours"] += [event.age_ms for event in found]

    for name in ("latency", "latency-page"):
        add_vhost(rabbitmq, name)
    benchmark.pedantic(one, rounds=scale.pick(1, 1, 2))
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


def room(cameras: int, ring_mb: int) -> tuple[int, int]:
    """Bytes that a try needs, in all and in /dev/shm: frames in Redis with some expired ones, rings, processes."""
    shared = cameras * (ring_mb * MIB + MIB // 8)
    return shared + int(cameras * (FPS * KB * 1024 * TTL_SECONDS * 1.4 + 12 * MIB)), shared


class Probe(NamedTuple):
    """One try at a number of cameras."""

    cameras: int
    window: Window
    carried: bool

    @property
    def cores_used(self) -> float:
        return sum(self.window.cpu.values()) / self.window.seconds


def test_cameras_without_a_loss(
    benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path, rabbitmq: RabbitMQ
) -> None:
    """The number of cameras that run with no frame dropped: short tries, then a longer run at their result.

    A ring holds seconds of frames, which would hide an excessive rate from a short try. So its rings are small.
    """
    if scale.mode == "quick":
        pytest.skip("one short try says nothing of the most")
    seconds, length = scale.pick(1.0, 0.0, 4.0), scale.pick(0.0, 0.0, 20.0)
    pages: list[PageRun] = []
    probes: list[Probe] = []

    def probe(cameras: int, seconds: float = seconds, ring_mb: int = 4) -> Probe:
        listed = pattern_cameras(cameras, KB)
        with running_site(directory, listed, (rabbitmq, "many"), ring_mb=ring_mb, settle=steady(scale)) as watch:
            window = watch.window(seconds)
        offered = cameras * FPS * window.seconds
        carried = not window.dropped and min(window.captured, window.stored) >= CARRIED * offered
        return Probe(cameras, window, carried)

    def find() -> None:
        # The smaller of the first is there for the curves.
        first, more = scale.pick((4,), (), (25, 100)), scale.pick(0, 0, TRIES_MAX)
        fits = lambda cameras: results.fits(f"e2e.{cameras} cameras", *room(cameras, LONG_RING_MB))  # noqa: E731
        probes.extend(search(probe, first, tries_max=more, seconds_max=TRIES_SECONDS, fits=fits))

    add_vhost(rabbitmq, "many")
    with page_server(directory) as server:
        pages.append(page_run(server, rabbitmq.url("many"), KB, seconds))
    benchmark.pedantic(find, rounds=1)
    if not probes:
        pytest.skip("this machine has no room for the first try")
    if scale.mode == "once":
        assert probes[0].window.stored > 0
        return
    carried = sorted((tried for tried in probes if tried.carried), key=lambda tried: tried.cameras)
    best = confirm(lambda cameras: probe(cameras, length, LONG_RING_MB), carried[-1].cameras) if carried else None
    with page_server(directory) as server:
        pages.append(page_run(server, rabbitmq.url("many"), KB, seconds))
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
                for tried in carried
            ]
            for role in ("capture", "writer", "publisher")
        },
        note="with more cameras a round trip carries more frames, so that a frame costs less",
    )
    results.ratio(
        "e2e.cameras.page",
        most / page,
        against="cameras that the page's one process could carry if reading them cost nothing",
        runs={"tries": tries, "page": [round(run.frames_per_second) for run in pages]},
    )
