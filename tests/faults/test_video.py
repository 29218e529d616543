"""Faults of a site that stores video: what is stored is whole, decodes, and each missing unit is counted."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.cases import Case
from tests.faults.video_run import CAMERAS, FPS, REST_OF_GOP, VideoRun
from tests.servers.clips import Stream, make_clip, read_clip
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import Site


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return read_clip(make_clip(path, fps=FPS, seconds=8, gop=2 * FPS, kbit=1200))


@pytest.fixture
def video_run(
    case: Case,
    repetition: int,
    site: Site,
    redis_for: RedisServer,
    stream: Stream,
    short_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[VideoRun]:
    made = VideoRun(case, site, redis_for, short_path / f"rtsp{repetition}", stream)
    yield made
    site.end()
    made.close()
    observed = {
        "key": case.key,
        "accounts": made.accounts._asdict() if made.accounts else None,
        "seconds": made.recovery_seconds,
        "note": "",
    }
    request.node.user_properties.append(("observed", observed))


@pytest.mark.case("video-kill-capture")
def test_captures_killed(video_run: VideoRun) -> None:
    """Each begins again with a key frame."""
    video_run.start()
    for name in (*CAMERAS[:3], CAMERAS[0]):
        video_run.site.kill("capture", name)
    video_run.flows()
    video_run.ends()


@pytest.mark.case("video-kill-writer")
def test_the_writer_killed(video_run: VideoRun) -> None:
    video_run.start()
    for _ in range(4):
        video_run.site.kill("writer")
        video_run.flows(0.5)
    video_run.ends()


@pytest.mark.case("video-kill-supervisor")
def test_the_supervisor_killed(video_run: VideoRun) -> None:
    """The next start adopts the rings of frames and of video."""
    video_run.start()
    site = video_run.site
    assert site.process is not None
    children = site.children()
    os.kill(site.process.pid, signal.SIGKILL)
    site.process.wait()
    psutil.wait_procs(children, 20)
    site.start()
    video_run.flows()
    video_run.ends()


@pytest.mark.case("video-redis-stopped")
def test_redis_stands_still(video_run: VideoRun) -> None:
    video_run.start()
    video_run.redis.pause()
    video_run.lasts(3)
    video_run.redis.resume()
    video_run.ends()


@pytest.mark.case("video-redis-long")
def test_redis_stands_still_for_longer_than_the_rings_hold(video_run: VideoRun) -> None:
    """The oldest GOPs go, each of them whole: what is left begins with a key frame."""
    video_run.start(video={"capacity_mb": 1})
    video_run.redis.pause()
    wait_until(lambda: video_run.dropped("outage") >= len(CAMERAS), 120, "rings overflow", interval=0.2)
    video_run.redis.resume()
    accounts = video_run.ends()
    assert accounts.drops[REST_OF_GOP] > accounts.drops["outage"]


@pytest.mark.case("video-redis-emptied")
def test_redis_comes_back_empty(video_run: VideoRun) -> None:
    """The rest of a GOP whose beginning is lost is not stored."""
    video_run.start()
    video_run.redis.kill()
    video_run.lasts(1)
    video_run.redis.start()
    accounts = video_run.ends()
    assert accounts.drops["lost"] >= len(CAMERAS) * FPS


@pytest.mark.case("video-ring-full")
def test_full_rings_that_keep_the_oldest(video_run: VideoRun) -> None:
    video_run.start(ring={"capacity_mb": 1, "overflow": "drop-newest"})
    video_run.redis.pause()
    wait_until(lambda: video_run.dropped("ring_full") >= len(CAMERAS), 120, "rings are full", interval=0.2)
    video_run.redis.resume()
    accounts = video_run.ends()
    assert accounts.drops["ring_full"] > 0


@pytest.mark.case("video-camera")
def test_cameras_restarted(video_run: VideoRun) -> None:
    video_run.start()
    video_run.server.restart()
    video_run.flows()
    video_run.ends()
