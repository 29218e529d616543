"""The doctor before cameras, of a site that runs and of one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from engine.config import Camera, Url, from_document
from engine.doctor import camera_checks, camera_probe
from engine.doctor.examine import examine, look_at_cameras
from engine.runtime.status import collect
from engine.runtime.status_cameras import CameraReport, look_at
from engine.shm.site import SitePaths
from engine.wire.state import NO_SETS
from tests.servers.clips import Stream, make_clip, read_clip
from tests.servers.mjpeg_http import MjpegCamera, make_jpegs
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.rtsp_video import Mount, RtspVideo
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


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """15 fps, a key frame every second."""
    return read_clip(make_clip(tmp_path_factory.mktemp("clip") / "a.mp4", fps=15, gop=15, seconds=4))


@pytest.mark.parametrize("wanted", ["auto", "key", "none"])
def test_a_camera_of_h264_is_measured_by_its_access_units(tmp_path: Path, clip: Stream, wanted: str):
    video = wanted == "none"
    with RtspVideo(tmp_path, {"/cam": Mount(clip)}) as server:
        camera = Camera(id="a", url=Url(server.url("/cam")), decode=wanted, video=video)
        facts = camera_probe.measure(camera)
    assert (facts.codec, facts.decode) == ("h264", "all" if wanted == "auto" else wanted)
    assert (facts.width, facts.height, facts.error, facts.note) == (320, 240, "", "")
    assert 14 <= facts.packet_fps <= 16
    assert 0.9 <= facts.key_interval_seconds <= 1.1
    mean = sum(len(unit.annexb) for unit in clip.units) / len(clip.units)
    assert mean / 1.5 < facts.packet_bytes < mean * 1.5
    assert facts.fps == pytest.approx({"auto": 15, "key": 1, "none": 0}[wanted], abs=1.1 if wanted == "auto" else 0.15)
    assert bool(facts.frame_bytes) == bool(facts.frames) == (wanted != "none")
    told = camera_checks.verdict(camera, facts)
    assert told.verdict == ("information" if wanted == "auto" else "ok"), told
    assert ("video = true" in told.todo) == (wanted == "auto")


def test_a_camera_that_sends_no_key_frame_is_waited_for(tmp_path: Path, clip: Stream, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(camera_probe, "KEY_SECONDS", 3.0)
    with RtspVideo(tmp_path, {"/cam": Mount(clip, keyless_seconds=60)}) as server:
        camera = Camera(id="a", url=Url(server.url("/cam")), decode="key", video=True)
        facts = camera_probe.measure(camera, 0.5)
    assert (facts.note, facts.error) == ("no key frame in 3 s", "")
    told = camera_checks.verdict(camera, facts)
    assert told.verdict == "warning"
    assert "I-frame interval" in told.todo


@pytest.mark.parametrize("wanted", ["all", "key"])
def test_key_frames_without_parameter_sets_are_no_matter_of_the_interval(tmp_path: Path, clip: Stream, wanted: str):
    with RtspVideo(tmp_path, {"/cam": Mount(clip.without_sets(), sets_in_sdp=False)}) as server:
        camera = Camera(id="a", url=Url(server.url("/cam")), decode=wanted, video=True)
        facts = camera_probe.measure(camera, 0.5)
    assert (facts.note, facts.error) == (NO_SETS, "")
    told = camera_checks.verdict(camera, facts)
    assert told.verdict == "warning"
    assert "SPS and PPS" in told.todo
    assert "interval" not in told.good + told.todo


def report(**changes: object) -> CameraReport:
    """What a running site tells of a camera of H.264 that has flowed."""
    config = from_document({"cameras": [{"id": "gate", "url": "rtsp://192.0.2.1/x", "video": True}]}, {})
    paths = SitePaths.of(config)
    known = look_at(config, paths, config.cameras[0]).report
    fields = {"state": "active", "codec": "h264", "mode": "transcode", "decode": "all", **changes}
    return msgspec.structs.replace(known, **fields)


@pytest.mark.parametrize(
    ("failures", "error", "advice", "found", "todo"),
    [
        (1, "sent nothing for 5.0 s", "", "stalled: sent nothing for 5.0 s", "power and network"),
        (2, "sent nothing for 5.0 s", "", "stalled, 2 tries in a row: sent nothing for 5.0 s", "power and network"),
        (1, "no such path (404); correct the path", "correct the path", "stalled: no such path (404)", "correct the"),
        (0, "", "", "stalled: no frame yet", "power and network"),
    ],
    ids=["first", "second", "advice", "none"],
)
def test_h264_that_stalls_is_told_as_such(failures, error, advice, found, todo):
    failed = report(state="stalled", consecutive_failures=failures, last_error=error, advice=advice)
    facts = camera_checks.reported(failed)
    (camera,) = from_document({"cameras": [{"id": "gate", "url": "rtsp://192.0.2.1/x", "video": True}]}, {}).cameras
    told = camera_checks.verdict(camera, facts)
    assert (told.verdict, told.found) == ("broken", found)
    assert todo in told.todo
    assert "passthrough" not in told.good


def test_a_running_site_tells_of_its_video(site: Site, redis_server: RedisServer, tmp_path: Path, clip: Stream):
    with RtspVideo(tmp_path / "rtsp", {"/cam": Mount(clip)}) as server:
        site.write(
            cameras=[{"id": "gate", "url": server.url("/cam"), "video": True, "decode": "key"}],
            redis={"address": redis_server.address},
        )
        site.start()
        wait_until(
            lambda: site.camera("gate")["key_interval_seconds"] and site.camera("gate")["packet_fps"] > 10,
            30,
            "it is measured",
        )
        gate = site.camera("gate")
        done = command("doctor", "-c", str(site.file), "--json")
        assert site.stop() == 0
    assert (gate["decode"], gate["codec"]) == ("key", "h264")
    assert gate["fps"] == pytest.approx(1 / gate["key_interval_seconds"], rel=0.1)
    assert gate["video"]["stored"] > 0
    (found,) = (one for one in json.loads(done.stdout)["findings"] if one["check"] == "gate")
    assert found["verdict"] == "ok", found
    assert "stored as sent, JPEGs of key frames" in found["found"]
    memory = next(one for one in json.loads(done.stdout)["findings"] if one["check"] == "memory needed")
    assert " packets/s of video for 300 s" in memory["found"]


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
    monkeypatch.setattr(camera_probe, "KEY_SECONDS", 0.0)
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
