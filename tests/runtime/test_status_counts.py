"""The counts of a camera in the status: those that rates are made of never fall."""

from __future__ import annotations

from pathlib import Path

from engine.config import from_document
from engine.runtime.status import collect
from engine.runtime.status_cameras import CameraReport
from engine.shm import ring_file, segment
from engine.shm.ring import Consumer, Producer
from engine.shm.site import SitePaths
from engine.wire.journal import NO_JOURNAL
from tests.shm.rings import write


def test_what_redis_lost_leaves_the_total_as_it_was(tmp_path: Path) -> None:
    config = from_document(
        {
            "site": {"run_directory": str(tmp_path / "run")},
            "ring": {"directory": str(tmp_path), "capacity_mb": 1},
            "cameras": [{"id": "cam1", "url": "test://"}],
        },
        {},
    )
    paths = SitePaths.of(config)
    segment.private_directory(paths.directory)
    ring_file.create(paths.ring("cam1"), config.ring.capacity, "cam1")
    producer, consumer = Producer(paths.ring("cam1"), "cam1"), Consumer(paths.ring("cam1"), "cam1")

    def store(count: int) -> CameraReport:
        for _ in range(count):
            write(producer, b"12345678")
        consumer.commit(consumer.poll(2**20, 100), 0)
        return collect(config, memory=False).cameras[0]

    report = store(5)
    assert (report.stored, report.stored_total, report.lost, report.stored_bytes) == (5, 5, 0, 40)
    consumer.count_lost(NO_JOURNAL, 0)
    report = store(2)
    assert (report.stored, report.stored_total, report.lost, report.stored_bytes) == (2, 7, 5, 16)
    assert report.captured == report.stored + sum(report.dropped.values()) + report.ring.held
    producer.close()
    consumer.close()
