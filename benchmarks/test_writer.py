"""The writer: frames from rings to Redis, each a new key with a TTL and a journal entry.

Timed: a WriterAgent with four full rings until Redis has acknowledged every frame. Not timed: filling the rings,
emptying the server before each measurement, connecting. Nothing is captured meanwhile, so these are the writer's own
figures; test_end_to_end measures a working site. The rings hold all frames of a round, many times what a cache holds.
The peers send from sixteen buffers, redis-benchmark from one, without journal and without transaction, which favours
them. All sides of a round run right after each other, on the same server.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import writer_peers as peers
from benchmarks.harness import Results, Scale
from benchmarks.in_process import InProcessWriter, Spent, site_config
from tests.servers.redis_server import RedisServer

Binary = Literal["redis-server", "valkey"]
CAMERAS = 4
#: The figures that the writer is built to, at this size.
GOAL_BYTES = 60 * 1024
GOALS = {"limit": ">= 0.9", "pipeline": ">= 2"}
MIB = 2**20
KIB = 1024


@pytest.fixture(params=["redis-server", "valkey"], ids=["redis", "valkey"])
def binary(request: pytest.FixtureRequest) -> Binary:
    found: Binary = request.param
    return found


@pytest.fixture(params=[True, False], ids=["unix", "tcp"])
def server(request: pytest.FixtureRequest, binary: Binary, directory: Path) -> Iterator[RedisServer]:
    with RedisServer(directory / "redis", binary=binary, unix=request.param) as running:
        yield running


@pytest.mark.parametrize("kilobytes", [20, 60, 200])
def test_frames_to_redis(
    benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path, server: RedisServer, kilobytes: int
) -> None:
    size = kilobytes * KIB
    frames = scale.pick(2, 12, 48) * MIB // size
    rounds = scale.pick(1, 2, 9)
    # 16 distinct payloads, so that no single one stays in the cache.
    payloads = [os.urandom(size) for _ in range(16)]
    views = [memoryview(payload) for payload in payloads]
    capacity_mb = -(-frames // CAMERAS) * (size + 128) // MIB + 2
    config = site_config(directory / "run", server.address, CAMERAS, ring={"capacity_mb": capacity_mb})
    # The number of frames in one of the writer's batches.
    depth = max(min(config.writer.batch_kb * KIB // size, config.writer.batch_frames), 1)
    sides: dict[str, list[Spent]] = {}
    client = server.client()

    def run(side: str, work: Callable[[], Spent]) -> None:
        client.flushall()
        sides.setdefault(side, []).append(work())
        # Every key is new, except for keys that are drawn twice by chance.
        assert client.dbsize() >= frames * 0.99

    with InProcessWriter(config) as writer:

        def others_and_refill() -> None:
            run("setex", lambda: peers.setex(client, frames, payloads))
            run("pipeline", lambda: peers.pipeline(client, frames, payloads, depth))
            for number in peers.DEPTHS:
                run(f"limit {number}", lambda number=number: peers.redis_benchmark(server, frames, size, number))
            client.flushall()
            writer.fill(frames, views)

        def ours() -> None:
            sides.setdefault("ours", []).append(writer.drain())

        def check() -> None:
            journals = client.keys("engine:*:journal:*")
            assert sum(client.xlen(journal) for journal in journals) == frames
            assert len(client.keys("default:frames:*")) == frames
            known = {bytes(payload) for payload in payloads}
            for key in client.keys("default:frames:*")[:: max(frames // 50, 1)]:
                assert client.get(key) in known
                assert 0 < client.ttl(key) <= peers.TTL_SECONDS

        warmup = scale.pick(0, 0, 1)
        benchmark.pedantic(ours, setup=others_and_refill, rounds=rounds, warmup_rounds=warmup)
        check()
    client.flushall()
    transport = "tcp" if server.socket_path is None else "unix"
    name = f"writer.{kilobytes}kb.{transport}.{'redis' if server.binary == 'redis-server' else 'valkey'}"
    _record(results, name, size, frames, {side: spent[-rounds:] for side, spent in sides.items()})


def _record(results: Results, name: str, size: int, frames: int, sides: dict[str, list[Spent]]) -> None:
    def median_rate(side: str) -> float:
        return statistics.median(frames / spent.seconds for spent in sides[side])

    best = max((side for side in sides if side.startswith("limit")), key=median_rate)
    for side, found in sides.items():
        per_second = median_rate(side)
        cpu = statistics.median(spent.cpu_seconds for spent in found) / frames * 1e6
        label = side.replace("limit ", "redis-benchmark.depth")
        results.figure(
            f"{name}.{label}.rate", round(per_second), "frames/s", mb_per_second=round(per_second * size / 1e6)
        )
        results.figure(f"{name}.{label}.cpu", round(cpu, 1), "us a frame of the client's CPU")
    against = {
        "limit": (best, f"redis-benchmark, PSETEX of the same size, {best.split()[1]} deep, its best"),
        "pipeline": (
            "pipeline",
            "a redis-py pipeline, SET PX and XADD; redis-benchmark's best, SET alone, is "
            f"{median_rate(best) / median_rate('pipeline'):.2f} times that",
        ),
        "setex": ("setex", "a SETEX a frame with redis-py, no journal"),
    }
    # The two rounds of a quick run say little about a race between processes; only a full run is guarded.
    suffix = "" if results.scale.mode == "full" else ".quick"
    for short, (side, what) in against.items():
        ratios = [theirs.seconds / ours.seconds for theirs, ours in zip(sides[side], sides["ours"], strict=True)]
        unit = "of its frames/s" if short == "limit" else "times its frames/s"
        goal = GOALS.get(short, "") if size == GOAL_BYTES else ""
        results.median(f"{name}.{short}{suffix}", ratios, against=what, unit=unit, goal=goal)
    cpus = [
        theirs.cpu_seconds / ours.cpu_seconds for theirs, ours in zip(sides["pipeline"], sides["ours"], strict=True)
    ]
    results.median(f"{name}.cpu", cpus, against="the client's CPU a frame of a redis-py pipeline", unit="times less")
