"""A camera that tells the time, and one that does not: journal, events, readers, status and doctor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis

from engine.client.store import FrameStore
from tests.servers.clips import make_clip, read_clip
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_video import Mount, RtspVideo
from tests.servers.wait import wait_until
from tests.system.consumer import Consumer
from tests.system.site import Site, command
from tests.system.stored_units import stored_units

#: The first camera's clock minus ours, in seconds.
AHEAD = -3600.0


def test_the_time_that_a_camera_tells_is_with_all_that_it_sent(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str, tmp_path: Path
) -> None:
    stream = read_clip(make_clip(tmp_path / "a.mp4", fps=15, gop=5))
    mounts = {"/told": Mount(stream, ahead_seconds=AHEAD), "/mute": Mount(stream, reports=False)}
    with RtspVideo(tmp_path / "rtsp", mounts) as server, Consumer(rabbitmq, vhost) as consumer:
        cameras = [{"id": name[1:], "url": server.url(name), "video": True, "decode": "key"} for name in mounts]
        site.write(
            cameras=cameras, redis={"address": redis_server.address, "ttl_seconds": 600}, amqp_url=rabbitmq.url(vhost)
        )
        site.start()
        wait_until(lambda: site.camera("told")["clock_offset_seconds"] is not None, 30, "the clock is compared")
        wait_until(lambda: len(consumer.frames()) >= 20, 60, "events", log=site.log_text)
        told, mute = site.camera("told"), site.camera("mute")
        examined = command("doctor", "-c", str(site.file), "--json")
        assert site.stop() == 0
        wait_until(lambda: len(consumer.frames()) == site_entries(redis_server.client(), vhost), 30, "all events")
        events = consumer.frames()
    assert told["clock_offset_seconds"] == pytest.approx(AHEAD, abs=1)
    assert (mute["clock_offset_seconds"], mute["clock_drift_ppm"]) == (None, None)
    findings = {one["check"]: one for one in json.loads(examined.stdout)["findings"]}
    assert findings["told"]["verdict"] == "warning"
    assert "; clock -3,600." in findings["told"]["found"]
    assert "NTP" in findings["told"]["todo"]
    assert findings["mute"]["verdict"] == "ok"

    # JPEGs: events as the page's consumer gets them, and what the library reads.
    times = {event["redis_key"]: event.get("camera_time_nano") for event in events}
    with FrameStore.from_site(site.file) as store:
        frames = [entry for name in ("told", "mute") for entry in store.entries(name)]
        newest = store.latest("told")
    assert {frame.key: frame.camera_time_nano for frame in frames} == times
    assert newest is not None
    assert newest.camera_time_nano is not None
    assert not any("camera_time_nano" in event for event in events if event["camera_id"] == "mute")
    listed = command("frames", "latest", "-c", str(site.file), "--json").stdout.splitlines()
    assert {one["camera"]: one.get("camera_time_nano") for one in map(json.loads, listed)} == {
        "told": newest.camera_time_nano,
        "mute": None,
    }

    # Access units: each is under way for much less than a second, and they are 15 a second apart.
    units = stored_units(redis_server.client(), "told", vhost)
    known = [unit.entry for unit in units if unit.entry.camera_time_nano is not None]
    assert len(known) >= len(units) - 1 > 0
    assert all(abs(one.camera_time_nano - one.unix_nano - AHEAD * 1e9) < 1e9 for one in known)
    assert {frame.camera_time_nano for frame in frames} - {None} <= {one.camera_time_nano for one in known}
    assert all(unit.entry.camera_time_nano is None for unit in stored_units(redis_server.client(), "mute", vhost))


def site_entries(client: redis.Redis, vhost: str) -> int:
    """Entries of both cameras' journals of JPEGs."""
    return sum(client.xlen(f"engine:{vhost}:journal:frames:{name}") for name in ("told", "mute"))
