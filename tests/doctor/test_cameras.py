"""The doctor before cameras, of a site that runs and of one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.config import Camera, Url, from_document
from engine.doctor import camera_checks, camera_probe
from engine.doctor.examine import examine, look_at_cameras
from engine.runtime.status import collect
from tests.servers.mjpeg_http import MjpegCamera, make_jpegs
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.wait import free_port, wait_until
from tests.system.site import Site, command


@pytest.fixture
def mjpeg():
    with MjpegCamera(make_jpegs(5), fps=25) as made:
        yield made


def test_cameras_of_a_site_that_does_not_run(tmp_path: Path, mjpeg):
    with MjpegCamera(make_jpegs(2), mode="silent") as hung:
        urls = {
            "test": "test://?size=320x240&fps=20&kb=8",
            "mjpeg": mjpeg.url.replace("://", "://user:secret@"),
            "again": mjpeg.url,
            "file": str(tmp_path / "none.mp4"),
            "refused": f"http://user:secret@127.0.0.1:{free_port()}/x",
            "hung": hung.url,
        }
        short = {"stall_seconds": 1, "open_timeout_seconds": 1}
        cameras = [{"id": name, "url": url, **short} for name, url in urls.items()]
        cameras[2]["encoding"] = "jpeg"
        config = from_document({"site": {"run_directory": str(tmp_path / "run")}, "cameras": cameras}, {})
        seen = look_at_cameras(config, collect(config, memory=False))
    found = {camera.id: camera_checks.verdict(camera, seen[camera.id]) for camera in config.cameras}
    assert {name: finding.verdict for name, finding in found.items()} == {
        "test": "ok",
        "mjpeg": "ok",
        "again": "information",
        "file": "broken",
        "refused": "broken",
        "hung": "broken",
    }, found
    assert seen["mjpeg"].fps > 0
    assert (seen["mjpeg"].width, seen["mjpeg"].height, seen["mjpeg"].mode) == (320, 240, "passthrough")
    assert "there is no file" in found["file"].found
    assert "secret" not in str(found)


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_the_rate_is_the_camera_s_whatever_comes_at_once_at_first(tmp_path: Path, codec):
    """FFmpeg looks at some frames of H.264 before it hands any out."""
    with RtspCamera(tmp_path, codec=codec, fps=10) as server:
        facts = camera_probe.measure(Camera(id="a", url=Url(server.url)))
    assert 9 <= facts.fps <= 11


def test_a_camera_is_told_apart_from_another_by_what_is_wrong_with_it(tmp_path: Path):
    with RtspCamera(tmp_path, codec="mjpeg", user="viewer", password="secret") as server:
        urls = {
            "password": server.url.replace("secret", "geheim"),
            "path": server.url.replace("/cam", "/no"),
            "port": f"rtsp://127.0.0.1:{free_port()}/x",
        }
        cameras = [Camera(id=name, url=Url(url), open_timeout_seconds=5.0) for name, url in urls.items()]
        found = [
            camera_checks.verdict(camera, facts)
            for camera, facts in zip(cameras, camera_probe.gather(cameras), strict=True)
        ]
    assert {finding.verdict for finding in found} == {"broken"}
    assert found[0].found == "wrong user or password (401 from 127.0.0.1)"
    assert found[0].todo == "correct them in its url"
    assert found[1].found == "no such path (404 from 127.0.0.1)"
    assert found[2].found.startswith("port ")


def test_a_look_that_hangs_in_native_code_is_killed(tmp_path: Path, monkeypatch):
    """A FIFO that nobody writes to: opening it never returns, whatever timeouts FFmpeg is given."""
    import os

    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    monkeypatch.setattr(camera_probe, "_MARGIN_SECONDS", 0.0)
    monkeypatch.setattr(camera_probe, "MEASURE_SECONDS", 0.0)
    monkeypatch.setattr(camera_probe, "SETTLE_SECONDS", 0.0)
    document = {"cameras": [{"id": "a", "url": str(fifo), "stall_seconds": 0.5, "open_timeout_seconds": 0.5}]}
    (facts,) = camera_probe.gather(from_document(document, {}).cameras)
    assert "was killed" in facts.error


def test_a_camera_that_a_site_has_open_is_not_opened_again(site: Site, mjpeg):
    site.write(cameras=[{"id": "door", "url": mjpeg.url}])
    site.start()
    wait_until(lambda: site.camera("door")["fps"] > 0 and site.total("stored") > 10, 30, "frames are stored")
    sessions = len(mjpeg.connections)
    running, findings = examine(site.config)
    assert running
    (door,) = (finding for finding in findings if finding.part == "cameras")
    assert door.verdict == "ok"
    assert "320x240" in door.found
    assert len(mjpeg.connections) == sessions
    redis = {finding.check: finding.verdict for finding in findings if finding.part == "redis"}
    assert redis["reachable"] == redis["eviction"] == redis["expiry"] == redis["TTL of journals"] == "ok"
    mjpeg.mode = "refuse"
    wait_until(lambda: site.camera("door")["state"] != "active", 30, "the camera is noticed as gone")
    (door,) = (finding for finding in examine(site.config).findings if finding.part == "cameras")
    assert door.verdict == "broken"
    assert site.stop() == 0


def test_the_command_for_programs_and_for_people(site: Site, tmp_path: Path):
    port = free_port()
    site.write(cameras=[{"id": "a", "url": "test://"}], redis={"address": f"redis://u:topsecret@127.0.0.1:{port}"})
    for arguments in (["--json"], []):
        done = command("doctor", "-c", str(site.file), "--no-cameras", *arguments)
        assert done.returncode == 2, done.stderr
        assert "topsecret" not in done.stdout + done.stderr
        if arguments:
            report = json.loads(done.stdout)
            assert (report["exit_code"], report["running"]) == (2, False)
            assert {"part", "check", "verdict", "found", "good", "todo"} == set(report["findings"][0])
            assert {finding["part"] for finding in report["findings"]} == {"redis", "rabbitmq", "machine", "cameras"}
        else:
            assert "something is broken" in done.stdout
            assert "do: start the server" in done.stdout
    assert not (site.directory / "s").exists()
    site.file.write_text("[redis]\nadress = 1\n")
    done = command("doctor", "-c", str(site.file))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "did you mean 'address'" in done.stderr
