"""How the facts of alerts are collected: from status pages, file systems and clocks, without a running site."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from engine.config import Camera, Config, Url, from_document
from engine.monitor import look
from engine.monitor.facts import CameraFacts, Facts, ProcessFacts
from engine.monitor.look import Looker
from engine.monitor.redis_watch import Answer
from engine.runtime.roles import CAPTURE, SUPERVISOR, WRITER
from engine.servers.redis.figures import RedisFigures
from engine.shm import ring_place, segment
from engine.shm.site import SitePaths
from engine.shm.status_page import CaptureCount, StatusPage, signed_word
from engine.wire.state import CameraStatus, encode_status

SILENT = Answer(None, 0.0, "")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    found = from_document(
        {
            "site": {"run_directory": str(tmp_path / "run")},
            "ring": {"directory": str(tmp_path), "capacity_mb": 1},
            "web": {"listen": ""},
            "alerts": {"window_seconds": 60.0},
            "cameras": [{"id": "cam1", "url": "test://"}],
        },
        {},
    )
    segment.private_directory(SitePaths.of(found).directory)
    ring_place.ensure(found, "cam1")
    return found


def process(facts: Facts, name: str) -> ProcessFacts | None:
    return next((one for one in facts.processes if one.name == name), None)


def test_a_process_that_never_ran_is_not_down_and_one_that_died_is(config: Config) -> None:
    looker = Looker(config)
    assert looker.look(0.0, SILENT).processes == ()
    page = StatusPage.claim(WRITER.instance(config).page)
    assert process(looker.look(2.0, SILENT), "writer") == ProcessFacts("writer")
    page.close()
    assert process(looker.look(4.0, SILENT), "writer") == ProcessFacts("writer")
    assert process(looker.look(9.0, SILENT), "writer") == ProcessFacts("writer", 5.0)
    page = StatusPage.claim(WRITER.instance(config).page)
    page.restarts = 4
    assert process(looker.look(11.0, SILENT), "writer") == ProcessFacts("writer", 0.0, 4)
    assert process(looker.look(72.0, SILENT), "writer") == ProcessFacts("writer"), "the window has passed"
    page.close()


def test_a_capture_that_ended_for_good_is_not_down(config: Config) -> None:
    looker = Looker(config)
    page = StatusPage.claim(CAPTURE.instance(config, "cam1").page)
    page.counts[CaptureCount.FINISHED] = 1
    page.text = encode_status(CameraStatus("offline", time.time_ns() - 10**12, 0, "end of file"))
    page.close()
    facts = looker.look(0.0, SILENT)
    assert (facts.processes, facts.cameras[0].down_seconds) == ((), 0.0)


def test_a_camera_is_down_from_its_last_change_until_it_is_active(config: Config) -> None:
    page = StatusPage.claim(CAPTURE.instance(config, "cam1").page)
    page.text = encode_status(CameraStatus("stalled", time.time_ns() - 100 * 10**9, 3, "timed out"))
    looker = Looker(config)
    (camera,) = looker.look(1000.0, SILENT).cameras
    assert camera.down_seconds == pytest.approx(100, abs=5)
    assert (camera.state, camera.error) == ("stalled", "timed out")
    # It connects again and fails again: still the same outage.
    page.text = encode_status(CameraStatus("connecting", time.time_ns()))
    assert looker.look(1010.0, SILENT).cameras[0].down_seconds == pytest.approx(110, abs=5)
    page.text = encode_status(CameraStatus("active", time.time_ns()))
    page.counts[CaptureCount.CAMERA_OFFSET_US] = signed_word(-2_500_000)
    found = looker.look(1012.0, SILENT).cameras[0]
    assert not any(found.dropped.values())
    assert msgspec.structs.replace(found, dropped={}) == CameraFacts("cam1", clock_offset_seconds=-2.5)
    page.close()


def test_without_a_supervisor_cameras_come_and_go(config: Config) -> None:
    """``edge-video capture --all`` takes and leaves cameras at SIGHUP."""
    looker = Looker(config)
    assert [camera.id for camera in looker.look(0.0, SILENT).cameras] == ["cam1"]
    SitePaths.of(config).ring("cam1").unlink()
    ring_place.ensure(msgspec.structs.replace(config, cameras=(Camera(id="new", url=Url("test://")),)), "new")
    page = StatusPage.claim(CAPTURE.instance(config, "cam1").page)
    page.close()
    facts = looker.look(10.0, SILENT)
    assert [camera.id for camera in facts.cameras] == ["new"]
    assert process(facts, "capture cam1") is None
    # With one, the site file says which there are.
    supervisor = StatusPage.claim(SUPERVISOR.instance(config).page)
    assert [camera.id for camera in looker.look(20.0, SILENT).cameras] == ["cam1"]
    supervisor.close()


def test_a_step_of_the_clock_is_told_for_a_window(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    offset = [1000.0]
    monkeypatch.setattr(look, "_clock_offset", lambda: offset[0])
    looker = Looker(config)
    offset[0] += 0.01
    assert looker.look(0.0, SILENT).clock_step_seconds == 0.0, "slewing"
    offset[0] -= 3600.0
    assert looker.look(2.0, SILENT).clock_step_seconds == pytest.approx(-3600.0)
    offset[0] += 5.0
    assert looker.look(4.0, SILENT).clock_step_seconds == pytest.approx(-3600.0)
    assert looker.look(63.0, SILENT).clock_step_seconds == pytest.approx(5.0)
    assert looker.look(65.0, SILENT).clock_step_seconds == 0.0


def test_look_ups_are_those_of_the_window_and_unknown_figures_none(config: Config) -> None:
    looker = Looker(config)
    figures = [RedisFigures(keyspace_hits=hits, keyspace_misses=hits // 2) for hits in (1000, 1200, 1200)]
    facts = [looker.look(now, Answer(one, 0.0, "")) for now, one in zip((0.0, 2.0, 70.0), figures, strict=True)]
    assert [(one.redis.hits, one.redis.misses) for one in facts if one.redis] == [(0, 0), (200, 100), (0, 0)]
    away = looker.look(72.0, Answer(None, 7.5, "refused"))
    assert (away.redis, away.redis_away_seconds, away.redis_error) == (None, 7.5, "refused")


def test_the_share_of_a_file_system_in_use() -> None:
    assert look.used_share(90, 10) == 0.9
    assert look.used_share(-5, 10) == 0.0, "rings that are not made yet"
    assert look.used_share(0, 0) == 0.0


def test_file_systems_are_told_once_each(config: Config) -> None:
    paths = [disk.path for disk in Looker(config).look(0.0, SILENT).disks]
    assert paths == [config.ring.directory]
