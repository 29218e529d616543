"""A site announces the GOPs of its cameras' video. No stored access unit is left out, also after kills and outages."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from engine.wire.keys import parse_video_key
from engine.wire.metadata import GopEvent
from tests.servers.clips import Stream, make_clip, read_clip
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_video import Mount, RtspVideo
from tests.servers.wait import wait_until
from tests.stages.test_gop_events import Announced
from tests.system.site import Site
from tests.system.stored_units import StoredUnit, stored_units

CAMERAS = ("gate", "yard")
#: Frames a second, and from key frame to key frame.
FPS, GOP = 25, 10


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    return read_clip(make_clip(tmp_path_factory.mktemp("clip") / "a.mp4", fps=FPS, gop=GOP, seconds=4))


@pytest.fixture
def cameras(clip: Stream, tmp_path: Path) -> Iterator[RtspVideo]:
    with RtspVideo(tmp_path / "rtsp", {f"/{name}": Mount(clip) for name in CAMERAS}) as running:
        yield running


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


class Watched:
    """A site with a queue that is bound to its GOPs."""

    def __init__(self, site: Site, rabbitmq: RabbitMQ, vhost: str) -> None:
        self.site, self.vhost = site, vhost
        self._connection = rabbitmq.connect(vhost)
        self._queue = Announced(self._connection.channel(), site.config)
        self.events: list[GopEvent] = []

    def take(self) -> int:
        """Take what has come; returns how many events there were so far."""
        self.events += self._queue.take()
        return len(self.events)

    def close(self) -> None:
        self._connection.close()

    def balances(self, client: redis.Redis, *, repeats: bool = True) -> None:
        """After a stop: all that is stored is announced as what it is, without or with ``repeats``."""
        self.take()
        for camera in CAMERAS:
            units = stored_units(client, camera, self.vhost)
            events = [event for event in self.events if event.camera_id == camera]
            assert _covered(units, events) == len(units) > 0
            firsts = [event.timestamp_nano for event in events]
            assert repeats or firsts == sorted(set(firsts)), "out of order, or twice without a reason"
            assert list(dict.fromkeys(firsts)) == sorted(set(firsts)), "out of order"


def _covered(units: Sequence[StoredUnit], events: Sequence[GopEvent]) -> int:
    """How many units are in a GOP that was announced as what it is."""
    covered: set[int] = set()
    for event in events:
        first, last = parse_video_key(event.first_key), parse_video_key(event.last_key)
        part = [unit for unit in units if first.unix_nano <= unit.entry.unix_nano <= last.unix_nano]
        assert event.frames == len(part), event
        assert event.size_bytes == sum(unit.entry.size for unit in part)
        assert [unit.entry.keyframe for unit in part] == [True] + [False] * (len(part) - 1)
        assert (event.encoding, event.width, event.height) == ("h264", 320, 240)
        for before, after in itertools.pairwise(part):
            assert after.entry.sequence == before.entry.sequence % 99_999 + 1
        covered |= {unit.entry.unix_nano for unit in part}
    return len(covered)


@pytest.fixture
def watched(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str, cameras: RtspVideo
) -> Iterator[Watched]:
    site.write(
        cameras=[{"id": name, "url": cameras.url(f"/{name}"), "video": True, "decode": "none"} for name in CAMERAS],
        redis={"address": redis_server.address, "ttl_seconds": 600},
        amqp_url=rabbitmq.url(vhost),
        metadata={"video": "gop"},
    )
    made = Watched(site, rabbitmq, vhost)
    site.start()
    wait_until(lambda: made.take() > 8, 60, "GOPs are announced", log=site.log_text)
    yield made
    made.close()


def test_all_that_is_stored_is_announced_the_last_gop_at_the_stop(
    watched: Watched, client: redis.Redis, clip: Stream
) -> None:
    assert watched.site.stop() == 0
    watched.balances(client, repeats=False)
    whole = [event for event in watched.events if event.frames == GOP]
    assert len(whole) > len(watched.events) / 2
    assert all(abs(event.duration_seconds - GOP / FPS) < 0.25 for event in whole)


@pytest.mark.parametrize("role", ["publisher", "writer", "capture"])
def test_a_kill_leaves_no_gop_out(watched: Watched, client: redis.Redis, role: str) -> None:
    for _ in range(3):
        before = watched.take()
        watched.site.signal(signal.SIGKILL, role, *(CAMERAS[:1] if role == "capture" else ()))
        wait_until(lambda before=before: watched.take() > before + 6, 60, "GOPs come", log=watched.site.log_text)
    assert watched.site.stop() == 0
    watched.balances(client)


def test_a_camera_that_stands_still_has_its_last_gop_announced(
    watched: Watched, client: redis.Redis, cameras: RtspVideo
) -> None:
    cameras.pause()
    try:

        def all_announced() -> bool:
            watched.take()
            return all(
                stored_units(client, camera, watched.vhost)[-1].entry.unix_nano
                in [event.last_timestamp_nano for event in watched.events if event.camera_id == camera]
                for camera in CAMERAS
            )

        wait_until(all_announced, 30, "the GOPs that stand still are announced")
    finally:
        cameras.resume()
    count = watched.take()
    wait_until(lambda: watched.take() > count + 4, 60, "GOPs come again")
    assert watched.site.stop() == 0
    # What goes on behind its announcement is announced again, as a whole.
    watched.balances(client)


def test_an_outage_of_redis_delays_gops(watched: Watched, client: redis.Redis, redis_server: RedisServer) -> None:
    redis_server.pause()
    site: Any = watched.site
    try:
        wait_until(lambda: "redis" in [one["server"] for one in site.status()["outages"]], 60, "it is noticed")
    finally:
        redis_server.resume()
    count = watched.take()
    wait_until(lambda: watched.take() > count + 6, 60, "GOPs come again", log=site.log_text)
    assert site.stop() == 0
    watched.balances(client)
