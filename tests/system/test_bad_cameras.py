"""Cameras that misbehave: tried again with backoff, reported, and no burden to the others."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from engine.stages.capture.agent import BACKOFF_SECONDS_MIN
from tests.servers.mjpeg_http import MjpegCamera, make_jpegs
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.consumer import Consumer
from tests.system.site import COMMAND, Site, missing_numbers, stored_frames

PATIENCE = {"stall_seconds": 1.0, "open_timeout_seconds": 1.5}


@pytest.fixture
def servers() -> Iterator[dict[str, MjpegCamera]]:
    jpegs = make_jpegs(20)
    with (
        MjpegCamera(jpegs, mode="silent") as silent,
        MjpegCamera(jpegs, mode="garbage") as garbage,
        # It lives for a second: states are looked at a few times a second, and one that was over by then is not seen.
        MjpegCamera(jpegs, mode="die-mid-frame", after=25) as dying,
        MjpegCamera(jpegs, fps=10) as good,
    ):
        yield {"silent": silent, "garbage": garbage, "dying": dying, "good": good}


def test_each_kind_of_bad_camera_is_retried_reported_and_leaves_the_others_alone(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str, servers: dict[str, MjpegCamera]
) -> None:
    cameras = [{"id": name, "url": camera.url, **PATIENCE} for name, camera in servers.items()]
    cameras += [{"id": "refusing", "url": f"rtsp://127.0.0.1:{free_port()}/cam", **PATIENCE}]
    cameras += [{"id": "mute", "url": servers["silent"].url.replace("http://", "rtsp://"), **PATIENCE}]
    cameras += [{"id": "test", "url": "test://?fps=30&kb=60"}]
    site.write(cameras=cameras, redis={"address": redis_server.address}, amqp_url=rabbitmq.url(vhost))
    bad = ["silent", "garbage", "dying", "refusing", "mute"]
    with Consumer(rabbitmq, vhost) as consumer:
        site.start()
        wait_until(
            lambda: all(site.camera(name)["consecutive_failures"] >= 2 for name in bad if name != "dying"),
            90,
            "bad cameras were tried again",
        )
        wait_until(lambda: len(servers["dying"].connections) >= 4, 90, "the dying camera was connected again")
        wait_until(lambda: all(consumer.statuses(name) for name in bad), 30, "each was reported")
        report = {camera["id"]: camera for camera in site.status()["cameras"]}
        processes = {process["camera"]: process for process in site.status()["processes"]}
        uptime = site.status()["uptime_seconds"]
        assert site.stop() == 0
        numbers = stored_frames(redis_server.client(), vhost, check_stamps=False).numbers
    for name in bad:
        assert report[name]["last_error"] or report[name]["state"] == "active", name
        assert report[name]["connects"] >= 2
        assert consumer.statuses(name)[0]["state"] in ("offline", "stalled", "active")
        assert any(event["last_error"] for event in consumer.statuses(name)), name
        # Importing libraries costs CPU once; what matters is that waiting costs none.
        assert processes[name]["cpu_seconds"] < 2 + 0.1 * uptime, name
    assert {event["state"] for event in consumer.statuses("dying")} >= {"active", "stalled"}
    assert report["good"]["state"] == report["test"]["state"] == "active"
    for name in ("good", "test"):
        assert not missing_numbers(numbers[name])
        assert not sum(report[name]["dropped"].values())
    # Backoff: the least pause, jitter taken off, doubles with each try.
    # Behind each try comes the question what is wrong.
    times = servers["garbage"].connections[::2]
    assert len(times) >= 2
    for tries, (before, after) in enumerate(pairwise(times)):
        assert after - before >= BACKOFF_SECONDS_MIN / 2 * 2**tries
    # A connection that dies in the middle of a frame: no half frame was stored as if it were one.
    for key in redis_server.client().scan_iter(match=f"{vhost}:frames:dying:*"):
        assert redis_server.client().get(key) in make_jpegs(20)


def test_a_camera_that_comes_back_is_active_again(site: Site, redis_server: RedisServer) -> None:
    with MjpegCamera(make_jpegs(20), fps=20) as camera:
        site.write(cameras=[{"id": "cam1", "url": camera.url, **PATIENCE}], redis={"address": redis_server.address})
        site.start()
        wait_until(lambda: site.camera("cam1")["state"] == "active", 30, "it is active")
        camera.mode = "stall"
        wait_until(lambda: site.camera("cam1")["state"] == "stalled", 30, "it has stalled")
        camera.mode = "refuse"
        wait_until(lambda: site.camera("cam1")["state"] == "offline", 30, "it is offline")
        camera.mode = "normal"
        stored = site.total("stored")
        wait_until(lambda: site.camera("cam1")["state"] == "active", 60, "it is active again")
        wait_until(lambda: site.total("stored") > stored + 20, 30, "its frames are stored")
        assert site.camera("cam1")["consecutive_failures"] == 0
        assert site.camera("cam1")["last_error"] == ""
        assert site.stop() == 0


def test_truncated_pictures_are_dropped_and_counted(site: Site, redis_server: RedisServer) -> None:
    with MjpegCamera(make_jpegs(50), fps=50, mode="truncated") as camera:
        site.write(cameras=[{"id": "cam1", "url": camera.url, **PATIENCE}], redis={"address": redis_server.address})
        site.start()
        wait_until(lambda: site.dropped().get("corrupt", 0) >= 3, 30, "corrupt frames are counted")
        wait_until(lambda: site.total("stored") >= 20, 30, "whole frames are stored")
        assert site.stop() == 0
    whole = set(make_jpegs(50))
    client = redis_server.client()
    assert all(client.get(key) in whole for key in client.scan_iter(match="default:frames:*"))


def test_a_frame_larger_than_half_its_ring_is_dropped_counted_and_explained(
    site: Site, redis_server: RedisServer
) -> None:
    small, large = make_jpegs(2)[0], make_jpegs(1, (3000, 2000), 100)[0]
    filler = b"\xff\xfe\xff\xff" + bytes(65_533)
    large = large[:2] + filler * 12 + large[2:]
    assert len(large) > 2**19
    with MjpegCamera([small, large], fps=10) as camera:
        site.write(
            cameras=[{"id": "cam1", "url": camera.url}],
            redis={"address": redis_server.address},
            ring={"capacity_mb": 1},
        )
        site.start()
        wait_until(lambda: site.dropped().get("too_large", 0) >= 2, 30, "large frames are counted")
        wait_until(lambda: site.total("stored") >= 5, 30, "small frames are stored")
        assert site.stop() == 0
    assert "raise ring.capacity_mb" in site.log_text()


def test_a_file_that_does_not_loop_ends_and_is_not_started_again(
    site: Site, redis_server: RedisServer, tmp_path: Path
) -> None:
    site.write(
        cameras=[
            {"id": "short", "url": "test://?frames=20&kb=20&size=320x240"},
            {"id": "gone", "url": str(tmp_path / "x.mp4")},
        ],
        redis={"address": redis_server.address},
    )
    site.start()
    wait_until(lambda: site.camera("short")["state"] == "offline", 30, "it has ended")
    wait_until(lambda: site.camera("short")["stored"] == 20, 30, "all its frames are stored")
    wait_until(lambda: "there is no file" in site.camera("gone")["last_error"], 30, "the missing file is reported")
    assert site.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a name server of its own")
def test_a_silent_name_server_is_said_and_no_process_is_killed(
    site: Site, redis_server: RedisServer, tmp_path: Path
) -> None:
    """FFmpeg looks hosts up in native code that nothing interrupts: it must end before the capture counts as hung."""
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.77\n")
    script = 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"'
    site.command = ["unshare", "-m", "sh", "-c", script, "sh", str(resolver), *COMMAND]
    site.write(
        cameras=[{"id": "cam1", "url": "rtsp://camera.example.com/x", "stall_seconds": 1, "open_timeout_seconds": 1}],
        redis={"address": redis_server.address},
        site={"heartbeat_seconds": 8},
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.77", 53))
        site.start()
        wait_until(lambda: site.camera("cam1")["last_error"], 60, "the error is shown")
        assert site.camera("cam1")["last_error"].partition(";")[0] in (
            "no name server answers for camera.example.com",
            "its host was not found within 1 s",
        )
        (capture,) = (process for process in site.status()["processes"] if process["role"] == "capture")
        assert capture["restarts"] == 0
        assert site.stop() == 0
