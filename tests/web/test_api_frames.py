"""Frames over HTTP: the newest, by time and by key, scaled, in lists; cameras' names; what is refused."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time
from email.utils import formatdate
from itertools import chain
from urllib.parse import quote

import pytest

from engine.client.picture import decode
from engine.wire import jpeg
from engine.wire.keys import parse_frame_key
from engine.wire.rfc3339 import NANO, parse_rfc3339
from engine.wire.test_mark import find_mark
from tests.servers.wait import wait_until
from tests.web.client import Answer
from tests.web.conftest import FEW, HOSTILE, WebSite


def check_frame(answer: Answer) -> int:
    """The headers say what the picture's own mark says; returns its time stamp."""
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "image/jpeg"
    mark, headers = find_mark(answer.body), answer.headers
    nano = int(headers["x-frame-timestamp-nano"])
    assert (nano, int(headers["x-frame-sequence"])) == (mark.unix_nano, mark.frame)
    assert parse_rfc3339(headers["x-frame-timestamp"]) == nano
    assert headers["last-modified"] == formatdate(nano // NANO, usegmt=True)
    assert headers["content-length"] == str(len(answer.body))
    return nano


def test_latest_is_the_newest_frame(web_site: WebSite):
    first = check_frame(web_site.get("cameras/cam1/latest.jpg"))
    key = parse_frame_key(web_site.get("cameras/cam1/latest.jpg").headers["x-frame-key"])
    assert (key.camera, key.unix_nano >= first) == ("cam1", True)
    wait_until(lambda: check_frame(web_site.get("cameras/cam1/latest.jpg")) > first, 10, "a newer frame")


def test_an_answer_is_never_older_than_the_newest_frame_when_it_was_asked(web_site: WebSite):
    """Though requests share looks at Redis, and payloads are kept."""

    def look(number: int) -> None:
        camera = f"cam{number % 2 + 1}"
        with web_site.redis.client() as redis:
            for _ in range(40):
                ((newest, _),) = redis.xrevrange(f"engine:default:journal:frames:{camera}", count=1)
                nano = check_frame(web_site.get(f"cameras/{camera}/latest.jpg"))
                assert nano >= int(newest.partition(b"-")[0])

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(look, range(8)))


def test_a_client_that_has_the_picture_is_told_so(web_site: WebSite):
    whole = web_site.get("cameras/few/latest.jpg")
    tag = whole.headers["etag"]
    for tags in (tag, f'"other", W/{tag}', "*"):
        again = web_site.get("cameras/few/latest.jpg", If_None_Match=tags)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert again.headers["x-frame-key"] == whole.headers["x-frame-key"]
    for path in ("cameras/few/latest.jpg?width=100", "cameras/cam1/latest.jpg"):
        assert web_site.get(path, If_None_Match=tag).status == 200
    # A key alone is no tag of ours, however new the picture is.
    newest = web_site.get("cameras/cam2/latest.jpg").headers["x-frame-key"]
    for other in ("other", whole.headers["x-frame-key"], newest):
        assert web_site.get("cameras/few/latest.jpg", If_None_Match=f'"{other}"').body == whole.body
        assert web_site.get("cameras/cam2/latest.jpg", If_None_Match=f'"{other}"').status == 200


def test_a_deleted_frame_is_not_shown_though_its_payload_was_kept(web_site: WebSite):
    newest = web_site.get("cameras/x%3Ay*/latest.jpg")
    with web_site.redis.client() as redis:
        redis.delete(newest.headers["x-frame-key"])
        nano = check_frame(web_site.get("cameras/x%3Ay*/latest.jpg", If_None_Match=newest.headers["etag"]))
    assert nano != int(newest.headers["x-frame-timestamp-nano"])


def test_head_says_what_get_would(web_site: WebSite):
    get, head = (web_site.get("cameras/few/latest.jpg", method=method) for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (200, b"")
    assert {name: value for name, value in head.headers.items() if name != "date"} == {
        name: value for name, value in get.headers.items() if name != "date"
    }


def test_max_age(web_site: WebSite):
    assert web_site.get("cameras/cam1/latest.jpg?max_age=1h").status == 200
    old = web_site.get("cameras/few/latest.jpg?max_age=1ms")
    assert old.status == 404
    assert old.detail.startswith("the newest frame of few is ")
    assert old.detail.endswith(" s old, older than max_age 1ms")


@pytest.mark.parametrize("width", [16, 100, 319])
def test_width_scales_down_and_keeps_the_aspect(web_site: WebSite, width: int):
    scaled = web_site.get(f"cameras/few/latest.jpg?width={width}")
    assert scaled.status == 200
    assert jpeg.describe(scaled.body)[:2] == (width, round(width * 240 / 320))
    whole = decode(web_site.get("cameras/few/latest.jpg").body)
    assert abs(float(decode(scaled.body).mean()) - float(whole.mean())) < 3, "it is the same picture"
    assert scaled.headers["etag"] != web_site.get("cameras/few/latest.jpg").headers["etag"]


@pytest.mark.parametrize("width", [320, 1920])
def test_a_picture_is_never_scaled_up(web_site: WebSite, width: int):
    whole = web_site.get("cameras/few/latest.jpg")
    assert web_site.get(f"cameras/few/latest.jpg?width={width}").body == whole.body


def test_at_gives_the_frame_of_that_time(web_site: WebSite):
    listed = web_site.get("cameras/few/frames").json["frames"]
    for frame in (listed[0], listed[10], listed[-1]):
        for when in (frame["timestamp_nano"], frame["timestamp"], frame["timestamp_nano"] + 1):
            assert check_frame(web_site.get(f"cameras/few/at.jpg?time={when}")) == frame["timestamp_nano"]
    assert check_frame(web_site.get("cameras/few/at.jpg")) == listed[-1]["timestamp_nano"]
    # The plus of an offset that was not encoded arrives as a space.
    stamp = listed[-1]["timestamp"].removesuffix("Z") + "+00:00"
    assert check_frame(web_site.get(f"cameras/few/at.jpg?time={stamp}")) == listed[-1]["timestamp_nano"]
    early = web_site.get(f"cameras/few/at.jpg?time={listed[0]['timestamp_nano'] - 1}")
    assert early.status == 404
    assert "few has no frame stored at or before" in early.detail


def test_frames_by_key(web_site: WebSite):
    for camera in ("few", *HOSTILE.values()):
        key = web_site.get(f"cameras/{camera}/frames?limit=1").json["frames"][0]["key"]
        # A key is sent as it is, except for characters that an address cannot contain, or percent-encoded as a whole.
        for path in (quote(key, safe=":/%"), quote(key, safe="")):
            answer = web_site.get(f"frames/{path}")
            nano = check_frame(answer)
            assert nano == parse_frame_key(key).unix_nano
            assert answer.headers["x-frame-key"] == quote(key, safe=":/%#")
            assert "immutable" in answer.headers["cache-control"]
    gone = web_site.get("frames/default:frames:few:1700000000000000000:00001")
    assert (gone.status, "may have expired" in gone.detail) == (404, True)
    assert web_site.get("frames/other:frames:few:1700000000000000000:00001").status == 422
    assert web_site.get("frames/nonsense").status == 422
    assert web_site.get("frames/%3A%3A").status == 422


@pytest.mark.parametrize("name", HOSTILE, ids=["slash", "dots", "unicode", "colon"])
def test_hostile_names_are_percent_encoded_once(web_site: WebSite, name: str):
    path = HOSTILE[name]
    picture = web_site.get(f"cameras/{path}/latest.jpg")
    check_frame(picture)
    assert find_mark(picture.body).camera == name
    assert web_site.get(f"cameras/{path}").json["id"] == name
    listed = web_site.get(f"cameras/{path}/frames?limit=2").json
    assert parse_frame_key(listed["frames"][0]["key"]).camera == name
    following = web_site.get(listed["next"].removeprefix("/api/v1/")).json["frames"]
    assert following[0]["timestamp_nano"] > listed["frames"][1]["timestamp_nano"]
    assert web_site.get(f"cameras/{path}/rate").json["buckets"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("cameras/nobody/latest.jpg", 404),
        ("cameras/nobody/frames", 404),
        ("cameras/nobody/rate", 404),
        ("cameras/nobody", 404),
        ("cameras/%FF/latest.jpg", 404),
        ("cameras/a/b/latest.jpg", 404),
        ("cameras//latest.jpg", 404),
        ("cameras/gate/latest.jpg", 404),
        ("cameras/%00/latest.jpg", 400),
        ("%63ameras", 404),
        ("cameras/cam1/latest.jpg?width=15", 422),
        ("cameras/cam1/latest.jpg?width=1921", 422),
        ("cameras/cam1/latest.jpg?width=1e2", 422),
        ("cameras/cam1/latest.jpg?width=100&width=100", 422),
        ("cameras/cam1/latest.jpg?max_age=5", 422),
        ("cameras/cam1/latest.jpg?max_age=-5s", 422),
        (f"cameras/cam1/latest.jpg?max_age={'9' * 20}d", 422),
        (f"cameras/cam1/latest.jpg?max_age={'9' * 300}", 422),
        ("cameras/cam1/at.jpg?time=yesterday", 422),
        ("cameras/cam1/at.jpg?time=1731024000", 422),
        ("cameras/cam1/at.jpg?time=2024-11-08T14:30:00", 422),
        ("cameras/cam1/at.jpg?time=-99999999d", 422),
        ("cameras/cam1/at.jpg?time=%00", 400),
        ("cameras/cam1/frames?limit=0", 422),
        ("cameras/cam1/frames?limit=1001", 422),
        ("cameras/cam1/frames?start=now&end=-1m", 422),
        ("cameras/cam1/frames?step=0s", 422),
        ("cameras/cam1/frames?reverse=maybe", 422),
        ("cameras/gate/frames?video=true&step=1s", 422),
        ("cameras/cam1/rate?bucket=1ms&start=-1h", 422),
        ("cameras/cam1/rate?bucket=0s", 422),
        ("cameras/cam1/rate?bucket=1us", 422),
        ("cameras/gate/rate?bucket=1us&video=true", 422),
        ("history?minutes=16", 422),
        ("history?camera=nobody", 404),
        ("nothing", 404),
    ],
)
def test_what_is_refused_is_a_problem_that_says_why(web_site: WebSite, path: str, status: int):
    answer = web_site.get(path)
    assert (answer.status, len(answer.detail) > 5) == (status, True), answer


def test_other_methods_are_refused(web_site: WebSite):
    for method in ("POST", "PUT", "DELETE"):
        assert web_site.get("cameras/cam1/latest.jpg", method=method).status == 405


def pages(web_site: WebSite, path: str) -> list[list[dict[str, object]]]:
    found, following = [], f"/api/v1/{path}"
    while following:
        page = web_site.get(following.removeprefix("/api/v1/")).json
        found.append(page["frames"])
        following = page["next"]
    return found


def test_lists_go_on_page_by_page(web_site: WebSite):
    every = web_site.get("cameras/few/frames").json
    assert (len(every["frames"]), every["next"]) == (FEW, None)
    frames = every["frames"]
    assert [frame["sequence"] for frame in frames] == list(range(1, FEW + 1))
    first = frames[0]
    assert (first["width"], first["height"], first["encoding"], first["keyframe"]) == (320, 240, "jpeg", True)
    assert first["size_bytes"] == len(web_site.get(f"frames/{first['key']}").body)
    assert parse_rfc3339(first["timestamp"]) == first["timestamp_nano"]

    paged = pages(web_site, "cameras/few/frames?limit=10")
    assert [len(page) for page in paged] == [10, 10, 5]
    assert [*chain.from_iterable(paged)] == frames
    backwards = pages(web_site, "cameras/few/frames?limit=7&reverse=true")
    assert [*chain.from_iterable(backwards)] == frames[::-1]
    end = frames[19]["timestamp_nano"]
    part = pages(web_site, f"cameras/few/frames?limit=4&start={frames[5]['timestamp_nano']}&end={end}")
    assert [*chain.from_iterable(part)] == frames[5:20]


@pytest.mark.parametrize("reverse", ["false", "true"])
def test_pages_of_a_thinned_list_are_parts_of_the_whole(web_site: WebSite, reverse: str):
    path = f"cameras/few/frames?step=300ms&reverse={reverse}"
    whole = web_site.get(path).json["frames"]
    assert 3 < len(whole) < FEW
    assert [*chain.from_iterable(pages(web_site, f"{path}&limit=3"))] == whole


def test_video_is_listed_by_access_unit(web_site: WebSite):
    wait_until(lambda: web_site.get("cameras/gate/frames?video=1&limit=3").json["next"], 20, "video is stored")
    units = web_site.get("cameras/gate/frames?video=true&limit=3").json["frames"]
    assert [unit["encoding"] for unit in units] == ["h264"] * 3
    assert [unit["keyframe"] for unit in units] == [True, False, False]
    assert units[0]["key"].startswith("engine:default:video:frames/gate:")
    assert web_site.get("cameras/gate/rate?video=true&bucket=1s").json["buckets"]


def test_rate_counts_every_frame_once(web_site: WebSite):
    listed = web_site.get("cameras/few/frames").json["frames"]
    buckets = web_site.get("cameras/few/rate?bucket=1s").json["buckets"]
    assert sum(bucket["frames"] for bucket in buckets) == FEW
    assert sum(bucket["bytes"] for bucket in buckets) == sum(frame["size_bytes"] for frame in listed)
    assert buckets[0]["start_nano"] == listed[0]["timestamp_nano"] // NANO * NANO


def test_while_redis_is_away_answers_say_so_and_come_back_by_themselves(web_site: WebSite):
    pid = web_site.redis.pid
    check_frame(web_site.get("cameras/cam1/latest.jpg"))
    os.kill(pid, signal.SIGSTOP)
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            paths = [
                "cameras/cam1/latest.jpg",
                "cameras/few/frames",
                "cameras/few/at.jpg",
                "cameras/cam2/latest.jpg",
            ] * 2
            answers = list(threads.map(web_site.get, paths))
        assert {answer.status for answer in answers} == {503}
        assert all("Redis at redis://127.0.0.1" in answer.detail for answer in answers)
        servers = web_site.get("servers")
        assert (servers.status, servers.json["redis"]["up"]) == (200, False)
        assert web_site.get("cameras").status == 200, "what needs no Redis goes on"
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: web_site.get("cameras/cam1/latest.jpg").status == 200, 20, "frames are served again")
    nano = time.time_ns()
    wait_until(lambda: check_frame(web_site.get("cameras/cam1/latest.jpg")) > nano, 20, "new frames come")
