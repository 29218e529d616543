"""``decode = "auto"`` with an fps limit, by RTSP: key frames while they suffice, all pictures once they do not."""

from __future__ import annotations

import itertools
from pathlib import Path

from tests.servers.clips import make_clip, read_clip
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_video import Mount, RtspVideo
from tests.servers.wait import wait_until
from tests.system.site import Site


def test_auto_follows_the_interval_of_key_frames(site: Site, redis_server: RedisServer, tmp_path: Path) -> None:
    """Each half second a key frame, then each two and a half seconds: JPEGs come at the limit all the time."""
    often = read_clip(make_clip(tmp_path / "often.mp4", seconds=6, gop=15), 30)
    seldom = read_clip(make_clip(tmp_path / "seldom.mp4", seconds=10, gop=75), 30)
    client = redis_server.client()
    with RtspVideo(tmp_path / "rtsp", {"/cam": Mount(often.followed_by(seldom))}) as cameras:
        site.write(
            cameras=[{"id": "cam", "url": cameras.url("/cam"), "video": True, "fps": 2.0}],
            redis={"address": redis_server.address, "ttl_seconds": 600},
        )
        site.start()
        for decode in ("key", "all"):
            wait_until(lambda decode=decode: site.camera("cam")["decode"] == decode, 30, decode, log=site.log_text)
        stored = client.xlen("engine:default:journal:frames:cam")
        wait_until(
            lambda: client.xlen("engine:default:journal:frames:cam") > stored + 2, 30, "JPEGs", log=site.log_text
        )
        assert site.stop() == 0
    stamps = [int(entry.split(b"-")[0]) / 1e9 for entry, _ in client.xrange("engine:default:journal:frames:cam")]
    gaps = [after - before for before, after in itertools.pairwise(stamps)]
    # One key frame longer than the limit passes until the change is seen.
    assert sorted(gaps)[-2] < 1
