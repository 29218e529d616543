"""The site files that come with the engine: they load, and the sizing in their comments is what they come to."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from engine.cli.demo_site import CLIP, demo_site, read_profile
from engine.config import Config, load
from engine.errors import ConfigError
from engine.shm.site import shared_memory_need
from engine.wire.resp import FrameFraming, VideoFraming
from engine.wire.ring_layout import area_bytes, record_bytes
from engine.wire.urls import parse_test_url
from tests.servers.redis_server import RedisServer

ROOT = Path(__file__).parent.parent
PROFILES = sorted((ROOT / "profiles").glob("*.toml"))
SITES = [*PROFILES, ROOT / "docker" / "site.toml"]
#: What the site of docker/ gets from its environment.
SECRETS = {"WEB_TOKEN": "a-token-of-24-characters"}
#: Share by which a number of two or three digits may stand beside what it was rounded from.
ROUNDING = 0.03
#: RFC 5737: addresses that are nobody's.
DOCUMENTATION = ipaddress.ip_network("192.0.2.0/24")
#: Frames that a server's memory is measured with.
MEASURED_FRAMES = 400

Measure = Callable[..., float]

any_site = pytest.mark.parametrize("path", SITES, ids=lambda path: f"{path.parent.name}/{path.stem}")
any_profile = pytest.mark.parametrize("name", [path.stem for path in PROFILES])


class Sizing(NamedTuple):
    """The numbers of a "Sizing:" paragraph, or of a "Video:" paragraph, where packets are meant. A frame's KB are 1024
    bytes, as in test URLs; the ring's and shared memory's MB are MiB, as in ring.capacity_mb; the others are
    decimal."""

    cameras: float
    fps: float
    frame_kb: float
    mb_per_second: float
    ttl_seconds: float
    frames: float
    redis_gb: float
    rings: float
    ring_mib: float
    shared_mib: float
    outage_seconds: float


def comment_of(path: Path) -> str:
    """A file's comments as one line."""
    return " ".join(line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#"))


def paragraph(path: Path, title: str, rate: str, unit: str) -> Sizing | None:
    number = r"([\d,.]*\d)"
    found = re.search(
        rf"{title}: {number} cameras x {number} {rate} x {number} KB = {number} MB/s(?: \(.*?\))?\. "
        rf"Redis keeps {number} s of it: {number} {unit}, about {number} GB with the allocator's overhead\. "
        rf"Shared memory: {number} rings of {number} Mi?B = {number} Mi?B, {number} s of {unit} while Redis is away\.",
        comment_of(path),
    )
    return Sizing(*(float(text.replace(",", "")) for text in found.groups())) if found else None


def sizing_of(path: Path) -> Sizing:
    found = paragraph(path, "Sizing", "fps", "frames")
    assert found, f"{path} lacks a sizing in the form of the others"
    return found


def video_of(path: Path) -> Sizing | None:
    """The sizing of a site's video; None if it has none."""
    return paragraph(path, "Video", "packets a second", "packets")


def frame_sizes(path: Path) -> list[int]:
    """Bytes of frames as a file's sizing reckons with them: all alike, or evenly spread where it says from what to
    what."""
    average = sizing_of(path).frame_kb
    spread = re.search(r"frames of (\d+) to (\d+) KB, (\d+) on average", comment_of(path))
    low, high = (int(spread[1]), int(spread[2])) if spread else (average, average)
    assert (low + high) / 2 == average
    return evenly(low, high)


def packet_sizes(path: Path, average_kb: float) -> list[int]:
    """The same of packets."""
    spread = re.search(
        r"packets of (\d+) to (\d+) KB, of which each (\d+)th is a key frame of (\d+) KB", comment_of(path)
    )
    assert spread, f"{path} does not say how large packets are"
    low, high, interval, key = map(int, spread.groups())
    sizes = [key * 1024 if n % interval == 0 else size for n, size in enumerate(evenly(low, high))]
    assert sum(sizes) / len(sizes) / 1024 == pytest.approx(average_kb, rel=0.01)
    return sizes


def evenly(low_kb: float, high_kb: float) -> list[int]:
    """Bytes from the one to the other, in a mixed order that is always the same."""
    step = (high_kb - low_kb) * 1024 / (MEASURED_FRAMES - 1)
    sizes = [round(low_kb * 1024 + step * number) for number in range(MEASURED_FRAMES)]
    random.Random(5).shuffle(sizes)
    return sizes


@pytest.fixture
def measure(tmp_path: Path) -> Measure:
    """Bytes that a frame or a packet takes in the kind of server that a site names, its key and journal entry
    included."""

    def measured(config: Config, sizes: list[int], kind: type[FrameFraming] = FrameFraming) -> float:
        camera = config.cameras[-1].id
        framing = kind(config.vhost, config.prefix, camera, config.redis.ttl_seconds * 1000)
        with RedisServer(tmp_path, binary="valkey" if config.embedded else "redis-server", unix=True) as server:
            client = server.client()
            memory = client.info("memory")
            if not config.embedded and "jemalloc" not in memory["mem_allocator"]:
                pytest.skip(f"this redis-server uses {memory['mem_allocator']}; the figures are jemalloc's")
            connection = client.connection_pool.get_connection()
            for number, size in enumerate(sizes, 1):
                nano = 1_731_024_000_000_000_000 + number
                frame = framing.before(nano, number, size) + bytes(size)
                connection.send_packed_command([frame + framing.after(nano, number, size, 1280, 720, 0, 1)])
                for _ in range(framing.replies_per_frame):
                    connection.read_response()
            used = client.info("memory")["used_memory"] - memory["used_memory"]
            connection.disconnect()
        return used / len(sizes)

    return measured


@pytest.fixture(autouse=True)
def no_servers_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("REDIS_ADDRESS", "REDIS_USERNAME", "REDIS_PASSWORD", "AMQP_URL"):
        monkeypatch.delenv(variable, raising=False)


def test_the_profiles_that_the_documents_name_exist() -> None:
    assert {"bench", "surveillance-20", "dense-100"} <= {path.stem for path in PROFILES}


@any_site
def test_loads_without_warning(path: Path) -> None:
    config = load(path, SECRETS)
    # In its container it listens in plain text, and the composition publishes that on the machine itself only.
    of_web = f"leave web.listen {config.web.listen} in plain text"
    assert [of_web in warning for warning in config.warnings] == ([] if config.web.address.private else [True])
    assert len({camera.id for camera in config.cameras}) == len(config.cameras)
    assert len({camera.url for camera in config.cameras if camera.kind != "test"}) in (0, len(config.cameras))


@any_site
def test_names_nobodys_camera_and_no_secret(path: Path) -> None:
    config = load(path, SECRETS)
    assert not config.redis.password
    assert not config.amqp.amqp_url
    for camera in config.cameras:
        parts = urlsplit(camera.url)
        assert parts.username is None
        assert parts.password is None
        assert camera.kind == "test" or ipaddress.ip_address(parts.hostname or "") in DOCUMENTATION


@any_site
def test_sizing_follows_from_the_site(path: Path) -> None:
    config, sizing, video = load(path, SECRETS), sizing_of(path), video_of(path)
    assert (video is not None) == any(camera.video for camera in config.cameras)
    for camera in config.cameras:
        # What a real camera sends is not in the file, but for a rate that it is held to.
        assert camera.fps in (None, sizing.fps)
        if camera.kind == "test":
            pattern = parse_test_url(camera.url)
            assert (pattern.fps, pattern.kb) == (sizing.fps, sizing.frame_kb)
    shared = 0.0
    for part in filter(None, (sizing, video)):
        capacity = config.ring_capacity(video=part is video)
        packet_bytes = part.frame_kb * 1024
        assert (part.cameras, part.rings) == (len(config.cameras), len(config.cameras))
        assert (part.ttl_seconds, part.ring_mib * 2**20) == (config.ttl_seconds(video=part is video), capacity)
        assert part.mb_per_second == pytest.approx(part.cameras * part.fps * packet_bytes / 1e6, rel=ROUNDING)
        assert part.frames == part.cameras * part.fps * part.ttl_seconds
        held = area_bytes(capacity) // record_bytes(int(packet_bytes))
        assert part.outage_seconds == pytest.approx(held / part.fps, rel=ROUNDING)
        shared += part.shared_mib
    assert shared == pytest.approx(shared_memory_need(config) / 2**20, rel=ROUNDING)


@any_site
def test_sizing_of_redis_is_what_a_server_takes(path: Path, measure: Measure) -> None:
    sizing, video = sizing_of(path), video_of(path)
    frame_bytes = measure(load(path, SECRETS), frame_sizes(path))
    assert sizing.redis_gb == pytest.approx(sizing.frames * frame_bytes / 1e9, rel=ROUNDING)
    for stated in re.findall(r"it took ([\d,]+)|([\d,]+) bytes a frame of|average, took ([\d,]+)", comment_of(path)):
        assert float("".join(stated).replace(",", "")) == pytest.approx(frame_bytes, rel=0.01)
    if video:
        packet_bytes = measure(load(path, SECRETS), packet_sizes(path, video.frame_kb), VideoFraming)
        assert video.redis_gb == pytest.approx(video.frames * packet_bytes / 1e9, rel=ROUNDING)
        (stated,) = re.findall(r"KB, took ([\d,]+) bytes each", comment_of(path))
        assert float(stated.replace(",", "")) == pytest.approx(packet_bytes, rel=0.01)


@any_site
def test_check_accepts_it_and_needs_what_the_sizing_says(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "engine", "check", "-c", path, "--json"],
        cwd=ROOT,
        env=os.environ | SECRETS,
        capture_output=True,
        check=False,
    )
    memory = json.loads(done.stdout)["shared_memory"]
    stated = sum(part.shared_mib for part in (sizing_of(path), video_of(path)) if part)
    assert memory["need_bytes"] / 2**20 == pytest.approx(stated, rel=ROUNDING)
    # A machine that is too small for a profile is told so; the file is good all the same.
    assert done.returncode == (0 if memory["need_bytes"] <= memory["have_bytes"] else 2), done.stderr.decode()


@any_profile
def test_demo_runs_its_sizing_with_test_cameras(name: str, tmp_path: Path) -> None:
    document = read_profile(name)
    profile = load(ROOT / "profiles" / f"{name}.toml", {})
    config = demo_site(document, tmp_path, None, None, None, None, None)
    assert [camera.id for camera in config.cameras] == [camera.id for camera in profile.cameras]
    assert config.embedded
    assert (config.writer, config.metadata, config.video, config.redis.ttl_seconds) == (
        profile.writer,
        profile.metadata,
        profile.video,
        profile.redis.ttl_seconds,
    )
    assert config.ring.capacity >= profile.ring.capacity
    if video_of(ROOT / "profiles" / f"{name}.toml"):
        assert {(camera.url, camera.video, camera.decode) for camera in config.cameras} == {(str(CLIP), True, "key")}
    else:
        assert {camera.kind for camera in config.cameras} == {"test"}
        rates = {parse_test_url(camera.url).fps for camera in config.cameras}
        assert rates == {sizing_of(ROOT / "profiles" / f"{name}.toml").fps}


def test_a_demo_of_video_takes_its_clip_as_it_is(tmp_path: Path) -> None:
    made = demo_site({}, tmp_path, 2, None, None, None, None, video=True)
    assert {(camera.url, camera.video, camera.decode) for camera in made.cameras} == {(str(CLIP), True, "key")}
    for size, kb in (("640x480", None), (None, 30)):
        with pytest.raises(ConfigError, match="for test frames"):
            demo_site({}, tmp_path, 2, None, size, kb, None, video=True)
    own = demo_site({}, tmp_path, 1, None, None, None, "rtsp://192.0.2.1/", video=True).cameras[0]
    assert (own.url, own.video) == ("rtsp://192.0.2.1/", True)
