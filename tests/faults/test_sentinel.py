"""Failover: the master dies, Sentinel promotes its replica, and what the replica had not got is lost and counted."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import FrameStore
from tests.faults.run import CAMERAS, FPS, KILOBYTES, FaultRun, pattern
from tests.servers.sentinel import SentinelService
from tests.servers.wait import wait_until


@pytest.fixture
def service(short_path: Path) -> Iterator[SentinelService]:
    with SentinelService(short_path / "service") as made:
        yield made


def start(run: FaultRun, service: SentinelService, kilobytes: int = KILOBYTES, capacity_mb: int = 2) -> None:
    """With rings that outlast the election."""
    cameras = [{"id": name, "url": pattern(kilobytes=kilobytes)} for name in CAMERAS]
    redis = {"sentinels": service.addresses, "service": service.service}
    run.start(cameras, redis=redis, ring={"capacity_mb": capacity_mb})


@pytest.mark.case("redis-failover")
def test_the_master_killed(run: FaultRun, service: SentinelService) -> None:
    run.redis = service.master
    start(run, service)
    store = FrameStore(sentinels=service.addresses, service=service.service, vhost=run.vhost)
    run.moment()
    run.redis = service.kill_master()
    run.mended()
    run.recovers()
    newest = store.latest(CAMERAS[0])
    assert newest.sequence > FPS
    store.close()
    run.settle()


@pytest.mark.case("redis-lagging-failover")
def test_the_master_killed_while_its_replica_is_behind(run: FaultRun, service: SentinelService) -> None:
    run.redis = service.master
    start(run, service, kilobytes=100, capacity_mb=8)
    replica = next(server for server in service.servers if server is not run.redis)
    os.kill(replica.pid, signal.SIGSTOP)
    # More than the sockets between the two hold, which the replica still gets.
    stored = run.site.total("stored_bytes")
    wait_until(lambda: run.site.total("stored_bytes") > stored + 20 * 2**20, 20, "the master goes ahead")
    run.redis.kill()
    os.kill(replica.pid, signal.SIGCONT)
    wait_until(lambda: service.master is replica, 30, "the replica is the master")
    run.redis = replica
    accounts = run.ends()
    assert accounts.drops["lost"] > 0
