"""Pictures of a camera's video, from its socket to ``FrameStore``: what FFmpeg makes of the clip that the camera sent,
after each kind of loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from engine.client.store import FrameStore
from tests.servers.clips import Stream, Unit, make_clip, read_clip
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_video import Mount, RtspVideo
from tests.servers.wait import wait_until
from tests.stages import field_pictures
from tests.system.site import Site, command
from tests.system.stored_units import places_of, stored_units
from tests.system.video_pictures import check_pictures, padded, pictures_of

FPS = 30


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


def write_site(site: Site, server: RedisServer, cameras: RtspVideo, **sections: dict[str, Any]) -> None:
    site.write(
        cameras=[
            {"id": path.strip("/"), "url": cameras.url(path), "video": True, "decode": "none"}
            for path in cameras.mounts
        ],
        redis={"address": server.address, "ttl_seconds": 600},
        **sections,
    )


def stored(client: redis.Redis, camera: str) -> int:
    return int(client.xlen(f"engine:default:journal:frames/{camera}"))


def test_pictures_are_the_cameras_after_a_kill_a_drop_and_a_change_of_resolution(
    site: Site, redis_server: RedisServer, client: redis.Redis, tmp_path: Path
) -> None:
    """At every moment that is stored. A unit of the first clip is larger than the ring takes."""
    paths = [
        make_clip(tmp_path / f"{width}.mp4", size=(width, height), seconds=3, options=("-bf", "2"))
        for width, height in ((320, 240), (480, 272))
    ]
    small, large = (read_clip(path, FPS) for path in paths)
    stream = padded(small, 20, 700_000).followed_by(large)
    with RtspVideo(tmp_path / "rtsp", {"/cam": Mount(stream)}) as cameras:
        write_site(site, redis_server, cameras, video={"capacity_mb": 1})
        site.start()
        wait_until(lambda: stored(client, "cam") > 30, 60, "units", log=site.log_text)
        site.kill("capture", "cam")
        before = stored(client, "cam")
        wait_until(lambda: stored(client, "cam") > before + 100, 60, "units of both clips", log=site.log_text)
        assert site.stop() == 0
    with FrameStore(redis_server.url) as store:
        assert check_pictures(store, client, "cam", stream, pictures_of(*paths)) == stored(client, "cam")
    assert {(unit.entry.width, unit.entry.height) for unit in stored_units(client, "cam")} >= {(320, 240), (480, 272)}
    sequences = [unit.entry.sequence for unit in stored_units(client, "cam")]
    assert len(sequences) < sequences[-1], "nothing was dropped"


def test_interlaced_pictures(site: Site, redis_server: RedisServer, client: redis.Redis, tmp_path: Path) -> None:
    """Both fields in one unit, as x264 makes them: pictures, tail and film."""
    path = make_clip(tmp_path / "clip.mp4", seconds=3, options=("-bf", "2", "-x264-params", "interlaced=1"))
    stream = read_clip(path, FPS)
    with RtspVideo(tmp_path / "rtsp", {"/cam": Mount(stream)}) as cameras:
        write_site(site, redis_server, cameras)
        site.start()
        wait_until(lambda: stored(client, "cam") > 2 * len(stream.units), 60, "units", log=site.log_text)
        assert site.stop() == 0
    with FrameStore(redis_server.url) as store:
        count = check_pictures(store, client, "cam", stream, pictures_of(path))
        begin = stored_units(client, "cam")[0].entry.unix_nano
        with store.tail_pictures("cam", since=begin) as tail:
            # The tail holds back what may be reordered.
            shown = [next(tail).unix_nano for _ in range(count - 4)]
        assert shown == [picture.unix_nano for picture in store.pictures("cam")][: count - 4]
    check_film(redis_server, tmp_path, count)


def test_pictures_of_two_field_units(
    site: Site, redis_server: RedisServer, client: redis.Redis, tmp_path: Path
) -> None:
    """Each field is a unit of its own; two of them are one picture."""
    units, values = [], (60, 120, 180)
    for number, fields in enumerate(field_pictures.pictures(30, 10, values)):
        due = number / FPS
        units += [
            Unit(tuple(nals), due, due, keyframe=not place and number % 10 == 0) for place, nals in enumerate(fields)
        ]
    stream = Stream("h264", field_pictures.sets(), tuple(units), 30 / FPS)
    with RtspVideo(tmp_path / "rtsp", {"/cam": Mount(stream)}) as cameras:
        write_site(site, redis_server, cameras)
        site.start()
        wait_until(lambda: stored(client, "cam") > 2 * len(units), 60, "units", log=site.log_text)
        assert site.stop() == 0
    found = stored_units(client, "cam")
    places = places_of(found, stream)
    with FrameStore(redis_server.url) as store:
        pictures = list(store.pictures("cam"))
        assert len(pictures) == (len(found) + 1) // 2
        by_sequence = {unit.entry.sequence: place for unit, place in zip(found, places, strict=True)}
        for picture in pictures:
            place = by_sequence[picture.entry.sequence]
            # Luma in limited range, of the GOP that the picture belongs to.
            wanted = (values[place // 20 % 3] - 16) * 255 / 219
            assert abs(float(picture.image.mean()) - wanted) < 2, picture
            # Both fields are there a frame's time later.
            at = store.picture("cam", picture.unix_nano + 10**9 // FPS)
            assert at is not None
            assert at.entry.sequence - picture.entry.sequence in (0, 1, 2)
            wanted = (values[by_sequence[at.entry.sequence] // 20 % 3] - 16) * 255 / 219
            assert abs(float(at.image.mean()) - wanted) < 2, at
        with store.tail_pictures("cam", since=found[0].entry.unix_nano) as tail:
            shown = [next(tail).unix_nano for _ in range(len(pictures) - 3)]
        assert shown == [picture.unix_nano for picture in pictures][: len(shown)]
    check_film(redis_server, tmp_path, len(pictures))


def check_film(server: RedisServer, directory: Path, count: int) -> None:
    """An export has these pictures."""
    film = directory / "film.mp4"
    done = command("frames", "export", "cam", "--video", "-o", str(film), "--redis", server.url, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["skipped"] == 0
    assert len(pictures_of(film)) == count
