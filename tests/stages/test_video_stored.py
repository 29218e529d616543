"""Cameras of H.264 whose video a site stores: what Redis has afterwards is what the camera sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.wait import wait_until
from tests.stages.video_clips import packets, picture_units, stored_units
from tests.system.clips import car_clip, person_clip
from tests.system.site import Site


@pytest.mark.parametrize("clip", [car_clip, person_clip])
@pytest.mark.parametrize("way", ["file", "rtsp"])
def test_redis_has_the_access_units_of_the_clip_bit_by_bit(
    site: Site, redis_server: RedisServer, short_path: Path, clip, way
) -> None:
    wanted = [picture_units(packet) for packet in packets(clip())]
    with RtspCamera(short_path / "camera", clip=clip()) as server:
        url = str(clip()) if way == "file" else server.url
        site.write(
            cameras=[{"id": "cam1", "url": url, "video": True, "decode": "key"}],
            redis={"address": redis_server.address, "ttl_seconds": 600},
        )
        site.start()
        client = redis_server.client()
        wait_until(lambda: client.exists("engine:default:journal:frames/cam1"), 30, "video is stored")
        wait_until(lambda: client.xlen("engine:default:journal:frames/cam1") >= 30, 30, "some of it")
        assert site.stop() == 0
    units = stored_units(client, "default", "cam1")
    assert [picture_units(data) for _, data in units] == wanted[: len(units)]
    assert [entry.keyframe for entry, _ in units][:1] == [True]
    for entry, data in units:
        assert (entry.width, entry.height, entry.encoding, entry.size) == (768, 432, "h264", len(data))
        assert {unit[0] & 31 for unit in map(bytes, picture_units(data))} & ({5} if entry.keyframe else {1})
