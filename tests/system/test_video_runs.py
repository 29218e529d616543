"""Video of several cameras over more than one writer, and over runs of a site of which some store no video."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from pathlib import Path

import psutil
import pytest
import redis

from engine.shm.ring_file import Observer
from tests.servers.clips import Stream, make_clip, read_clip
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_video import Mount, RtspVideo
from tests.servers.wait import wait_until
from tests.system.site import Site
from tests.system.stored_units import places_of, runs_of, stored_units


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return read_clip(make_clip(path, seconds=4, options=("-bf", "2")), 30)


def write_site(
    site: Site, server: RedisServer, cameras: RtspVideo, *, video: bool = True, writers: int = 1
) -> list[str]:
    names = [path.strip("/") for path in cameras.mounts]
    site.write(
        cameras=[{"id": name, "url": cameras.url(f"/{name}"), "video": video, "decode": "key"} for name in names],
        redis={"address": server.address, "ttl_seconds": 600, "timeout_seconds": 1.0},
        writer={"writers": writers},
    )
    return names


def stored(client: redis.Redis, camera: str) -> int:
    return int(client.xlen(f"engine:default:journal:frames/{camera}"))


def test_two_writers_of_which_one_is_killed_lose_nothing(
    site: Site, redis_server: RedisServer, stream: Stream, tmp_path: Path
) -> None:
    client = redis_server.client()
    with RtspVideo.alike(tmp_path / "rtsp", stream, 6) as cameras:
        names = write_site(site, redis_server, cameras, writers=2)
        assert len({site.config.writer_of(name) for name in names}) == 2
        site.start()
        wait_until(lambda: all(stored(client, name) > 30 for name in names), 60, "units", log=site.log_text)
        site.kill("writer")
        before = {name: stored(client, name) for name in names}
        wait_until(
            lambda: all(stored(client, name) > before[name] + 45 for name in names), 60, "more units", log=site.log_text
        )
        assert site.dropped() == {}
        assert not any(count for camera in site.status()["cameras"] for count in camera["video"]["dropped"].values())
        assert site.stop() == 0
    for name in names:
        (run,) = runs_of(stored_units(client, name))
        assert run[0].entry.sequence == 1
        places = places_of(run, stream)
        assert all(after - before in (1, 1 - len(stream.units)) for before, after in itertools.pairwise(places))


def test_video_switched_off_and_on_with_units_left_in_the_ring(
    site: Site, redis_server: RedisServer, stream: Stream, tmp_path: Path
) -> None:
    """A site that is killed leaves units in its ring. The next run, without video, removes that ring and counts
    them. The run after it, with video again, goes on with the sequence of what is stored."""
    client = redis_server.client()
    with RtspVideo(tmp_path / "rtsp", {"/cam": Mount(stream)}) as cameras:
        write_site(site, redis_server, cameras)
        site.start()
        wait_until(lambda: stored(client, "cam") > 30, 60, "units", log=site.log_text)
        redis_server.pause()
        wait_until(lambda: site.camera("cam")["video"]["captured"] > 80, 30, "units in the ring", log=site.log_text)
        children = site.children()
        assert site.process is not None
        os.kill(site.process.pid, signal.SIGKILL)
        site.process.wait()
        psutil.wait_procs(children, 20)
        with contextlib.closing(Observer(site.paths.ring("cam", video=True), "cam")) as observer:
            held = observer.counts().held
        assert held > 20
        redis_server.resume()
        left = stored(client, "cam")
        write_site(site, redis_server, cameras, video=False)
        site.start()
        frames = "engine:default:journal:frames:cam"
        known = client.xlen(frames)
        wait_until(lambda: client.xlen(frames) > known + 2, 30, "frames flow", log=site.log_text)
        assert site.stop() == 0
        # The ring of video is not the site's any more: what it held is counted where it is removed.
        assert f"camera=cam lost_frames={held} " in site.log_text()
        assert stored(client, "cam") == left
        last = stored_units(client, "cam")[-1].entry.sequence
        write_site(site, redis_server, cameras)
        site.start()
        before = stored(client, "cam")
        wait_until(lambda: stored(client, "cam") > before + 40, 60, "units again", log=site.log_text)
        dropped = site.camera("cam")["video"]["dropped"]
        assert site.stop() == 0
    assert not any(dropped.values())
    units = stored_units(client, "cam")
    assert units[last].entry.keyframe
    (run,) = runs_of(units)
    assert run[-1].entry.sequence == len(units)
    places_of(run, stream)
