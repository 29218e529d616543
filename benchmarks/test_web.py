"""The web role: what it costs the engine that it runs beside, and what its answers cost itself.

The reference of an answer is a plain server on the same event loop, which answers from memory and has no Redis, no
routes and no checks: the limit. The clients have a process of their own, whose CPU is nobody's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import OURS, Results, Scale, cpu_seconds, in_turns, quotients
from benchmarks.measured_site import Watch, Window, add_vhost, pattern_cameras, running_site, steady
from benchmarks.web_load import Loaded, asking, browsing, first_bytes, idling, load, paced, streaming
from benchmarks.web_peers import plain_server
from engine.runtime.status_processes import MIB, own_memory
from tests.servers.clips import read_clip, street_clip
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.rtsp_video import Mount, RtspVideo
from tests.servers.wait import free_port, wait_until

KB = 60
#: Of the dashboard's wall: each tile's picture once a second, at the width of a tile, and the site every two seconds.
TILE_WIDTH = 320
#: A film of a minute is asked for; frames live a while longer.
FILM_SECONDS, FILM_TTL_SECONDS = 60, 120


class Web:
    """A site that runs with its web role."""

    def __init__(self, watch: Watch, port: int) -> None:
        self.watch = watch
        self.port = port
        self.pid = next(pid for pid, role in watch.roles().items() if role == "web")

    def get(self, path: str) -> bytes:
        """The body of one answer."""
        return first_bytes(self.port, path)[1]

    def cpu_of(self, seconds: float) -> float:
        """CPU seconds of the web process in so many seconds from now."""
        before = cpu_seconds(self.pid)
        time.sleep(seconds)
        return cpu_seconds(self.pid) - before


@contextmanager
def web_site(
    directory: Path, cameras: list[dict[str, Any]], broker: tuple[RabbitMQ, str] | None = None, **options: Any
) -> Iterator[Web]:
    """A site with the web role on a free port, which answers when the block begins."""
    port = free_port()
    with running_site(directory, cameras, broker, web={"listen": f"127.0.0.1:{port}"}, **options) as watch:
        wait_until(lambda: _answers(port), 60, f"it answers; log:\n{watch.site.log_text()[-2000:]}")
        yield Web(watch, port)


def _answers(port: int) -> bool:
    try:
        return bool(first_bytes(port, "/live"))
    except OSError:
        return False


def pictures(cameras: int, query: str = "") -> list[str]:
    return [f"/api/v1/cameras/cam{number}/latest.jpg{query}" for number in range(cameras)]


def dashboard_requests(cameras: int) -> list[tuple[str, float]]:
    """What a page of the dashboard asks for, and every how many seconds."""
    return [*((path, 1.0) for path in pictures(cameras, f"?width={TILE_WIDTH}")), ("/api/v1/status", 2.0)]


def test_the_engine_beside_a_scrape_and_a_dashboard(
    benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path, rabbitmq: RabbitMQ
) -> None:
    """The engine's own CPU a frame, without the web role and with it: scraped each second, its dashboard open."""
    cameras = scale.pick(2, 20, 20)
    fps = scale.pick(5, 30, 30)
    seconds = scale.pick(1.2, 4.0, 8.0)
    add_vhost(rabbitmq, "web")
    target = (rabbitmq, "web")
    listed = pattern_cameras(cameras, KB, fps)
    shown: list[Loaded] = []
    web_cpu: list[float] = []

    def without() -> Window:
        with running_site(directory, listed, target, settle=steady(scale)) as watch:
            return watch.window(seconds)

    def beside() -> Window:
        with (
            web_site(directory, listed, target, settle=steady(scale)) as web,
            load(paced, web.port, [("/metrics", 1.0)]),
        ):
            viewer = (
                load(browsing, web.port) if scale.mode == "full" else load(paced, web.port, dashboard_requests(cameras))
            )
            with viewer as seen:
                seen.begin()
                window = web.watch.window(seconds)
                shown.append(seen.end())
                web_cpu.append(window.cpu["web"] / window.seconds * 100)
                return window

    windows = in_turns(benchmark, {"without": without, OURS: beside}, rounds=scale.pick(1, 2, 3), warmup=0)
    alone, ours = windows["without"], windows[OURS]
    assert not any(window.dropped for window in (*alone, *ours))
    assert all(window.stored for window in (*alone, *ours))
    assert all(loaded.answers for loaded in shown)
    costs = {
        name: [window.own_cpu / window.stored * 1e3 for window in side]
        for name, side in (("alone", alone), ("ours", ours))
    }
    load_text = f"{cameras} cameras x {fps} fps x {KB} KB, /metrics each second, the dashboard open"
    results.ratio(
        "web.engine",
        statistics.median(quotients(costs["alone"], costs["ours"])),
        against="the engine's own CPU a frame of the same site without the web role",
        runs={
            "ms a frame with it": [round(cost, 4) for cost in costs["ours"]],
            "ms a frame without": [round(cost, 4) for cost in costs["alone"]],
        },
    )
    results.figure("web.engine.dropped", sum(window.dropped for window in ours), "frames", load=load_text, goal="<= 0")
    results.figure("web.engine.own cpu", round(statistics.median(web_cpu), 1), "% of a core, of web", load=load_text)
    results.figure(
        "web.engine.pictures",
        round(statistics.median(one.per_second for one in shown), 1),
        "shown a second",
        load=load_text,
    )


def test_newest_pictures(benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path) -> None:
    """``latest.jpg``: requests that a CPU second of web answers, and how long they take, beside the plain server."""
    connections = scale.pick(2, 16, 16)
    seconds = scale.pick(0.3, 2.0, 5.0)
    cameras = 8
    costs: dict[str, list[float]] = {"ours": [], "plain": []}

    def measured(port: int, pid: int, side: str) -> Loaded:
        with load(asking, port, pictures(cameras), connections) as clients:
            before = cpu_seconds(pid)
            clients.begin()
            time.sleep(seconds)
            loaded = clients.end()
            costs[side].append((cpu_seconds(pid) - before) / max(loaded.answers, 1))
            return loaded

    with web_site(directory, pattern_cameras(cameras, KB, 10)) as web, plain_server(KB * 1000) as plain:
        wait_until(lambda: len(web.get(pictures(cameras)[-1])) > 1000, 30, "frames are stored")
        found = in_turns(
            benchmark,
            {
                "plain": lambda: measured(plain.port, plain.pid, "plain"),
                OURS: lambda: measured(web.port, web.pid, "ours"),
            },
            rounds=scale.pick(1, 2, 3),
            warmup=scale.pick(0, 1, 1),
        )
        rounds = len(found[OURS])
        ours, theirs = (costs[side][-rounds:] for side in ("ours", "plain"))
        p99 = {side: [percentile(one.latencies, 0.99) for one in loaded] for side, loaded in found.items()}
        text = f"{connections} connections, {KB} KB, {cameras} cameras at 10 fps"
        results.ratio(
            "web.latest.cpu",
            statistics.median(quotients(theirs, ours)),
            against="CPU of a plain asyncio server that answers the same from memory",
            runs={
                "ms ours": [round(one * 1e3, 3) for one in ours],
                "ms plain": [round(one * 1e3, 3) for one in theirs],
            },
        )
        results.figure(
            "web.latest.rate",
            round(1 / statistics.median(ours)),
            "requests a CPU second of web",
            load=text,
            goal=">= 2000",
        )
        results.figure("web.latest.answered", round(statistics.median(one.per_second for one in found[OURS])),
                       "requests a second, beside clients, Redis and site", load=text)  # fmt: skip
        results.figure("web.latest.p99", round(statistics.median(p99[OURS]), 2), "ms", load=text)
        results.figure("web.latest.p99.plain", round(statistics.median(p99["plain"]), 2), "ms", load=text)
        # One at a time says how long an answer takes; many at once, how long a queue of them is.
        with (
            load(asking, web.port, pictures(cameras), 1) as one,
            load(asking, plain.port, pictures(cameras), 1) as other,
        ):
            alone, limit = one.over(seconds), other.over(0.3)
        results.figure("web.latest.p99 of one", round(percentile(alone.latencies, 0.99), 2), "ms",
                       load="1 connection", goal="<= 5")  # fmt: skip
        assert limit.answers


def percentile(seconds: list[float], share: float) -> float:
    """In milliseconds."""
    return sorted(seconds)[min(int(len(seconds) * share), len(seconds) - 1)] * 1e3


def test_streams_of_pictures(benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path) -> None:
    """50 viewers of ``stream.mjpeg`` at 10 fps: CPU of web, beside a plain server that sends the same from memory."""
    viewers = scale.pick(4, 50, 50)
    seconds = scale.pick(0.5, 3.0, 8.0)
    cameras, fps = 5, 10
    paths = [f"/api/v1/cameras/cam{number}/stream.mjpeg?fps={fps}" for number in range(cameras)]
    used: dict[str, list[float]] = {"ours": [], "plain": []}

    def measured(port: int, pid: int, side: str) -> float:
        with load(streaming, port, paths, viewers) as clients:
            before = cpu_seconds(pid)
            clients.begin()
            time.sleep(seconds)
            loaded = clients.end()
            cpu = cpu_seconds(pid) - before
            assert loaded.answers >= 0.5 * viewers * fps * seconds or scale.mode == "once"
            assert loaded.answers
            used[side].append(cpu / loaded.seconds * 100)
            return cpu / loaded.answers

    with web_site(directory, pattern_cameras(cameras, KB, fps)) as web, plain_server(KB * 1000, fps) as plain:
        found = in_turns(
            benchmark,
            {
                "plain": lambda: measured(plain.port, plain.pid, "plain"),
                OURS: lambda: measured(web.port, web.pid, "ours"),
            },
            rounds=scale.pick(1, 2, 3),
            warmup=0,
        )
    text = f"{viewers} viewers x {fps} fps x {KB} KB, {cameras} cameras"
    results.ratio(
        "web.streams.cpu",
        statistics.median(quotients(found["plain"], found[OURS])),
        against="CPU a part of a plain asyncio server that sends the same from memory",
        runs={side: [round(one * 1e3, 3) for one in costs] for side, costs in found.items()},
    )
    results.figure("web.streams.cpu", round(statistics.median(used["ours"]), 1), "% of a core", load=text, goal="<= 50")
    results.figure("web.streams.cpu.plain", round(statistics.median(used["plain"]), 1), "% of a core", load=text)


def test_a_film_begins(benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path) -> None:
    """``video.mp4`` of a minute: seconds to the first byte of the body, beside those of ``/live``."""
    stored = scale.pick(2, 6, FILM_SECONDS + 5)
    rounds = scale.pick(1, 5, 15)
    path = f"/api/v1/cameras/street/video.mp4?start=-{FILM_SECONDS}s&duration={FILM_SECONDS}s"
    clip = read_clip(street_clip(directory / "street.mp4"))
    with RtspVideo(directory / "video", {"/cam": Mount(clip)}) as street:
        camera = {"id": "street", "url": street.url("/cam"), "video": True, "decode": "key"}
        ttl = {"ttl_seconds": FILM_TTL_SECONDS}
        with web_site(directory, [camera], redis=ttl) as web:
            begun = time.monotonic()
            wait_until(lambda: time.monotonic() - begun >= stored, stored + 5, "a minute is stored")
            films: list[bytes] = []

            def film() -> float:
                at, body = first_bytes(web.port, path)
                films.append(body)
                return at

            found = in_turns(
                benchmark, {"live": lambda: first_bytes(web.port, "/live")[0], OURS: film}, rounds=rounds, warmup=1
            )
            before = cpu_seconds(web.pid)
            film()
            cpu = cpu_seconds(web.pid) - before
    assert all(film[4:8] == b"ftyp" and b"moof" in film for film in films)
    results.ratio(
        "web.film.first byte",
        statistics.median(quotients(found["live"], found[OURS])),
        against="seconds to the first byte of /live, on a new connection",
        runs={side: [round(at * 1e3, 2) for at in times] for side, times in found.items()},
    )
    text = f"{stored} s of H.264 are stored, {FILM_SECONDS} are asked for, {len(films[-1]) / 1e6:.1f} MB"
    results.figure(
        "web.film.first byte", round(statistics.median(found[OURS]) * 1e3, 1), "ms", load=text, goal="<= 100"
    )
    results.figure("web.film.cpu", round(cpu * 1e3, 1), "ms of CPU of web for the whole film", load=text)


def test_idle_connections(benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path) -> None:
    """Memory of web before and with 1,000 connections that ask for nothing, and of a plain server with as many."""
    connections = scale.pick(20, 1000, 1000)
    grown: dict[str, float] = {}
    total: dict[str, float] = {}
    cpu: list[float] = []

    def held(port: int, pid: int, side: str) -> None:
        before = own_memory(pid) / MIB
        with load(idling, port, connections) as clients:
            time.sleep(scale.pick(0.1, 1.0, 3.0))
            used = cpu_seconds(pid)
            assert not clients.over(scale.pick(0.2, 2.0, 10.0)).answers
            cpu.append((cpu_seconds(pid) - used) / scale.pick(0.2, 2.0, 10.0) * 100)
            total[side] = own_memory(pid) / MIB
            grown[side] = max(total[side] - before, 0.01)

    with web_site(directory, pattern_cameras(2, KB, 5)) as web, plain_server(KB * 1000) as plain:

        def both() -> None:
            held(plain.port, plain.pid, "plain")
            held(web.port, web.pid, "ours")

        benchmark.pedantic(both, rounds=1)
    text = f"{connections} idle connections"
    results.ratio(
        "web.idle.memory",
        grown["plain"] / grown["ours"],
        against="memory of a plain asyncio server for as many connections",
        runs={side: round(value, 2) for side, value in grown.items()},
    )
    results.figure("web.idle.memory", round(total["ours"], 1), "MB (PSS) of web", load=text, goal="<= 80")
    results.figure("web.idle.memory.grown", round(grown["ours"], 2), "MB for all of them", load=text)
    results.figure("web.idle.cpu", round(cpu[-1], 2), "% of a core, of web", load=text)


def test_scrapes(benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path) -> None:
    """CPU of web for a scrape of 100 cameras, beside prometheus-client that writes as many samples from memory."""
    cameras = scale.pick(3, 100, 100)
    scrapes = scale.pick(1, 5, 20)
    idle: list[float] = []
    small = [{"id": f"cam{number}", "url": "test://?size=320x240&fps=1&kb=10"} for number in range(cameras)]
    with web_site(directory, small, settle=scale.pick(0, 1, 3)) as web:
        samples = [line for line in web.get("/metrics").splitlines() if line and not line.startswith(b"#")]
        assert sum(b"camera_id=" in line for line in samples) > 10 * cameras
        registry = CollectorRegistry()
        gauge = Gauge("peer", "As many samples.", ["camera", "kind"], registry=registry)
        for number in range(len(samples)):
            gauge.labels(f"cam{number % 100}", f"{number // 100}").set(number)

        def ours() -> float:
            # A scrape a second: a younger one is answered with what was collected for the one before it.
            spent = web.cpu_of(1.0)
            before = cpu_seconds(web.pid)
            begun = time.monotonic()
            assert web.get("/metrics")
            time.sleep(max(1.0 - (time.monotonic() - begun), 0.0))
            idle.append(spent)
            return max(cpu_seconds(web.pid) - before - spent, 1e-6)

        def theirs() -> float:
            begun = time.process_time()
            generate_latest(registry)
            return time.process_time() - begun

        found = in_turns(benchmark, {"client": theirs, OURS: ours}, rounds=scrapes, warmup=scale.pick(0, 1, 1))
    results.ratio(
        "web.scrape.cpu",
        statistics.median(quotients(found["client"], found[OURS])),
        against="CPU of prometheus-client that writes as many samples and collects nothing",
        runs={side: [round(one * 1e3, 2) for one in spent] for side, spent in found.items()},
    )
    text = f"{cameras} cameras, {len(samples):,} samples"
    results.figure("web.scrape.cpu", round(statistics.median(found[OURS]) * 1e3, 1), "ms", load=text, goal="<= 50")
    results.figure("web.scrape.idle", round(statistics.median(idle) * 100, 2), "% of a core of web, unasked", load=text)
