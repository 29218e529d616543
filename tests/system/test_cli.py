"""The command line: what it prints, for people and for programs, and each role alone."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import COMMAND, ROOT, Site, command, missing_numbers, stored_frames

SUMMARY_KEYS = [
    "cameras", "seconds", "captured", "stored", "dropped", "published", "fps", "mb_per_s", "latency_ms",
    "cpu_seconds", "memory_mb", "store",
]  # fmt: skip


def test_demo_prints_exactly_one_json_object_and_leaves_nothing() -> None:
    options = ["--cameras", "3", "--seconds", "3", "--fps", "20", "--kb", "30", "--size", "640x480", "--json"]
    with subprocess.Popen([*COMMAND, "demo", *options], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert output.count("\n") == 1
    summary = json.loads(output)
    assert list(summary) == SUMMARY_KEYS
    assert list(summary["latency_ms"]) == ["p50", "p99", "max"]
    assert list(summary["cpu_seconds"]) == ["capture", "writer", "publisher"]
    assert list(summary["memory_mb"]) == ["capture_each", "writer", "publisher"]
    assert summary["cameras"] == 3
    assert summary["captured"] == summary["stored"] > 3 * 20 * 2
    assert summary["dropped"] == summary["published"] == 0
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"] <= summary["latency_ms"]["max"]
    assert summary["mb_per_s"] == pytest.approx(summary["fps"] * 30 * 1024 / 1e6, rel=0.01)
    assert summary["store"].startswith("valkey ")
    assert not list(Path("/dev/shm").glob(f"edge-video-demo-{process.pid}-*"))


def test_demo_announces_where_it_is_given_a_broker(rabbitmq: RabbitMQ, vhost: str) -> None:
    done = command(
        "demo", "--cameras", "2", "--seconds", "2", "--size", "320x240", "--kb", "20", "--json",
        environment={"AMQP_URL": rabbitmq.url(vhost)},
    )  # fmt: skip
    summary = json.loads(done.stdout)
    assert summary["published"] == summary["stored"] > 0


def test_demo_takes_a_clip_as_its_source() -> None:
    from tests.system.clips import car_clip

    done = command("demo", "--cameras", "2", "--seconds", "3", "--source", str(car_clip()), "--json")
    summary = json.loads(done.stdout)
    assert summary["stored"] == summary["captured"] > 20


@pytest.mark.parametrize("arguments", [["--size", "large"], ["--profile", "nothing"], ["--cameras", "0"]])
def test_demo_refuses_bad_options(arguments: list[str]) -> None:
    done = command("demo", *arguments)
    assert done.returncode == 2
    assert done.stderr


def test_check_prints_the_site_without_its_secrets(site: Site) -> None:
    site.write(
        cameras=[{"id": "cam1", "url": "rtsp://admin:geheim@192.0.2.1/stream", "name": "Eingang"}],
        redis={"address": "redis://u:geheim2@192.0.2.2:6379", "password": "geheim3"},
        amqp_url="amqp://user:geheim4@192.0.2.3/client-a",
    )
    text = command("check", "-c", str(site.file), environment={"COLUMNS": "200"})
    data = command("check", "-c", str(site.file), "--json")
    assert text.returncode == data.returncode == 0
    assert "geheim" not in text.stdout + text.stderr + data.stdout + data.stderr
    for words in (
        "rtsp://***@192.0.2.1/stream",
        "Eingang",
        "redis://192.0.2.2:6379",
        "client-a:frames:<camera>",
        "MiB of",
    ):
        assert words in text.stdout
    document = json.loads(data.stdout)
    assert document["vhost"] == "client-a"
    assert document["cameras"][0]["url"] == "rtsp://***@192.0.2.1/stream"
    assert document["shared_memory"]["need_bytes"] > 8 * 2**20
    assert document["shared_memory"]["have_bytes"] > document["shared_memory"]["need_bytes"]


def test_go_edition_keys_are_named_in_one_warning(site: Site) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://"}], optimization={"max_workers": 4}, mqtt={"broker": "x"})
    site.file.write_text("target_fps = 5\n" + site.file.read_text())
    done = command("check", "-c", str(site.file), environment={"COLUMNS": "200"})
    assert done.returncode == 0
    assert done.stdout.count("warning:") == 1
    assert "[mqtt], [optimization]" in done.stdout
    assert json.loads(command("check", "-c", str(site.file), "--json").stdout)["cameras"][0]["fps"] == 5


def test_status_shows_a_running_site_to_people_and_programs(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    site.write(
        cameras=[{"id": "cam1", "url": "test://?fps=30", "name": "Eingang"}],
        redis={"address": redis_server.address},
        amqp_url=rabbitmq.url(vhost),
    )
    done = command("status", "-c", str(site.file))
    assert (done.returncode, done.stdout) == (1, f"site {site.name} is not running\n")
    site.start()
    wait_until(lambda: site.status()["publisher"]["confirmed"] > 60, 30, "events are confirmed")
    text = command("status", "-c", str(site.file), environment={"COLUMNS": "200"})
    done = command("status", "-c", str(site.file), "--json")
    assert text.returncode == done.returncode == 0
    for words in ("cam1", "active", "passthrough", "capture cam1", "writer", "publisher: connected"):
        assert words in text.stdout
    report = json.loads(done.stdout)
    assert site.stop() == 0
    assert report["running"]
    camera = report["cameras"][0]
    assert (camera["id"], camera["name"], camera["state"], camera["mode"]) == (
        "cam1",
        "Eingang",
        "active",
        "passthrough",
    )
    assert 25 < camera["fps"] < 35
    assert camera["stored"] <= camera["captured"]
    assert camera["stored_bytes"] == camera["stored"] * 60 * 1024
    assert set(camera["dropped"]) == {
        "ring_full", "too_large", "corrupt", "interrupted", "outage", "refused", "damaged", "broken_gop",
        "lost",
    }  # fmt: skip
    assert 0 <= camera["ring"]["fill"] < 0.5
    assert 0 < camera["latency_ms"]["p50"] <= camera["latency_ms"]["p99"] <= camera["latency_ms"]["max"]
    assert {process["role"] for process in report["processes"]} == {"writer", "publisher", "capture"}
    for process in report["processes"]:
        assert process["alive"]
        assert process["pid"] > 0
        assert process["memory_mb"] > 1
        assert process["restarts"] == 0
    assert report["publisher"]["published"] >= report["publisher"]["confirmed"] > 60
    assert report["publisher"]["lag_seconds"] >= 0


def test_run_logs_structured_lines_and_json_on_request(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://"}], redis={"address": redis_server.address})
    site.start("--json")
    wait_until(lambda: site.total("stored") > 10, 30, "frames flow")
    assert site.stop() == 0
    events = [json.loads(line) for line in site.log_text().splitlines()]
    assert {"timestamp", "level", "role", "event"} <= set(events[0])
    assert any(event["event"] == "camera active" and event["camera"] == "cam1" for event in events)
    site.log.unlink()
    site.start()
    assert site.stop() == 0
    assert 'role=supervisor event="site started"' in site.log_text()


def test_run_shows_a_live_table_on_a_terminal(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://"}], redis={"address": redis_server.address})
    leader, follower = pty.openpty()
    site.process = subprocess.Popen(
        [*COMMAND, "run", "-c", str(site.file)],
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"},
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    os.set_blocking(leader, False)
    shown = bytearray()

    def sees(words: bytes) -> bool:
        with contextlib.suppress(BlockingIOError):
            shown.extend(os.read(leader, 65536))
        return words in shown

    wait_until(lambda: sees(b"1 of 1 cameras active"), 30, "the table shows the camera")
    wait_until(lambda: sees(b"passthrough"), 30, "the table shows the mode")
    # Ctrl-C: the terminal sends it to every process of the group.
    for process in [*site.children(), psutil.Process(site.process.pid)]:
        process.send_signal(signal.SIGINT)
    assert site.process.wait(30) == 0
    os.close(leader)
    assert "camera active" in (site.config.run_directory / "edge-video.log").read_text()


def test_each_role_runs_alone_and_together_they_are_a_site(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    site.write(
        cameras=[{"id": f"cam {number}", "url": "test://?fps=30&kb=30"} for number in (1, 2)],
        redis={"address": redis_server.address},
        amqp_url=rabbitmq.url(vhost),
    )
    processes = {}
    with site.log.open("ab") as log:
        for role in (["capture", "cam 1"], ["writer"], ["publisher"], ["capture", "cam 2"]):
            processes[" ".join(role)] = subprocess.Popen(
                [*COMMAND, *role, "-c", str(site.file)], cwd=ROOT, stdout=log, stderr=log
            )
    try:
        wait_until(lambda: min(camera["stored"] for camera in site.status()["cameras"]) > 60, 30, "both are stored")
        wait_until(lambda: site.status()["publisher"]["confirmed"] > 60, 30, "events are confirmed")
        twice = command("writer", "-c", str(site.file))
        assert twice.returncode == 2
        assert f"pid {processes['writer'].pid}" in twice.stderr
        # A role that is killed goes on where it stopped when its supervisor (supervisord, systemd) starts it again.
        for role in (["writer"], ["capture", "cam 1"], ["publisher"]):
            processes[" ".join(role)].kill()
            processes[" ".join(role)].wait()
            stored = site.total("stored")
            with site.log.open("ab") as log:
                processes[" ".join(role)] = subprocess.Popen(
                    [*COMMAND, *role, "-c", str(site.file)], cwd=ROOT, stdout=log, stderr=log
                )
            # A signal that comes before a process waits for signals ends it.
            wait_until(lambda role=role: site.pid(*role) == processes[" ".join(role)].pid, 30, "it is up")
            wait_until(lambda stored=stored: site.total("stored") > stored + 60, 30, "frames flow again")
        for role in ("capture cam 1", "capture cam 2", "writer", "publisher"):
            processes[role].terminate()
        for role, process in processes.items():
            assert process.wait(30) == 0, role
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    for camera, numbers in stored_frames(redis_server.client(), vhost).numbers.items():
        assert len(missing_numbers(numbers)) <= (1 if camera == "cam 1" else 0), camera


def test_clean_removes_what_a_killed_site_left(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://"}], redis={"address": redis_server.address})
    site.start()
    redis_server.pause()
    captured = site.total("captured")
    wait_until(lambda: site.total("captured") > captured + 20, 30, "the ring holds frames")
    children = site.children()
    assert site.process is not None
    site.process.kill()
    site.process.wait()
    psutil.wait_procs(children, 10)
    assert site.paths.directory.exists()
    done = command("clean", "-c", str(site.file), "--json")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["rings"] == 1
    assert report["frames"] >= 20
    assert not site.paths.directory.exists()
    assert command("clean", "-c", str(site.file)).stdout == "nothing to remove\n"


def test_an_unknown_camera_is_answered_with_the_nearest(site: Site) -> None:
    site.write(cameras=[{"id": "entrada", "url": "test://"}])
    done = command("capture", "entrado", "-c", str(site.file))
    assert done.returncode == 2
    assert "did you mean 'entrada'" in done.stderr


def test_several_writers_share_the_cameras(site: Site, redis_server: RedisServer) -> None:
    site.write(
        cameras=[{"id": f"cam{number}", "url": "test://?fps=30&kb=20&size=320x240"} for number in range(5)],
        redis={"address": redis_server.address},
        writer={"writers": 2},
    )
    site.start()
    wait_until(lambda: min(camera["stored"] for camera in site.status()["cameras"]) > 60, 30, "all are stored")
    assert [p["role"] for p in site.status()["processes"]].count("writer") == 2
    assert site.stop() == 0
    numbers = stored_frames(redis_server.client(), "default").numbers
    assert len(numbers) == 5
    assert not any(missing_numbers(got) for got in numbers.values())
