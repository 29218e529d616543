"""Access units as large as cameras make them, from their sockets to Redis, and one too large for the ring."""

from __future__ import annotations

import itertools
from pathlib import Path

from tests.servers.clips import make_clip, read_clip
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_video import Mount, RtspVideo
from tests.servers.wait import wait_until
from tests.system.site import Site
from tests.system.stored_units import places_of, runs_of, stored_units
from tests.system.video_pictures import padded


def test_units_of_4_mb_and_one_that_is_too_large(site: Site, redis_server: RedisServer, tmp_path: Path) -> None:
    """The rest of the GOP of the one that is too large is not stored. Another camera loses nothing."""
    small = read_clip(make_clip(tmp_path / "clip.mp4", seconds=3), 30)
    first, second, third = small.keyframes
    large = padded(padded(small, first, 4_000_000), second + 4, 4_300_000)
    left_out = third - (second + 4)
    client = redis_server.client()

    def stored(camera: str) -> int:
        return int(client.xlen(f"engine:default:journal:frames/{camera}"))

    with RtspVideo(tmp_path / "rtsp", {"/large": Mount(large), "/small": Mount(small)}) as cameras:
        site.write(
            cameras=[
                {"id": name, "url": cameras.url(f"/{name}"), "video": True, "decode": "none"}
                for name in ("large", "small")
            ],
            redis={"address": redis_server.address, "ttl_seconds": 600},
        )
        site.start()
        goal = len(small.units) + 20
        wait_until(lambda: stored("large") > goal and stored("small") > goal, 60, "more than a loop", log=site.log_text)
        dropped = {name: site.camera(name)["video"]["dropped"] for name in ("large", "small")}
        assert site.stop() == 0
    assert not any(dropped["small"].values())
    (run,) = runs_of(stored_units(client, "small"))
    assert all(
        after - before in (1, 1 - len(small.units)) for before, after in itertools.pairwise(places_of(run, small))
    )
    units = stored_units(client, "large")
    assert max(unit.entry.size for unit in units) == 4_000_000
    places = [place for run in runs_of(units) for place in places_of(run, large)]
    assert set(places) == set(range(len(large.units))) - set(range(second + 4, third))
    gaps = [after.entry.sequence - before.entry.sequence - 1 for before, after in itertools.pairwise(units)]
    assert {gap for gap in gaps if gap} == {left_out}
    lost = gaps.count(left_out)
    counted = {reason: count for reason, count in dropped["large"].items() if count}
    assert set(counted) == {"too_large", "broken_gop"}
    assert counted["too_large"] in (lost, lost + 1)
    assert counted["broken_gop"] in range(lost * (left_out - 1), (lost + 1) * (left_out - 1) + 1)
