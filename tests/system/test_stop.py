"""Stopping: in order, in time, with nothing left; at once when asked twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import redis

from engine.shm.segment import private_directory
from engine.shm.status_page import StatusPage
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.users import counted, counted_user, crowd
from tests.servers.wait import wait_until
from tests.system.consumer import Consumer, first_times
from tests.system.site import Site, missing_numbers, stored_frames

CAMERAS = [{"id": f"cam{number}", "url": "test://?fps=30&kb=60"} for number in range(1, 9)]


def test_sigterm_under_load_drains_everything_and_leaves_nothing(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    site.write(cameras=CAMERAS, redis={"address": redis_server.address}, amqp_url=rabbitmq.url(vhost))
    with Consumer(rabbitmq, vhost) as consumer:
        site.start()
        wait_until(lambda: site.total("stored") > 500, 30, "frames flow")
        children = site.children()
        captured = {camera["id"]: camera["captured"] for camera in site.status()["cameras"]}
        begun = time.monotonic()
        assert site.stop() == 0
        assert time.monotonic() - begun < site.config.site.drain_seconds + 5
        numbers = stored_frames(redis_server.client(), vhost).numbers
        total = sum(map(len, numbers.values()))
        wait_until(lambda: sum(map(len, consumer.sequences().values())) >= total, 30, "all events arrived")
        offline = [consumer.statuses(camera)[-1]["state"] for camera in numbers]
    for camera, got in numbers.items():
        assert not missing_numbers(got)
        assert got[-1] >= captured[camera]
        assert first_times(consumer.sequences()[camera]) == got
    assert offline == ["offline"] * len(CAMERAS)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert not site.paths.directory.exists()


def test_sigterm_to_the_whole_group_drains_as_well(site: Site, redis_server: RedisServer) -> None:
    """systemd's KillMode=control-group: every process gets the signal at the same moment."""
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    site.start()
    wait_until(lambda: site.total("stored") > 500, 30, "frames flow")
    assert site.process is not None
    for process in [*site.children(), psutil.Process(site.process.pid)]:
        process.send_signal(signal.SIGTERM)
    assert site.process.wait(60) == 0
    assert not any(missing_numbers(got) for got in stored_frames(redis_server.client(), "default").numbers.values())
    assert not site.paths.directory.exists()


def test_a_publisher_that_dies_as_the_drain_begins_is_started_again_for_it(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    site.write(cameras=CAMERAS[:2], redis={"address": redis_server.address}, amqp_url=rabbitmq.url(vhost))
    with Consumer(rabbitmq, vhost) as consumer:
        site.start()
        wait_until(lambda: len(consumer.frames()) > 60, 30, "events arrive")
        assert site.process is not None
        site.process.send_signal(signal.SIGSTOP)
        site.signal(signal.SIGKILL, "publisher")
        site.process.send_signal(signal.SIGTERM)
        stored = site.total("stored")
        wait_until(lambda: site.total("stored") > stored + 60, 30, "frames are stored that nobody announces")
        site.process.send_signal(signal.SIGCONT)
        assert site.process.wait(60) == 0
        numbers = stored_frames(redis_server.client(), vhost).numbers
        total = sum(map(len, numbers.values()))
        wait_until(lambda: sum(map(len, map(first_times, consumer.sequences().values()))) >= total, 30, "all arrived")
        assert {camera: first_times(got) for camera, got in consumer.sequences().items()} == numbers


def test_a_writer_killed_in_its_drain_is_started_again_for_it(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=CAMERAS[:2], redis={"address": redis_server.address})
    site.start()
    wait_until(lambda: site.total("stored") > 60, 30, "frames flow")
    redis_server.pause()
    captured = site.total("captured")
    wait_until(lambda: site.total("captured") > captured + 30, 30, "rings hold frames")
    assert site.process is not None
    site.process.send_signal(signal.SIGTERM)
    wait_until(lambda: len(site.children()) == 1, 30, "only the writer is left")
    os.kill(site.children()[0].pid, signal.SIGKILL)
    redis_server.resume()
    assert site.process.wait(60) == 0
    numbers = stored_frames(redis_server.client(), "default").numbers
    assert len(numbers) == 2
    assert not any(missing_numbers(got) for got in numbers.values())
    assert not site.paths.directory.exists()


def test_a_drain_that_runs_out_of_time_says_so_and_keeps_the_frames(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=CAMERAS[:2], redis={"address": redis_server.address}, site={"drain_seconds": 3})
    site.start()
    wait_until(lambda: site.total("stored") > 60, 30, "frames flow")
    redis_server.pause()
    captured = site.total("captured")
    wait_until(lambda: site.total("captured") > captured + 30, 30, "rings hold frames")
    assert site.stop() == 1
    assert "frames left in shared memory for the next start" in site.log_text()
    redis_server.resume()
    site.start()
    assert site.stop() == 0
    assert not any(missing_numbers(got) for got in stored_frames(redis_server.client(), "default").numbers.values())


def test_a_second_signal_stops_at_once(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=CAMERAS, redis={"address": redis_server.address}, site={"drain_seconds": 3600})
    site.start()
    wait_until(lambda: site.total("stored") > 100, 30, "frames flow")
    children = site.children()
    redis_server.pause()
    captured = site.total("captured")
    wait_until(lambda: site.total("captured") > captured + 50, 30, "rings hold frames")
    assert site.process is not None
    site.process.send_signal(signal.SIGTERM)
    wait_until(lambda: len(site.children()) == 1, 30, "only the writer is left, waiting for Redis")
    site.process.send_signal(signal.SIGTERM)
    # An hour of drain was allowed; what was not stored stays for the next start.
    assert site.process.wait(60) == 1
    assert not psutil.wait_procs(children, 10)[1]
    assert site.paths.directory.exists()
    assert "frames left in shared memory for the next start" in site.log_text()


def test_a_hung_process_is_killed_and_replaced(site: Site, redis_server: RedisServer) -> None:
    site.write(
        cameras=[{**camera, "stall_seconds": 1, "open_timeout_seconds": 1} for camera in CAMERAS[:2]],
        redis={"address": redis_server.address},
        site={"heartbeat_seconds": 2},
    )
    site.start()
    wait_until(lambda: site.total("stored") > 50, 30, "frames flow")
    for role, camera in (("capture", "cam1"), ("writer", "")):
        pid = site.signal(signal.SIGSTOP, role, camera)
        wait_until(lambda pid=pid, role=role, camera=camera: site.pid(role, camera) != pid, 30, "it was replaced")
        stored = site.camera("cam1")["stored"]
        wait_until(lambda stored=stored: site.camera("cam1")["stored"] > stored + 30, 30, "frames flow again")
    assert site.stop() == 0
    for camera, numbers in stored_frames(redis_server.client(), "default").numbers.items():
        assert len(missing_numbers(numbers)) <= 1, camera


def test_the_embedded_server_lives_and_ends_with_its_site(site: Site) -> None:
    site.write(cameras=CAMERAS[:2])
    site.start()
    wait_until(lambda: site.total("stored") > 50, 30, "frames flow")
    children = site.children()
    assert any("valkey-server" in " ".join(child.cmdline()) for child in children)
    socket = site.config.run_directory / "redis.sock"
    assert socket.is_socket()
    assert socket.stat().st_mode & 0o777 == 0o600
    client = redis.Redis(unix_socket_path=str(socket), decode_responses=True)
    settings = client.config_get("maxmemory*") | client.config_get("port") | client.config_get("save")
    assert settings["maxmemory-policy"] == "volatile-ttl"
    assert int(settings["maxmemory"]) == psutil.virtual_memory().total * 50 // 100
    assert (settings["port"], settings["save"]) == ("0", "")
    client.close()
    assert site.stop() == 0
    assert not psutil.wait_procs(children, 10)[1]
    assert not socket.exists()


def test_an_embedded_server_that_cannot_be_started_again_is_tried_until_it_can(site: Site, short_path: Path) -> None:
    site.write(cameras=CAMERAS[:2])
    for path in (short_path, site.directory, site.file):
        path.chmod(0o755)
    user = counted_user()
    site.command = [*counted(user), "prlimit", "--nproc=40", *site.command]
    site.start()
    wait_until(lambda: site.total("stored") > 50, 30, "frames flow")
    with crowd(user, 40):
        next(child for child in site.children() if "valkey" in child.name()).kill()
        wait_until(lambda: "embedded server does not start" in site.log_text(), 30, "it is said")
        captured = site.total("captured")
        wait_until(lambda: site.total("captured") > captured + 60, 30, "cameras are captured meanwhile")
    assert "the embedded server cannot be started: Resource temporarily unavailable; raise the limit" in site.log_text()
    stored = site.total("stored")
    wait_until(lambda: site.total("stored") > stored + 60, 60, "frames are stored again")
    assert site.stop() == 0


def test_process_titles_name_site_and_role_and_hide_the_rest(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=CAMERAS[:2], redis={"address": redis_server.address})
    site.start()
    wait_until(lambda: site.total("stored") > 10, 30, "frames flow")
    assert site.process is not None
    processes = ",".join(str(process.pid) for process in [psutil.Process(site.process.pid), *site.children()])
    shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", processes], capture_output=True, text=True, check=True)
    name = site.config.site.name
    assert sorted(line.strip() for line in shown.stdout.splitlines()) == [
        f"edge-video: {name}: capture cam1",
        f"edge-video: {name}: capture cam2",
        f"edge-video: {name}: supervisor",
        f"edge-video: {name}: writer",
    ]
    assert site.stop() == 0


def test_the_embedded_server_keeps_frames_over_a_restart_where_it_is_asked_to(site: Site) -> None:
    site.write(
        cameras=[{"id": "cam1", "url": "test://?frames=50&kb=20&size=320x240"}],
        redis={"persistence": "aof"},
    )
    site.start()
    wait_until(lambda: site.total("stored") == 50, 30, "all frames are stored")
    assert site.stop() == 0
    site.write(
        cameras=[{"id": "cam1", "url": "test://?frames=10&kb=20&size=320x240"}],
        redis={"persistence": "aof"},
    )
    site.start()
    wait_until(lambda: site.total("stored") == 10, 30, "more frames are stored")
    client = redis.Redis(unix_socket_path=str(site.config.run_directory / "redis.sock"))
    # Numbers and stamps go on where the journal of the former run ended.
    assert stored_frames(client, "default").numbers == {"cam1": list(range(1, 61))}
    client.close()
    assert site.stop() == 0


def test_a_boot_failure_that_a_restart_cannot_mend_ends_the_run(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=CAMERAS[:2], redis={"address": redis_server.address})
    private_directory(site.paths.directory)
    held = StatusPage.claim(site.paths.writer(0))
    site.start(wait=False)
    assert site.process is not None
    assert site.process.wait(30) == 2
    held.close()
    assert f"writer 0 runs already as pid {os.getpid()}" in site.log_text()
    assert "process cannot start; ending the site" in site.log_text()
