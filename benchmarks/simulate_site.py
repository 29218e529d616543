"""Drives the records of many simulated cameras through real writers into a real Redis Cluster on this machine, and
compares what that takes with what the model of docs/scale.md predicts.

    python -m benchmarks.simulate_site --cameras 100 --fps 30 --kb 60 --seconds 60

A process plays all cameras: it writes numbered frames into one ring a camera, at their rates. The writers are the
engine's own processes, started by its command; so are the servers: three masters, each with a replica. Two smaller
loads are measured first. A straight line through them, for each kind of process, predicts the CPU of the whole load
(``benchmarks/scale_model.py``). Memory is predicted from the sizes of frames alone (``engine/config/memory.py``). At
the end every frame must be stored, and listed in its camera's journal, in order.

The exit code is 1 if a frame is missing, or if a prediction is more than 20 % off.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import cpu_seconds, describe_run
from benchmarks.in_process import HEIGHT, WIDTH
from benchmarks.scale_model import SCALE, Line, Prediction, line_through
from engine.config import Config, from_document
from engine.config.memory import Seen, redis_memory
from engine.shm import ring_file, segment, site
from engine.shm.ring import Producer
from engine.shm.ring_file import Observer
from engine.shm.status_page import StatusPage
from engine.wire.keys import journal_key
from engine.wire.ring_owner import build_owner
from tests.servers.redis_cluster import RedisCluster
from tests.servers.wait import wait_until
from tests.system.site import COMMAND, ROOT, Site

#: Shares of the whole load that are measured to predict it.
SHARES = (0.4, 0.7)
#: Seconds before a measurement begins: frames expire as fast as they come, and the writers linger.
SETTLE_SECONDS = 1.0
#: Seconds that the writers may take to empty the rings at the end.
DRAIN_SECONDS = 60


class Load(NamedTuple):
    """What the simulated cameras send, and into what."""

    cameras: int
    fps: float
    kilobytes: int
    seconds: float
    writers: int
    ttl_seconds: int
    ring_mb: int

    @property
    def rate(self) -> float:
        """Frames a second of all cameras."""
        return self.cameras * self.fps


class Measured(NamedTuple):
    """What a load took: cores by kind of process, frames, and the servers' memory in bytes."""

    cores: dict[str, float]
    rate: float
    captured: int
    stored: int
    dropped: int
    memory_bytes: int
    listed: int


def play(config: Config, load: Load, control: Connection) -> None:
    """The process of the cameras: writes each camera's frames at its rate until it is told to stop."""
    producers = [Producer(config_ring(config, camera.id), camera.id) for camera in config.cameras]
    payload = os.urandom(load.kilobytes * 1024)
    period = 1 / load.rate
    number, begun = 0, time.monotonic()
    while not control.poll():
        due = int((time.monotonic() - begun) / period)
        while number < due:
            producer = producers[number % len(producers)]
            # The payload carries the frame's number of its camera, which its sequence must equal.
            count = b"%019d" % (number // len(producers) + 1)
            producer.write(
                (count, memoryview(payload)[len(count) :]), time.time_ns(), time.monotonic_ns(), WIDTH, HEIGHT
            )
            number += 1
        time.sleep(0.002)
    for producer in producers:
        producer.close()
    control.send(number)


def config_ring(config: Config, camera: str) -> Path:
    return site.SitePaths.of(config).ring(camera)


@contextmanager
def simulated(directory: Path, load: Load, addresses: Sequence[str]) -> Iterator[Config]:
    """A site's file and rings, without captures."""
    place = Site(directory)
    place.write(
        cameras=[{"id": f"cam{number}", "url": "test://"} for number in range(load.cameras)],
        redis={"cluster": list(addresses), "ttl_seconds": load.ttl_seconds},
        ring={"capacity_mb": load.ring_mb},
        writer={"writers": load.writers},
    )
    config = place.config
    paths = site.SitePaths.of(config)
    segment.private_directory(paths.directory)
    pages = []
    try:
        for camera in config.cameras:
            ring_file.create(paths.ring(camera.id), config.ring.capacity, camera.id, owner=build_owner(config.owner))
            pages.append(StatusPage.claim(paths.capture(camera.id)))
        yield config
    finally:
        for page in pages:
            page.close()
        site.remove(paths)


@contextmanager
def writers(file: Path, count: int, log: Path) -> Iterator[list[int]]:
    """The engine's writer processes, from its command; their ids."""
    with log.open("ab") as output:
        started = [
            subprocess.Popen(
                [*COMMAND, "writer", "-c", str(file), "--number", str(number)],
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            for number in range(count)
        ]
        try:
            yield [process.pid for process in started]
            for process in started:
                assert process.poll() is None, f"a writer ended with {process.returncode}:\n{log.read_text()[-2000:]}"
        finally:
            # All frames are counted. A stop would wait for the captures, which hold their status pages still.
            for process in started:
                process.kill()
                process.wait()


def measure(directory: Path, load: Load, cluster: RedisCluster) -> Measured:
    """Run one load, count every frame, and leave the cluster empty."""
    servers = {"masters": [node.pid for node in cluster.masters()]}
    servers["replicas"] = [node.pid for node in cluster.nodes if node.pid not in servers["masters"]]
    with ExitStack() as stack:
        config = stack.enter_context(simulated(directory, load, cluster.addresses))
        pids = stack.enter_context(writers(directory / "site.toml", load.writers, directory / "writers.log"))
        observers = [Observer(config_ring(config, camera.id), camera.id) for camera in config.cameras]
        stack.callback(lambda: [observer.close() for observer in observers])
        ours, theirs = get_context("fork").Pipe()
        cameras = get_context("fork").Process(target=play, args=(config, load, theirs), daemon=True)
        cameras.start()
        stack.callback(cameras.kill)
        wait_until(lambda: all(observer.counts().stored for observer in observers), 60, "all cameras are stored", 0.05)
        time.sleep(load.ttl_seconds + SETTLE_SECONDS)
        kinds = {"writer": pids, "cameras": [cameras.pid or 0], **servers}
        before, begun = _cpu(kinds), time.monotonic()
        first = sum(observer.counts().stored for observer in observers)
        memory = 0
        while (now := time.monotonic()) < begun + load.seconds:
            time.sleep(min(1.0, begun + load.seconds - now))
            memory = max(memory, sum(_memory(node) for node in cluster.masters()))
        elapsed = time.monotonic() - begun
        after, last = _cpu(kinds), sum(observer.counts().stored for observer in observers)
        ours.send("stop")
        wait_until(ours.poll, 10, "the cameras stop")
        sent = ours.recv()
        wait_until(lambda: not any(observer.counts().held for observer in observers), DRAIN_SECONDS, "rings are empty")
        counts = [observer.counts() for observer in observers]
        assert sum(count.captured for count in counts) == sent
        listed = check_journals(config, cluster)
        return Measured(
            {kind: (after[kind] - before[kind]) / elapsed for kind in kinds},
            (last - first) / elapsed,
            sum(count.captured for count in counts),
            sum(count.stored for count in counts),
            sum(count.dropped for count in counts),
            memory,
            listed,
        )


def check_journals(config: Config, cluster: RedisCluster) -> int:
    """Check that each journal is in order, without a gap, and that the newest frames carry their numbers; returns the
    number of listed entries."""
    listed = 0
    with cluster.client() as client:
        for camera in config.cameras:
            entries = client.xrange(journal_key(config.vhost, config.prefix, camera.id))
            sequences = [int(identifier.partition(b"-")[2]) for identifier, _ in entries]
            assert sequences == list(range(sequences[0], sequences[0] + len(sequences))), f"{camera.id}: {sequences}"
            listed += len(sequences)
            identifier = entries[-1][0].decode()
            nano, _, sequence = identifier.partition("-")
            frame = client.get(f"{config.vhost}:{config.prefix}:{camera.id}:{nano}:{int(sequence):05d}")
            assert frame is None or int(frame[:19]) % 99_999 == int(sequence) % 99_999, camera.id
    return listed


def _cpu(kinds: dict[str, list[int]]) -> Counter[str]:
    return Counter({kind: sum(cpu_seconds(pid) for pid in pids) for kind, pids in kinds.items()})


def _memory(node: Any) -> int:
    with node.client() as client:
        found: int = client.info("memory")["used_memory"]
        return found


def predict(small: Sequence[Measured], whole: Measured, config_bytes: int) -> list[Prediction]:
    """What the smaller loads predict of the whole one, beside what it took."""
    names = {"writer": "writers", "masters": "three masters", "replicas": "three replicas"}
    lines: dict[str, Line] = {kind: line_through([(load.rate, load.cores[kind]) for load in small]) for kind in names}
    found = [
        Prediction(f"CPU, {what}", "cores", lines[kind].at(whole.rate), whole.cores[kind])
        for kind, what in names.items()
    ]
    return [*found, Prediction("memory of the masters", "MB", config_bytes / 2**20, whole.memory_bytes / 2**20)]


def simulate(directory: Path, load: Load) -> dict[str, Any]:
    """Measure the smaller loads and the whole one; what ``results/scale.json`` keeps."""
    with RedisCluster(directory / "cluster", binary="valkey") as cluster:
        empty = sum(_memory(node) for node in cluster.masters())
        runs = []
        for share in (*SHARES, 1.0):
            part = load._replace(cameras=max(round(load.cameras * share), 1))
            if share < 1:
                part = part._replace(seconds=max(load.seconds / 3, min(load.seconds, 5.0)))
            runs.append(measure(directory / f"load{part.cameras}", part, cluster))
            print(f"{part.cameras} cameras: {_shown(runs[-1])}", file=sys.stderr)
            for node in cluster.masters():
                with node.client() as client:
                    client.flushall()
        *small, whole = runs
    return {
        "load": load._asdict(),
        "stored": whole.stored,
        "captured": whole.captured,
        "dropped": whole.dropped,
        "rate": round(whole.rate, 1),
        "cores": {kind: round(value, 4) for kind, value in whole.cores.items()},
        "predictions": [made._asdict() for made in predict(small, whole, empty + _predicted_memory(load))],
    }


def _predicted_memory(load: Load) -> int:
    """Bytes of the masters for the frames of ``load``, by the arithmetic of sizes."""
    cameras = [{"id": f"cam{number}", "url": "test://"} for number in range(load.cameras)]
    config = from_document({"cameras": cameras, "redis": {"ttl_seconds": load.ttl_seconds}}, {})
    seen = {camera.id: Seen(load.fps, load.kilobytes * 1024) for camera in config.cameras}
    return redis_memory(config, seen).bytes


def _shown(run: Measured) -> str:
    cores = ", ".join(f"{kind} {value:.3f}" for kind, value in run.cores.items())
    return f"{run.rate:,.0f} frames/s stored, {run.dropped} dropped; cores: {cores}; {run.memory_bytes / 2**20:,.0f} MB"


def main() -> int:
    """Simulate, print, and say by the exit code whether all frames were there and all predictions good."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--cameras", type=int, default=100)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--kb", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--writers", type=int, default=1)
    parser.add_argument("--ttl", type=int, default=5, help="seconds that frames are kept")
    parser.add_argument("--ring-mb", type=int, default=8)
    parser.add_argument("--write", action="store_true", help="into benchmarks/results/scale.json")
    asked = parser.parse_args()
    load = Load(asked.cameras, asked.fps, asked.kb, asked.seconds, asked.writers, asked.ttl, asked.ring_mb)
    with tempfile.TemporaryDirectory(prefix="ev-scale-") as directory:
        found = simulate(Path(directory), load) | {"run": describe_run()}
    print(json.dumps(found, indent=1))
    if asked.write:
        SCALE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    predictions = [Prediction(**entry) for entry in found["predictions"]]
    return 0 if found["captured"] == found["stored"] and all(made.good for made in predictions) else 1


if __name__ == "__main__":
    sys.exit(main())
