"""A site on a Redis Cluster of three masters and three replicas, beside the same site on one server.

Timed: whole sites in the middle of their work (``measured_site.py``), in turns. All servers are Valkey, reached by TCP,
on the same two cores. So the figures say what a frame takes in a cluster, and that nothing is lost. They do not say how
much six machines carry.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Results, Scale, cpu_seconds
from benchmarks.measured_site import Window, pattern_cameras, running_site, steady
from benchmarks.scale_model import Prediction
from benchmarks.simulate_site import Load, simulate
from tests.servers.redis_cluster import RedisCluster
from tests.servers.redis_server import RedisServer

KILOBYTES = 60


@contextmanager
def one_server(directory: Path) -> Iterator[tuple[dict[str, object], list[int]]]:
    with RedisServer(directory / "redis", binary="valkey") as server:
        yield {"address": server.address}, [server.pid]


@contextmanager
def cluster(directory: Path) -> Iterator[tuple[dict[str, object], list[int]]]:
    with RedisCluster(directory / "cluster", binary="valkey") as servers:
        yield {"cluster": servers.addresses}, [node.pid for node in servers.nodes]


def test_a_site_on_a_cluster(results: Results, scale: Scale, directory: Path) -> None:
    cameras = scale.pick(2, 20, 100)
    seconds = scale.pick(1.0, 5.0, 60.0)
    windows: dict[str, list[tuple[Window, float]]] = {"one server": [], "cluster": []}
    for number in range(scale.pick(1, 2, 2)):
        for side, place in (("one server", one_server), ("cluster", cluster)):
            work = directory / f"{side.replace(' ', '')}{number}"
            work.mkdir()
            with (
                place(work) as (redis, pids),
                running_site(work, pattern_cameras(cameras, KILOBYTES), redis=redis, settle=steady(scale)) as watch,
            ):
                before = sum(map(cpu_seconds, pids))
                window = watch.window(seconds)
                windows[side].append((window, (sum(map(cpu_seconds, pids)) - before) / window.stored))
                assert not window.dropped, f"{side}: {window.dropped} frames dropped"
    load = f"{cameras} cameras x 30 fps x {KILOBYTES} KB for {seconds:g} s"
    for side, found in windows.items():
        name = f"cluster.{side}"
        results.figure(f"{name}.stored", sum(window.stored for window, _ in found), "frames", load=load)
        for role in ("capture", "writer"):
            spent = statistics.median(window.cpu[role] / window.stored for window, _ in found)
            results.figure(f"{name}.cpu.{role}", round(1e6 * spent, 1), "us a frame", load=load)
        servers = statistics.median(spent for _, spent in found)
        results.figure(f"{name}.cpu.servers", round(1e6 * servers, 1), "us a frame, all servers together", load=load)
        for share in (0.5, 0.99):
            value = statistics.median(window.percentile(share) for window, _ in found)
            unit = "ms from capture to readable"
            results.figure(f"{name}.readable.p{100 * share:g}", round(value, 2), unit, load=load)
    ratios = [
        one.cpu["writer"] / one.stored / (many.cpu["writer"] / many.stored)
        for (one, _), (many, _) in zip(windows["one server"], windows["cluster"], strict=True)
    ]
    what = "the writer's CPU a frame with one server"
    results.median("cluster.cpu.one_server", ratios, against=what, unit="of its CPU (more is better)")


def test_the_model_of_many_cameras(results: Results, scale: Scale, directory: Path) -> None:
    load = Load(scale.pick(4, 20, 100), 30, KILOBYTES, scale.pick(1.0, 5.0, 60.0), 1, scale.pick(1, 2, 5), 8)
    found = simulate(directory, load)
    assert found["captured"] == found["stored"] > 0
    for made in (Prediction(**entry) for entry in found["predictions"]):
        results.figure(
            f"cluster.model.{made.what}", round(made.measured, 3), made.unit, predicted=round(made.predicted, 3)
        )
        # Short runs measure too little CPU to be predicted.
        assert made.good or scale.mode != "full", made
