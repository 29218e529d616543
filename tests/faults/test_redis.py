"""Redis that dies, stands still, is slow, full, read-only, or lets nobody in."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.faults.run import CAMERAS, FPS, KILOBYTES, FaultRun
from tests.servers.wait import wait_until

AOF = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.mark.case("redis-emptied")
def test_killed_and_empty_when_it_is_back(run: FaultRun) -> None:
    run.start()
    run.moment()
    run.redis.kill()
    run.lasts(1)
    run.redis.start()
    accounts = run.ends()
    assert accounts.drops["lost"] >= len(CAMERAS) * FPS


@pytest.mark.case("redis-aof", args=AOF)
def test_killed_and_back_with_its_file(run: FaultRun) -> None:
    run.start()
    run.moment()
    run.redis.kill()
    run.lasts(1)
    run.redis.start()
    run.ends()


@pytest.mark.case("redis-stopped")
def test_standing_still(run: FaultRun) -> None:
    run.start()
    run.moment()
    run.redis.pause()
    run.lasts(3)
    run.redis.resume()
    run.ends()


@pytest.mark.case("redis-long")
def test_standing_still_for_longer_than_the_rings_hold(run: FaultRun) -> None:
    # Rings of eight seconds, so that they are not full before Redis counts as away, on a busy machine either.
    cameras = [{"id": name, "url": "test://?size=320x240&fps=5&kb=100"} for name in CAMERAS]
    run.start(cameras, ring={"capacity_mb": 4})
    run.moment()
    run.redis.pause()
    wait_until(lambda: run.site.dropped().get("outage", 0) > 10 * len(CAMERAS), 30, "rings overflow")
    run.redis.resume()
    accounts = run.ends()
    assert accounts.drops["outage"] > 0


@pytest.mark.case("redis-client-pause")
def test_client_pause(run: FaultRun) -> None:
    run.start()
    run.moment()
    run.redis.client().execute_command("CLIENT", "PAUSE", 3000)
    run.lasts(3)
    run.ends()


@pytest.mark.case("redis-slow")
def test_slow(run: FaultRun) -> None:
    run.start()
    run.redis_proxy.delay = 0.1
    run.lasts(3)
    run.redis_proxy.delay = 0
    run.ends()


@pytest.mark.case("redis-throttled")
def test_a_narrow_connection(run: FaultRun) -> None:
    run.start()
    run.redis_proxy.bytes_per_second = len(CAMERAS) * FPS * KILOBYTES * 1024 // 2
    run.lasts(5)
    run.redis_proxy.bytes_per_second = 0
    run.ends()


@pytest.mark.case("redis-resets")
def test_connections_that_are_reset(run: FaultRun) -> None:
    run.start()
    run.redis_proxy.reset_every = 2
    resets = run.redis_proxy.resets
    for _ in range(6):
        run.moment()
        run.redis_proxy.reset()

    def enough() -> bool:
        # On a loaded machine, a moment may end before there are new connections to reset.
        run.redis_proxy.reset()
        return run.redis_proxy.resets >= resets + 8

    wait_until(enough, 20, "connections were reset, also new ones", interval=0.3)
    run.redis_proxy.reset_every = 0
    run.ends()


@pytest.mark.case("redis-cut")
def test_cut_in_the_middle_of_a_reply(run: FaultRun) -> None:
    run.start()
    for _ in range(5):
        resets = run.redis_proxy.resets
        run.redis_proxy.cut_after = run.random.randrange(1, 2000)
        wait_until(lambda before=resets: run.redis_proxy.resets > before, 20, "a reply was cut")
        run.flows(0.3)
    run.ends()


@pytest.mark.case("redis-oom", args=("--maxmemory-policy", "noeviction"))
def test_out_of_memory(run: FaultRun) -> None:
    # Few frames a second: what is kept free in a ring must last for as long as a busy machine lets the writer wait.
    cameras = [{"id": name, "url": "test://?size=320x240&fps=3&kb=100"} for name in CAMERAS]
    run.start(cameras, ring={"capacity_mb": 4})
    client = run.redis.client()
    client.config_set("maxmemory", client.info("memory")["used_memory"] - 2**20)
    wait_until(lambda: run.site.dropped().get("outage", 0) > len(CAMERAS), 60, "rings overflow")
    assert run.site.status()["writer"]["retries"] > 0
    client.config_set("maxmemory", 0)
    run.ends()
    assert run.site.log_text().count("redis takes no frames") == 1


@pytest.mark.case("redis-evicting", args=("--maxmemory", "16mb", "--maxmemory-policy", "volatile-ttl"))
def test_at_the_limit_of_memory(run: FaultRun) -> None:
    run.start()
    wait_until(lambda: run.redis.client().info("stats")["evicted_keys"] > 500, 60, "frames are evicted", interval=0.1)
    accounts = run.ends(evicting=True)
    assert accounts.gone > 0


@pytest.mark.case("redis-read-only")
def test_read_only_replica(run: FaultRun, short_path: Path) -> None:
    run.start()
    client = run.redis.client()
    # Of a master that never answers, so that it keeps what it has.
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    wait_until(lambda: run.site.status()["writer"]["retries"] > 0, 20, "writes are refused")
    run.lasts(2)
    client.execute_command("REPLICAOF", "NO", "ONE")
    run.ends()
    assert "READONLY" in run.site.log_text()


@pytest.mark.case("redis-password", password="first-password")
def test_password_rotated(run: FaultRun) -> None:
    run.start(redis={"password": "first-password"})
    client = run.redis.client()
    client.config_set("requirepass", "another-password")
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    wait_until(lambda: "refuses the credentials" in run.site.log_text(), 20, "the engine is let in no more")
    run.lasts(2)
    client.config_set("requirepass", "first-password")
    run.ends()
    assert "first-password" not in run.site.log_text()


def held(run: FaultRun) -> int:
    """Frames that Redis lists."""
    client = run.redis.client()
    return sum(client.xlen(journal) for journal in client.keys(f"engine:{run.vhost}:journal:frames:*"))


@pytest.mark.case("redis-flushed")
def test_flushed(run: FaultRun) -> None:
    run.start()
    states = run.redis.client().hgetall(f"engine:{run.vhost}:cameras:frames")
    run.redis.client().flushall()
    run.mended()
    run.recovers()
    # The writer looks every ten seconds whether Redis still has what it acknowledged.
    wait_until(lambda: run.site.dropped().get("lost", 0) >= len(CAMERAS) * FPS, 20, "the loss is counted")
    # The cameras' states are there again, and none has changed.
    assert run.redis.client().hgetall(f"engine:{run.vhost}:cameras:frames") == states
    assert run.consumer is not None
    assert all(len(run.consumer.statuses(camera)) == 1 for camera in CAMERAS)
    run.settle()
    (said,) = [line for line in run.site.log_text().splitlines() if "redis lost frames" in line]
    assert f"cameras={len(CAMERAS)}" in said


@pytest.mark.case("redis-flushed-writer")
def test_flushed_and_the_writer_killed(run: FaultRun) -> None:
    run.start()
    before = held(run)
    run.redis.client().flushall()
    run.site.kill("writer")
    run.mended()
    run.recovers()
    wait_until(lambda: run.site.dropped().get("lost", 0) >= before, 10, "the loss is counted")
    run.settle()


@pytest.mark.case("redis-flushed-stop")
def test_flushed_and_stopped(run: FaultRun) -> None:
    run.start()
    before = held(run)
    run.redis.client().flushall()
    run.mended()
    accounts = run.settle()
    assert accounts.drops["lost"] >= before
    assert "redis lost frames" in run.site.log_text()


@pytest.mark.case("redis-emptied-writer")
def test_empty_when_the_writer_is_back(run: FaultRun) -> None:
    run.start()
    before = held(run)
    # No other writer is started meanwhile.
    run.supervisor.suspend()
    os.kill(run.pids("writer")[0], signal.SIGKILL)
    run.redis.kill()
    run.lasts(1)
    run.redis.start()
    run.supervisor.resume()
    accounts = run.ends()
    assert accounts.drops["lost"] >= before


@pytest.mark.case("redis-emptied-site")
def test_emptied_while_the_site_is_down(run: FaultRun) -> None:
    run.start()
    before = held(run)
    family = run.supervisor.children(recursive=True)
    run.supervisor.kill()
    assert run.site.process is not None
    run.site.process.wait()
    assert not psutil.wait_procs(family, 10)[1]
    run.redis.client().flushall()
    run.mended()
    run.site.start()
    run.recovers()
    accounts = run.settle()
    assert accounts.drops["lost"] >= before
