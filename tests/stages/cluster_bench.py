"""A writer between real rings and a real cluster, and the comparison of what is there, listed and counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import structlog

from engine.config import Config, from_document
from engine.shm import ring_place, segment
from engine.shm.ring import Producer
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage
from engine.stages.writer.cluster_agent import ClusterWriterAgent
from engine.wire.state import ServerAway, decode_outages
from tests.servers.redis_cluster import RedisCluster

NANO = 1_731_024_000_000_000_000
CAMERAS = 4


class Bench:
    """A writer, and the producers of its cameras."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.paths = SitePaths.of(config)
        segment.private_directory(self.paths.directory)
        self.producers: dict[str, Producer] = {}
        self.captures = {}
        for camera in config.cameras:
            self.captures[camera.id] = StatusPage.claim(self.paths.capture(camera.id))
            ring_place.ensure(config, camera.id)
            self.producers[camera.id] = ring_place.open_producer(config, camera.id, self.captures[camera.id])
        self.page = StatusPage.claim(self.paths.writer(0))
        self.begin()

    def begin(self) -> None:
        """A writer that finds what the one before has left."""
        self.agent = ClusterWriterAgent(self.config, 0, self.page, structlog.get_logger())
        self.agent.on_start()

    def kill(self) -> None:
        """The writer is gone, whatever it had in flight."""
        self.agent._store.close()
        self.agent._streams.close()
        self.agent._doorbell.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.agent.on_close()
        for producer in self.producers.values():
            producer.close()
        for page in (*self.captures.values(), self.page):
            page.close()

    def write(self, camera: str, count: int = 1, size: int = 20_000) -> None:
        producer = self.producers[camera]
        for _ in range(count):
            nano = max(producer.floor_nano + 1, NANO)
            body = b"%05d" % (producer.last_sequence % 99_999 + 1)
            producer.write((body * (size // 5),), nano, time.monotonic_ns(), 640, 480)

    def write_all(self, count: int = 1) -> None:
        for camera in self.producers:
            self.write(camera, count)

    def turn(self, until: Callable[[], object], refill: Callable[[], None] = lambda: None, seconds: float = 30) -> None:
        """Turn the agent as its loop does."""
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, self.agent._outages
            refill()
            if not self.agent.do_work():
                self.agent.idle()

    @property
    def stored(self) -> int:
        return sum(producer.counts().stored for producer in self.producers.values())

    def all_stored(self) -> bool:
        return all(not producer.held_bytes for producer in self.producers.values())

    def drops(self, reason: str) -> int:
        return sum(producer.counts().drops[reason] for producer in self.producers.values())

    def has_looked(self) -> bool:
        """Whether no frame is suspected to be lost."""
        return not self.agent._missing.pending

    def key_of(self, camera: str) -> str:
        """A camera's part of its keys."""
        return f"{{{camera}}}" if self.config.redis.key_tags else camera

    def next_slot(self, camera: str) -> int:
        """The slot of the frame that ``write`` writes next."""
        producer = self.producers[camera]
        writer = next(writer for writer in self.agent._writers if writer.camera == camera)
        return writer.slots.of(max(producer.floor_nano + 1, NANO), producer.last_sequence + 1)

    def away(self) -> dict[str, ServerAway]:
        """The servers that the writer's status page names."""
        return decode_outages(self.page.text)


def listed(cluster: RedisCluster, camera: str) -> list[int]:
    """The sequences in the journal of ``camera``, as keys have it. Each has its frame, with its own bytes."""
    with cluster.client() as client:
        entries = client.xrange(f"engine:default:journal:frames:{camera}")
        ids = [entry.decode().split("-") for entry, _ in entries]
        for nano, sequence in ids:
            body = client.get(f"default:frames:{camera}:{nano}:{int(sequence):05d}")
            assert body, f"frame {sequence} of {camera} is listed and not there"
            assert body[:5] == b"%05d" % int(sequence)
        return [int(sequence) for _, sequence in ids]


def refill(bench: Bench, spare_bytes: int = 400_000) -> None:
    """A frame into each ring that has room for it; above 262,144 bytes to spare, the writer drops none."""
    for camera, producer in bench.producers.items():
        if producer.free_bytes > spare_bytes:
            bench.write(camera)


def under_load(bench: Bench, act: Callable[[], object]) -> None:
    """Do ``act`` while frames come and are stored, and until it has ended."""
    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(act)
        bench.turn(acting.done, lambda: refill(bench), seconds=60)
        acting.result()


def check(bench: Bench, cluster: RedisCluster, missing: int = 0) -> None:
    """Every numbered frame is stored and listed, in order, or counted as dropped."""
    gone = 0
    for camera, producer in bench.producers.items():
        counts = producer.counts()
        assert counts.captured == counts.stored + counts.dropped + counts.held
        sequences = listed(cluster, bench.key_of(camera))
        assert sequences == sorted(set(sequences))
        assert len(sequences) == counts.stored
        gone += counts.captured - len(sequences)
    assert gone == missing


def bench_of(directory: Path, cluster: RedisCluster, **sections: dict[str, Any]) -> Bench:
    return Bench(
        from_document(
            {
                "site": {"run_directory": str(directory / "run")},
                "ring": {"directory": str(directory), "capacity_mb": 2, **sections.get("ring", {})},
                "redis": {"cluster": cluster.addresses, "timeout_seconds": 2, **sections.get("redis", {})},
                "writer": {"batch_frames": 32},
                "cameras": [{"id": f"cam{number}", "url": "test://"} for number in range(CAMERAS)],
            },
            {},
        )
    )
