"""What ``status`` says of a site that is in trouble, or whose file is no longer what runs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.servers.answering import Answering
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.wait import free_port, wait_until
from tests.system.consumer import Consumer
from tests.system.site import COMMAND, ROOT, Site, command

CAMERAS: list[dict[str, Any]] = [{"id": f"cam{number}", "url": "test://?fps=20&kb=60"} for number in range(3)]
SHORT = {"stall_seconds": 1.0, "open_timeout_seconds": 1.0}


def away(site: Site) -> set[tuple[str, str]]:
    return {(outage["server"], outage["role"]) for outage in site.status()["outages"]}


def first_line(site: Site) -> str:
    done = command("status", "-c", str(site.file), environment={"COLUMNS": "400"})
    assert done.returncode == 0
    return done.stdout.splitlines()[0]


def health(site: Site, *arguments: str) -> tuple[int, str]:
    done = command("status", "--healthy", "-c", str(site.file), *arguments)
    return done.returncode, done.stdout


def test_a_server_that_is_away_is_said_first_and_unhealthy(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    assert health_of_a_missing_site(site, redis_server) == (1, "unhealthy: not running\n")
    site.write(
        cameras=CAMERAS,
        redis={"address": redis_server.address, "timeout_seconds": 1.0},
        amqp_url=rabbitmq.url(vhost),
    )
    site.start()
    wait_until(lambda: site.status()["publisher"]["confirmed"] > 20, 30, "events are confirmed")
    wait_until(lambda: health(site) == (0, "healthy\n"), 30, "all is well")
    rabbitmq.set_alarm(True)
    try:
        wait_until(lambda: away(site) == {("rabbitmq", "publisher")}, 30, "the broker takes nothing")
        (outage,) = site.status()["outages"]
        assert outage["error"].startswith("RabbitMQ takes no messages: ")
        wait_until(lambda: "s behind" in first_line(site), 30, "the events' lag is shown")
        assert "3 of 3 cameras active, rabbitmq away for " in first_line(site)
    finally:
        rabbitmq.set_alarm(False)
    wait_until(lambda: not away(site), 30, "the broker is back")
    redis_server.pause()
    try:
        wait_until(lambda: ("redis", "writer") in away(site), 30, "Redis is noticed as away")
        report = json.loads(command("status", "-c", str(site.file), "--json").stdout)
        since = next(outage["since"] for outage in report["outages"] if outage["role"] == "writer")
        assert any("redis away for" in trouble for trouble in report["troubles"])
        line = first_line(site)
        assert "redis away for" in line
        assert ", rings " in line
        code, text = health(site)
        assert (code, text.count("\n")) == (1, 1)
        assert "redis away for" in text
        # A writer that is killed meanwhile knows no better since when.
        site.kill("writer")
        wait_until(lambda: ("redis", "writer") in away(site), 30, "the next writer says so, too")
        assert next(o["since"] for o in site.status()["outages"] if o["role"] == "writer") == since
        wait_until(lambda: site.status()["rings_last_seconds"] == 0, 60, "the rings are full")
        assert "rings are full and frames are lost" in first_line(site)
    finally:
        redis_server.resume()
    wait_until(lambda: not away(site), 30, "Redis is back")
    wait_until(lambda: health(site) == (0, "healthy\n"), 30, "all is well")
    assert site.stop() == 0


def health_of_a_missing_site(site: Site, redis_server: RedisServer) -> tuple[int, str]:
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    return health(site)


def test_redis_that_comes_back_to_a_site_without_frames_is_not_away(site: Site, redis_server: RedisServer) -> None:
    closed = f"rtsp://127.0.0.1:{free_port()}/x"
    site.write(
        cameras=[{"id": "cam1", "url": closed, **SHORT}],
        redis={"address": redis_server.address, "timeout_seconds": 1.0},
    )
    site.start()
    redis_server.pause()
    wait_until(lambda: ("redis", "writer") in away(site), 30, "Redis is away")
    redis_server.resume()
    wait_until(lambda: not away(site), 30, "Redis is back, and nothing is stored")
    assert health(site) == (1, "unhealthy: 0 of 1 cameras active, at least 50% wanted\n")
    assert health(site, "--share", "0") == (0, "healthy\n")
    assert site.stop() == 0


def test_what_runs_is_shown_and_where_the_file_differs(site: Site, redis_server: RedisServer) -> None:
    cameras = [*CAMERAS, {"id": "door", "url": f"rtsp://u:sEcret@127.0.0.1:{free_port()}/x", **SHORT}]
    redis = {"address": redis_server.address}
    site.write(cameras=cameras, redis=redis)
    site.start()
    wait_until(lambda: site.total("stored") > 20, 30, "frames are stored")
    assert site.status()["file_differs"] == []
    record = site.paths.directory / "site.json"
    assert record.stat().st_mode & 0o777 == 0o600
    assert "sEcret" not in record.read_text()
    changed = {**cameras[3], "url": str(cameras[3]["url"]).replace("sEcret", "another")}
    site.write(
        cameras=[*cameras[1:3], changed, {"id": "new", "url": "test://"}],
        redis={**redis, "ttl_seconds": 17, "prefix": "other"},
        writer={"writers": 3},
        amqp_url="amqp://guest:guest@127.0.0.1:1/client-b",
    )
    report = site.status()
    assert sorted(report["file_differs"]) == [
        "amqp.amqp_url changed",
        "camera cam0 removed",
        "camera door changed (url)",
        "camera new added",
        "redis.prefix changed",
        "redis.ttl_seconds changed",
        "writer.writers changed",
    ]
    assert [camera["id"] for camera in report["cameras"]] == ["cam0", "cam1", "cam2", "door"]
    assert (report["vhost"], report["prefix"], report["publisher"]) == ("default", "frames", None)
    assert [process["role"] for process in report["processes"]].count("writer") == 1
    text = command("status", "-c", str(site.file)).stdout
    assert "the site file differs from what runs: " in text
    assert "camera new added" in text
    # What is no record of this version is as good as none.
    record.write_text('{"config": 1}')
    assert [camera["id"] for camera in site.status()["cameras"]] == ["cam1", "cam2", "door", "new"]
    site.write(cameras=cameras, redis=redis)
    assert site.stop() == 0
    assert not site.paths.directory.exists()


def test_secrets_of_the_supervisor_s_environment_are_no_difference(site: Site, redis_server: RedisServer) -> None:
    site.environment = {"REDIS_ADDRESS": redis_server.address, "REDIS_PASSWORD": ""}
    site.write(cameras=CAMERAS)
    site.start()
    report = site.status()
    assert report["file_differs"] == []
    assert report["redis"] == f"redis://{redis_server.address}"
    assert site.stop() == 0


def test_roles_that_run_alone_are_shown_by_their_rings(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    with site.log.open("ab") as log:
        capture = subprocess.Popen(
            [*COMMAND, "capture", "cam0", "-c", str(site.file)], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: site.total("captured") > 5, 30, "it captures")
        site.write(cameras=CAMERAS[1:], redis={"address": redis_server.address})
        report = site.status()
        assert report["running"]
        (cam0,) = (camera for camera in report["cameras"] if camera["id"] == "cam0")
        assert cam0["captured"] > 5
    finally:
        capture.terminate()
        capture.wait(30)


def test_each_error_of_a_camera_is_named_announced_and_logged_once(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str, tmp_path: Path
) -> None:
    page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>"
    with (
        RtspCamera(tmp_path / "a", codec="mjpeg", user="viewer", password="right") as locked,
        Answering(lambda _: page) as web,
        Answering(lambda _: None) as silent,
    ):
        port = free_port()
        urls = {
            "password": locked.url.replace("right", "wr0ng"),
            "path": locked.url.replace("/cam", "/no"),
            "port": f"rtsp://127.0.0.1:{port}/x",
            "host": "rtsp://camera.invalid/x",
            "silent": f"rtsp://127.0.0.1:{silent.port}/x",
            "page": f"http://127.0.0.1:{web.port}/x",
            "file": str(tmp_path),
        }
        site.write(
            cameras=[{"id": name, "url": url, **SHORT} for name, url in urls.items()],
            redis={"address": redis_server.address},
            amqp_url=rabbitmq.url(vhost),
        )
        with Consumer(rabbitmq, vhost) as consumer:
            site.start()
            wait_until(
                lambda: all(camera["consecutive_failures"] >= 4 for camera in site.status()["cameras"]),
                90,
                "each was tried four times",
            )
            errors = {camera["id"]: camera["last_error"].partition("; ")[0] for camera in site.status()["cameras"]}
            for camera in site.status()["cameras"]:
                # A file that does not open is not asked.
                assert bool(camera["advice"]) == (camera["id"] != "file"), camera
                assert camera["last_error"].endswith(camera["advice"])
            doctor = json.loads(command("doctor", "-c", str(site.file), "--json").stdout)
            told = {one["check"]: one["todo"] for one in doctor["findings"] if one["part"] == "cameras"}
            states = {name: consumer.statuses(name) for name in urls}
            assert site.stop() == 0
    assert errors["host"] in ("no such host: camera.invalid", "no name server answers for camera.invalid")
    del errors["host"]
    assert errors == {
        "password": "wrong user or password (401 from 127.0.0.1)",
        "path": "no such path (404 from 127.0.0.1)",
        "port": f"port {port} closed at 127.0.0.1",
        "silent": f"127.0.0.1:{silent.port} takes connections, but gives no answer for 1 s",
        "page": "sends text/html, which is no video (from 127.0.0.1)",
        "file": f"{tmp_path} is a directory",
    }
    assert (told["password"], told["path"]) == ("correct them in its url", "correct the path in its url")
    assert {name: [event["state"] for event in events] for name, events in states.items()} == {
        name: ["offline"] for name in urls
    }
    log = site.log_text()
    assert log.count('event="camera failed"') == len(urls), log
    assert "wr0ng" not in log


def test_eighty_columns_cut_no_name_on_a_terminal_or_in_a_pipe(site: Site, redis_server: RedisServer) -> None:
    long = "the-camera-above-the-back-door-of-the-warehouse"
    closed = f"rtsp://127.0.0.1:{free_port()}/x"
    site.write(cameras=[CAMERAS[0], {"id": long, "url": closed, **SHORT}], redis={"address": redis_server.address})
    site.start()
    wait_until(lambda: site.camera(long)["last_error"] and site.total("stored") > 5, 30, "it has failed")
    wide = command("status", "-c", str(site.file), environment={"COLUMNS": "200"}).stdout.splitlines()
    # Without a width, too, a pipe has 80 columns.
    piped = command("status", "-c", str(site.file)).stdout.splitlines()
    on_terminal = terminal("status", "-c", str(site.file)).splitlines()
    checked = command("check", "-c", str(site.file)).stdout.splitlines()
    assert site.stop() == 0
    (row,) = (line for line in wide if line.startswith(long))
    assert "offline" in row
    assert wide[wide.index(row) + 1].endswith("turn the service on in the camera")
    for lines in (piped, on_terminal):
        assert max(map(len, lines)) <= 80
        place = lines.index(long)
        assert lines[place + 1].split()[0] == "offline"
        assert "turn the service on in the camera" in " ".join(map(str.strip, lines[place + 2 : place + 5]))
        (row,) = (line for line in lines if line.startswith("cam0"))
        assert "active" in row
    assert max(map(len, checked)) <= 80
    assert {long, f"  {closed}"} <= set(checked)


def terminal(*arguments: str) -> str:
    """What a command prints onto a terminal of 80 columns, without colours."""
    leader, follower = pty.openpty()
    done = subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, stdout=follower, stderr=follower,
        env={**os.environ, "TERM": "dumb", "COLUMNS": "80", "NO_COLOR": "1"},
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(leader)
    assert done.wait(30) == 0
    return shown.decode()


@pytest.mark.parametrize("share", ["1.5", "-1", "x"])
def test_a_share_that_is_none_is_refused(site: Site, share: str) -> None:
    site.write(cameras=CAMERAS)
    assert command("status", "--healthy", "--share", share, "-c", str(site.file)).returncode == 2
