"""What a site needs of Redis's memory: by the formula, and by a server that is filled."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Config, from_document
from engine.config.memory import Seen, allocated, frame_memory, redis_memory
from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_fields, entry_id
from tests.servers.redis_server import RedisServer

#: Factor within which the estimate is of what a server really takes.
WITHIN = 1.15


def site(cameras: list[dict[str, Any]], **redis_section: Any) -> Config:
    return from_document({"cameras": cameras, "redis": redis_section}, {})


@pytest.mark.parametrize(
    ("size", "takes"),
    [
        (1, 16),
        (16, 16),
        (17, 32),
        (128, 128),
        (129, 160),
        (4096, 4096),
        (4097, 5120),
        (50_012, 57_344),
        (61_452, 65_536),
    ],
)
def test_sizes_that_jemalloc_gives_out(size, takes):
    assert allocated(size) == takes


@given(st.integers(1, 2**30))
def test_what_is_given_out_is_enough_and_wastes_a_fifth_at_most(size):
    takes = allocated(size)
    assert size <= takes
    assert takes <= max(size * 1.25, size + 16)
    assert allocated(takes) == takes
    assert allocated(size + 1) >= takes


def test_the_need_of_a_site():
    config = site(
        [
            {"id": "a", "url": "test://?fps=10&kb=60"},
            {"id": "b", "url": "test://?fps=30&kb=60", "fps": 5},
            {"id": "seen", "url": "rtsp://192.0.2.1/x"},
            {"id": "size", "url": "rtsp://192.0.2.1/x", "width": 1280, "height": 720, "fps": 2},
            {"id": "none", "url": "rtsp://192.0.2.1/x"},
        ],
        ttl_seconds=100,
    )
    need = redis_memory(config, {"seen": Seen(8.0, 50_000)})
    assert need.frames_per_second == 10 + 5 + 8 + 2 + 25
    assert need.frames == 5000
    assert need.assumed == ("size", "none")
    parts = [1500 * (65_536 + 224), 800 * (57_344 + 224), 2700 * (393_216 + 224)]
    assert need.bytes == pytest.approx(sum(parts), rel=0.001)
    assert redis_memory(config).assumed == ("seen", "size", "none")


def test_video_is_needed_beside_frames_for_a_time_of_its_own():
    cameras = [
        {"id": "seen", "url": "rtsp://192.0.2.1/x", "video": True, "decode": "key"},
        {"id": "guess", "url": "rtsp://192.0.2.1/x", "video": True, "decode": "none"},
        {"id": "keys", "url": "rtsp://192.0.2.1/x", "video": True, "decode": "key"},
        {"id": "test", "url": "test://?fps=10&kb=60"},
    ]
    config = from_document({"cameras": cameras, "redis": {"ttl_seconds": 100}, "video": {"ttl_seconds": 1000}}, {})
    need = redis_memory(config, {"seen": Seen(0.5, 50_000, 15.0, 20_000)})
    assert (need.packets_per_second, need.packets) == (15 + 25 + 25, 65_000)
    assert (need.frames_per_second, need.frames) == (0.5 + 0 + 0.5 + 10, 1100)
    assert need.assumed == ("guess", "keys")
    assert need.video_bytes == pytest.approx(65_000 * (20_480 + 224), rel=0.001)
    without = site([{**camera, "video": False} for camera in (cameras[0], *cameras[2:])], ttl_seconds=100)
    assert need.bytes - need.video_bytes == redis_memory(without, {"seen": Seen(0.5, 50_000)}).bytes


@given(st.integers(1, 86_400), st.floats(0.1, 100), st.integers(100, 10**7))
def test_the_need_grows_with_lifetime_rate_and_size(ttl, fps, size):
    def need(ttl: int, fps: float, size: int) -> int:
        return redis_memory(site([{"id": "a", "url": "rtsp://x/y"}], ttl_seconds=ttl), {"a": Seen(fps, size)}).bytes

    assert need(ttl + 1, fps, size) > need(ttl, fps, size)
    assert need(ttl, fps * 2, size) > need(ttl, fps, size)
    assert need(ttl, fps, size * 2) > need(ttl, fps, size) >= fps * ttl * size * 0.99


@pytest.fixture(scope="module", params=["redis-server", "valkey"])
def server(request) -> Iterator[redis.Redis]:
    with (
        tempfile.TemporaryDirectory(prefix="ev-") as directory,
        RedisServer(Path(directory) / "server", binary=request.param) as made,
    ):
        yield made.client()


@pytest.mark.parametrize("video", [False, True], ids=["frames", "video"])
@pytest.mark.parametrize(
    ("size", "count"), [(2000, 8000), (20_000, 4000), (50_000, 3000), (61_440, 3000), (245_678, 600)]
)
def test_the_estimate_is_what_a_server_takes(server: redis.Redis, size: int, count: int, video: bool):
    # Valkey frees in another thread unless it is told not to.
    server.execute_command("FLUSHALL", "SYNC")
    before = int(server.info("memory")["used_memory"])
    now = time.time_ns()
    payload = bytes(size)
    names = "client-a", "frames", "entrance"
    journal = (keys.video_journal_key if video else keys.journal_key)(*names)
    prefix = (keys.video_key_prefix if video else keys.frame_key_prefix)(*names)
    encoding = "h264" if video else "jpeg"
    for number in range(1, count + 1):
        nano = now + number * 33_000_000
        key = prefix + keys.frame_key_suffix(nano, number)
        entry = entry_fields(JournalEntry(nano, number, size, 1280, 720, encoding, number % 30 == 1, number, number))
        with server.pipeline(transaction=True) as pipeline:
            pipeline.set(key, payload, px=600_000)
            pipeline.execute_command("XADD", journal, entry_id(nano, number), *entry)
            pipeline.execute()
    takes = (int(server.info("memory")["used_memory"]) - before) / count
    assert takes / WITHIN < frame_memory(size, len(key)) < takes * WITHIN
    if size == 2000:
        # Where frames are small, what is added to them counts.
        assert frame_memory(size, len(key)) == pytest.approx(takes, rel=0.05)
