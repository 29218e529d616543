"""What a site file may say of video, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from engine.config import Config, from_document
from engine.errors import ConfigError
from engine.shm.site import shared_memory_need
from engine.wire import keys
from tests.wire.globs import matches


def site(cameras: list[dict[str, Any]], **sections: dict[str, Any]) -> Config:
    return from_document({"cameras": cameras, **sections}, {})


def camera(**values: Any) -> dict[str, Any]:
    return {"id": "cam1", "url": "rtsp://192.0.2.1/", **values}


def refused(cameras: list[dict[str, Any]], **sections: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        site(cameras, **sections)
    return str(caught.value)


def test_nothing_is_stored_as_video_unless_a_site_says_so():
    made = site([camera()])
    assert (made.cameras[0].video, made.cameras[0].decode) == (False, "auto")
    assert made.rings == (("cam1", False),)
    assert not made.publishes_video


def test_defaults_hold_for_video_too():
    made = site([camera(), camera(id="cam2", video=False)], defaults={"video": True, "decode": "key"})
    assert [(one.video, one.decode) for one in made.cameras] == [(True, "key"), (False, "key")]
    assert made.rings == (("cam1", False), ("cam2", False), ("cam1", True))


@pytest.mark.parametrize(("seconds", "expected"), [(None, 300), (1, 1), (3600, 3600)])
def test_video_is_kept_as_long_as_frames_unless_a_site_says_how_long(seconds, expected):
    made = site([camera(video=True)], video={"ttl_seconds": seconds} if seconds else {})
    assert (made.ttl_seconds(video=True), made.ttl_seconds(video=False)) == (expected, 300)


@pytest.mark.parametrize(
    "values",
    [
        *({"ttl_seconds": value} for value in (0, -1, 31_536_001, 1.5, "1h")),
        *({"capacity_mb": value} for value in (0, 16_385, "8")),
        {"codec": "h264"},
    ],
)
def test_a_section_of_video_out_of_its_bounds_is_refused(values):
    assert f"video.{next(iter(values))}" in refused([camera(video=True)], video=values)


@pytest.mark.parametrize(
    "values", [{"decode": "keys"}, {"decode": ""}, {"decode": True}, {"video": "yes"}, {"video": 1}]
)
def test_a_camera_s_keys_of_video_take_nothing_else(values):
    assert next(iter(values)) in refused([camera(**values)])


def test_a_camera_of_which_nothing_would_be_stored_is_refused_with_the_way_out():
    assert "set video = true" in refused([camera(decode="none")])
    site([camera(decode="none", video=True)])


@pytest.mark.parametrize("url", ["test://", "/dev/video0"])
def test_video_of_a_source_that_sends_none_is_refused(url):
    assert "H.264" in refused([camera(url=url, video=True)])


@pytest.mark.parametrize("word", ["journal", "cursor", "cameras", "lease", "rebuild", "video"])
def test_names_that_are_words_of_the_engine_s_keys_are_refused(word):
    assert "word of the engine" in refused([camera(id=word)])
    assert "word of the engine" in refused([camera()], redis={"prefix": word})


def test_names_whose_pattern_would_meet_another_camera_s_video_are_refused():
    stamp = "1731024000123456789"
    unit = keys.build_video_key(keys.FrameKey("v", "a", "b", int(stamp), 1))
    assert matches(f"*:a/b:{stamp}:*", unit)
    assert "time stamp" in refused([camera(id=stamp)], redis={"prefix": "a/b"})
    site([camera(id=stamp)])
    site([camera()], redis={"prefix": "a/b"})


def test_announcing_gops_wants_a_broker():
    assert not site([camera(video=True)], metadata={"video": "gop"}).publishes_video
    broker = {"amqp_url": "amqp://127.0.0.1/"}
    made = site([camera(video=True)], metadata={"video": "gop"}, amqp=broker)
    assert made.publishes_video
    assert made.metadata.video_routing_key == "camera.metadata.event.video"
    assert not site([camera(video=True)], amqp=broker).publishes_video
    assert "metadata.video" in refused([camera(video=True)], metadata={"video": "all"})


def test_a_routing_key_that_has_no_room_for_the_ending_of_video_is_refused():
    assert "metadata.routing_key" in refused([camera()], metadata={"routing_key": "x" * 250})


def test_shared_memory_holds_a_ring_of_video_for_each_camera_that_has_one():
    sections: dict[str, dict[str, Any]] = {"ring": {"capacity_mb": 2}, "video": {"capacity_mb": 5}}
    without = shared_memory_need(site([camera(), camera(id="cam2")], **sections))
    one = shared_memory_need(site([camera(video=True), camera(id="cam2")], **sections))
    both = shared_memory_need(site([camera(video=True), camera(id="cam2", video=True)], **sections))
    assert one - without == both - one
    assert 5 * 2**20 < one - without < 5 * 2**20 + 16_384
