"""The ring against the copy that it cannot do without."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from engine.shm import ring_file
from engine.shm.ring import Consumer, Producer

PAYLOAD_BYTES = 60 * 1024
#: A write, poll and commit may cost this many copies of a 60 KB payload between two places of ordinary memory that are
#: as far apart: the copy itself, and Python's work around it.
COPIES_MAX = 12.0


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[Producer, Consumer]]:
    path = Path("/dev/shm") / f"{tmp_path.name}.ring"
    ring_file.create(path, 8 * 2**20, "cam1")
    producer, consumer = Producer(path, "cam1"), Consumer(path, "cam1")
    yield producer, consumer
    producer.close()
    consumer.close()
    path.unlink()


def test_a_frame_through_the_ring_against_a_copy(benchmark: BenchmarkFixture, ends: tuple[Producer, Consumer]) -> None:
    producer, consumer = ends
    payload = memoryview(bytes(PAYLOAD_BYTES))
    area = memoryview(bytearray(8 * 2**20))
    stamp = iter(range(10**18, 10**19))

    def through_the_ring() -> None:
        producer.write((payload,), next(stamp), time.monotonic_ns(), 1280, 720)
        consumer.commit(consumer.poll(2**20, 64), time.monotonic_ns())

    copies = []

    def copy_too() -> None:
        begin = (next(stamp) * PAYLOAD_BYTES) % (len(area) - PAYLOAD_BYTES)
        begun = time.perf_counter()
        area[begin : begin + PAYLOAD_BYTES] = payload
        copies.append(time.perf_counter() - begun)

    benchmark.pedantic(through_the_ring, setup=copy_too, rounds=5000, warmup_rounds=200)
    if benchmark.stats:
        ratio = benchmark.stats["median"] / statistics.median(copies)
        benchmark.extra_info["copies"] = round(ratio, 2)
        assert ratio < COPIES_MAX
    assert consumer.counts().stored == consumer.counts().captured
