"""Cameras that send H.264 and H.265, from their sockets to Redis: every access unit is there as it was sent."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import redis

from engine.client.store import FrameStore
from engine.wire import jpeg
from tests.servers.clips import CARS, PEOPLE, Stream, make_clip, read_clip
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_video import Mount, RtspVideo
from tests.servers.wait import wait_until
from tests.system.site import Site, stored_frames
from tests.system.stored_units import places_of, runs_of, stored_units

#: Frames a second of the clips: faster than they were filmed, so that tests are short.
FPS = 40


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stream]:
    """Real clips with B-frames and in Baseline (made ones where those are not there), and one in H.265."""
    directory = tmp_path_factory.mktemp("clips")
    people = PEOPLE if PEOPLE.exists() else make_clip(directory / "people.mp4", seconds=12, options=("-bf", "3"))
    cars = CARS if CARS.exists() else make_clip(directory / "cars.mp4", seconds=12)
    h265 = make_clip(directory / "h265.mp4", codec="h265", seconds=8, gop=20)
    return {
        "people": read_clip(people, FPS, 160),
        "cars": read_clip(cars, FPS, 160),
        "h265": read_clip(h265, FPS),
    }


@pytest.fixture
def cameras(clips: dict[str, Stream], tmp_path: Path) -> Iterator[RtspVideo]:
    with RtspVideo(tmp_path / "rtsp", {f"/{name}": Mount(stream) for name, stream in clips.items()}) as running:
        yield running


def write_site(site: Site, server: RedisServer, cameras: RtspVideo, **camera: object) -> None:
    site.write(
        cameras=[{"id": path.strip("/"), "url": cameras.url(path), "video": True, **camera} for path in cameras.mounts],
        redis={"address": server.address, "ttl_seconds": 600},
    )


def test_every_access_unit_is_stored_as_the_camera_sent_it(
    site: Site, redis_server: RedisServer, client: redis.Redis, cameras: RtspVideo, clips: dict[str, Stream]
) -> None:
    """Over more than one loop of each clip, without one missing; and a JPEG of each key frame beside them."""
    write_site(site, redis_server, cameras, decode="key")
    site.start()
    goal = {name: len(stream.units) + 20 for name, stream in clips.items()}
    wait_until(
        lambda: all(len(client.keys(f"engine:default:video:frames/{name}:*")) > goal[name] for name in clips),
        60,
        "each clip is stored once and a bit",
        log=site.log_text,
    )
    assert site.stop() == 0
    frames = stored_frames(client, "default", check_stamps=False)
    for name, stream in clips.items():
        units = stored_units(client, name)
        (run,) = runs_of(units)
        places = places_of(run, stream)
        assert all(after == (before + 1) % len(stream.units) for before, after in itertools.pairwise(places))
        assert [unit.entry.keyframe for unit in run] == [stream.units[place].keyframe for place in places]
        assert {unit.entry.encoding for unit in run} == {stream.codec}
        # A JPEG of each key frame has its time stamp.
        keys = [unit.entry.unix_nano for unit in run if unit.entry.keyframe]
        stamps = [key.unix_nano for key in frames.keys if key.camera == name]
        assert stamps == keys
    for raw in client.scan_iter(match="default:frames:*"):
        assert jpeg.inspect(memoryview(client.get(raw))).width


def test_presentation_times_are_those_of_the_clip(
    site: Site, redis_server: RedisServer, client: redis.Redis, cameras: RtspVideo, clips: dict[str, Stream]
) -> None:
    """The offsets put B-frames in the order in which they are shown, a frame apart. FFmpeg does not know the order of
    decoding from the first packet on, so this is seen from the second key frame on."""
    write_site(site, redis_server, cameras, decode="none")
    site.start()
    wait_until(lambda: len(client.keys("engine:default:video:frames/people:*")) > 80, 60, "units", log=site.log_text)
    assert site.stop() == 0
    units = stored_units(client, "people")
    second = [number for number, unit in enumerate(units) if unit.entry.keyframe][1]
    units = units[second:]
    places = places_of(units, clips["people"])
    shown = {
        place: unit.entry.unix_nano / 1e9 + unit.entry.offset_us / 1e6
        for place, unit in zip(places, units, strict=True)
    }
    first, last = min(shown), max(shown)
    stream = clips["people"].units
    for place in range(first, last + 1):
        apart = (stream[place].shown - stream[first].shown) - (shown[place] - shown[first])
        assert abs(apart) < 0.5, f"unit {place} is shown {apart:.3f} s too late"
    ordered = sorted(shown, key=lambda place: shown[place])
    assert ordered == sorted(shown, key=lambda place: stream[place].shown)
    assert not client.keys("default:frames:*"), "JPEGs were made, though decode is none"


def test_what_is_stored_decodes_after_a_kill_of_capture_and_of_the_writer(
    site: Site, redis_server: RedisServer, client: redis.Redis, cameras: RtspVideo, clips: dict[str, Stream]
) -> None:
    """A kill of the writer loses nothing. A capture that was killed begins again with a key frame."""
    write_site(site, redis_server, cameras, decode="key")
    site.start()

    def stored() -> int:
        return len(client.keys("engine:default:video:frames/cars:*"))

    wait_until(lambda: stored() > 40, 60, "units", log=site.log_text)
    site.kill("writer")
    before = stored()
    wait_until(lambda: stored() > before + 60, 60, "more units", log=site.log_text)
    (run,) = runs_of(stored_units(client, "cars"))
    site.signal(signal.SIGKILL, "capture", "cars")
    before = stored()
    wait_until(lambda: stored() > before + 60, 60, "units of the next process", log=site.log_text)
    assert site.stop() == 0
    units = stored_units(client, "cars")
    assert [unit.entry.sequence for unit in units] == sorted({unit.entry.sequence for unit in units})
    for run in runs_of(units):
        places_of(run, clips["cars"])


def test_a_change_of_resolution_is_followed(
    site: Site, redis_server: RedisServer, client: redis.Redis, tmp_path: Path
) -> None:
    """Each key frame carries its parameter sets, and its entry says its size."""
    small = read_clip(make_clip(tmp_path / "small.mp4", size=(320, 240), seconds=2), FPS)
    large = read_clip(make_clip(tmp_path / "large.mp4", size=(640, 480), seconds=2), FPS)
    stream = small.followed_by(large)
    with RtspVideo(tmp_path / "rtsp", {"/cam": Mount(stream)}) as cameras:
        write_site(site, redis_server, cameras, decode="all")
        site.start()
        wait_until(
            lambda: len(client.keys("engine:default:video:frames/cam:*")) > 2 * len(stream.units),
            60,
            "two loops",
            log=site.log_text,
        )
        assert site.stop() == 0
    units = stored_units(client, "cam")
    places = places_of(units, stream)
    for unit, place in zip(units, places, strict=True):
        if unit.entry.keyframe:
            assert (unit.entry.width, unit.entry.height) == ((320, 240) if place < len(small.units) else (640, 480))
    sizes = {
        (info.width, info.height)
        for raw in client.scan_iter(match="default:frames:*")
        for info in [jpeg.inspect(memoryview(client.get(raw)))]
    }
    assert sizes == {(320, 240), (640, 480)}


def test_a_stream_without_key_frames_is_active_and_waits(
    site: Site, redis_server: RedisServer, client: redis.Redis, clips: dict[str, Stream], tmp_path: Path
) -> None:
    """``status`` says so; what comes before the first key frame is not captured, and all is well from then on."""
    mount = Mount(clips["cars"], begin=1, keyless_seconds=6.0)
    with RtspVideo(tmp_path / "rtsp", {"/cars": mount}) as cameras:
        write_site(site, redis_server, cameras, decode="key")
        site.start()
        wait_until(
            lambda: site.camera("cars")["state"] == "active" and "key frame" in json_of(site),
            30,
            "the camera is active and waits for a key frame",
            log=site.log_text,
        )
        assert not client.keys("engine:default:video:*")
        wait_until(lambda: client.keys("engine:default:video:*"), 30, "units", log=site.log_text)
        wait_until(lambda: "key frame" not in json_of(site), 30, "it waits no more", log=site.log_text)
        assert not site.dropped()


def json_of(site: Site) -> str:
    return str(site.camera("cars"))


OPEN_GOPS = {
    "h264": ("-x264-params", "open-gop=1:keyint=11:min-keyint=11:scenecut=0:bframes=3:b-adapt=0"),
    "h265": ("-x265-params", "log-level=error:open-gop=1:keyint=11:min-keyint=11:scenecut=0:bframes=3:b-adapt=0"),
}


def test_open_gops_decode_after_a_reconnect(
    site: Site, redis_server: RedisServer, client: redis.Redis, tmp_path: Path
) -> None:
    """The first pictures of such a GOP refer to the one before it. A connection that begins with it never had that
    one, so they are not stored, and every stored unit decodes to a picture that the camera sent."""
    paths = {
        codec: make_clip(tmp_path / f"{codec}.mp4", codec=codec, seconds=6, gop=11, options=options)
        for codec, options in OPEN_GOPS.items()
    }
    streams = {codec: read_clip(path) for codec, path in paths.items()}
    mounts = {f"/{codec}": Mount(stream, begin=stream.keyframes[2]) for codec, stream in streams.items()}

    def stored(codec: str) -> int:
        return len(client.keys(f"engine:default:video:frames/{codec}:*"))

    with RtspVideo(tmp_path / "rtsp", mounts) as cameras:
        write_site(site, redis_server, cameras, decode="none")
        site.start()
        wait_until(lambda: all(stored(codec) > 30 for codec in streams), 60, "units", log=site.log_text)
        cameras.restart()
        before = {codec: stored(codec) for codec in streams}
        wait_until(
            lambda: all(stored(codec) > before[codec] + 30 for codec in streams), 60, "more units", log=site.log_text
        )
        assert site.stop() == 0
    with FrameStore(redis_server.url) as store:
        for codec, path in paths.items():
            sent = [picture[::4, ::4].astype(float) for picture in pictures_of(path)]
            pictures = store.pictures(codec)
            shown = [picture.image[::4, ::4].astype(float) for picture in pictures]
            assert pictures.skipped == 0
            assert len(shown) == stored(codec)
            worst = max(min(float(((one - other) ** 2).mean()) for other in sent) for one in shown)
            assert worst < 0.65, f"{codec}: a picture is none that the camera sent (mean square error {worst:.1f})"


def pictures_of(path: Path) -> list[np.ndarray]:
    """The pictures of a clip, BGR."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
