"""Journals are made, or mended, from frame keys alone, also while a site writes."""

from __future__ import annotations

import json

import pytest
import redis

from engine.errors import EXIT_NOTHING
from engine.jobs.keyspace_scan import Strange
from engine.jobs.reindex import CameraReindex, Reindex
from engine.wire import keys
from engine.wire.journal import entry_fields, entry_id
from engine.wire.keys import FrameKey
from tests.client.stocked import pipe
from tests.jobs.old_frames import (
    PREFIX,
    SECOND,
    T0,
    TTL_MS,
    Old,
    assert_in_place,
    assert_journals_agree,
    assert_site_unharmed,
    contents,
    ears,
    expiry,
    listed,
    old,
    picture,
    put,
    row,
    session,
)
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import command


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


def reindex(
    server: RedisServer, vhost: str = "loja", prefix: str = PREFIX
) -> tuple[list[CameraReindex], list[Strange]]:
    hear, strange = ears()
    with session(server) as one:
        return Reindex(one, vhost, prefix, hear).run(), strange


def as_new(frames: list[Old]) -> list[Old]:
    """The same frames, under their new keys from the beginning."""
    return [frame._replace(name=frame.new) for frame in frames]


def put_new(client: redis.Redis, frames: list[Old]) -> list[int]:
    """Frames as the Go edition and the page's snippets store them; when each ends."""
    put(client, frames, new=True)
    return expiry(client, [frame.new for frame in frames])


def enter(client: redis.Redis, frames: list[Old]) -> None:
    """Journal entries, for frames that are there or not."""

    def commands() -> object:
        for frame in frames:
            journal = keys.journal_key(frame.key.vhost, PREFIX, frame.key.camera)
            identifier = entry_id(frame.key.unix_nano, frame.key.sequence)
            yield "XADD", journal, identifier, *entry_fields(frame.entry)
            yield "PEXPIRE", journal, TTL_MS
            yield "HSETNX", keys.cameras_key(frame.key.vhost, PREFIX), frame.key.camera, b"{}"

    pipe(client, commands())  # type: ignore[arg-type]


def test_frames_that_no_journal_lists_are_listed(redis_server, client):
    """A tenant that never had a journal: the Go edition's, and what the page's snippets stored."""
    frames = as_new(row("cam1", 1200) + row("cam:2", 5))
    # As the snippet of the page writes it: the same number for every frame, and whole seconds of lifetime.
    frames += as_new([old("snippet", T0 + number * 1000, 1, ttl_ms=300_000) for number in range(20)])
    frames += as_new([old("thumbs", T0, 1, payload=picture(1280, 720, header_bytes=5000), size=(1280, 720))])
    frames += as_new([old("for ever", T0, 1, ttl_ms=0), old("for ever", T0 + 1, 2)])
    ends = put_new(client, frames)
    reports, strange = reindex(redis_server)
    assert reports == [
        CameraReindex("cam1", 1200, 1200),
        CameraReindex("cam:2", 5, 5),
        CameraReindex("for ever", 2, 2),
        CameraReindex("snippet", 20, 20),
        CameraReindex("thumbs", 1, 1),
    ]
    assert not strange
    assert_in_place(client, frames, ends)
    for camera in ("cam1", "cam:2", "snippet", "thumbs", "for ever"):
        assert listed(client, "loja", camera) == [frame.entry for frame in frames if frame.key.camera == camera]


def test_a_journal_is_mended_in_both_directions(redis_server, client):
    """Gaps are filled, and what lists nothing goes; what is right stays as it is."""
    frames = as_new(row("cam1", 1500))
    gone = as_new(row("cam1", 700, first=T0 + SECOND // 2)) + as_new(row("empty", 3))
    right = [frame for number, frame in enumerate(frames) if number % 3]
    ends = put_new(client, frames)
    enter(client, sorted(right + gone, key=lambda frame: (frame.key.camera, frame.key.unix_nano)))
    reports, _ = reindex(redis_server)
    assert reports == [CameraReindex("cam1", 1500, 500, 700), CameraReindex("empty", 0, 0, 3)]
    assert listed(client, "loja", "cam1") == [frame.entry for frame in frames]
    assert listed(client, "loja", "empty") == []
    assert_in_place(client, frames, ends)


def test_a_second_run_finds_all_as_it_is_to_be(redis_server, client):
    put_new(client, row("cam1", 300))
    reindex(redis_server)
    before = contents(client)
    reports, _ = reindex(redis_server)
    assert reports == [CameraReindex("cam1", 300)]
    after = contents(client)
    assert after == before


def test_a_camera_that_is_listed_nowhere_is_listed_where_its_frames_are(redis_server, client):
    """Its journal may be whole: without the camera's name, nobody who asks for all cameras is told of it."""
    frames = as_new(row("cam1", 5))
    gone = as_new(row("cam1", 2, first=T0 + SECOND // 2))
    put_new(client, frames)
    enter(client, sorted(frames + gone, key=lambda frame: frame.key.unix_nano))
    client.delete(keys.cameras_key("loja", PREFIX))
    reports, _ = reindex(redis_server)
    assert client.hkeys(keys.cameras_key("loja", PREFIX)) == [b"cam1"]
    assert listed(client, "loja", "cam1") == [frame.entry for frame in frames]
    assert reports == [CameraReindex("cam1", 5, 0, 2)]


def test_a_run_without_key_tags_does_not_end_one_with_them(redis_server, client):
    """Without tags, the frames of the camera cam1 look like those of a camera with braces in its name."""
    frames = as_new(row("{cam1}", 3))
    put_new(client, frames)
    assert [report.camera for report in reindex(redis_server)[0]] == ["{cam1}"]
    (report,), strange = reindex(redis_server, prefix=keys.TaggedPrefix(PREFIX))
    assert (report.camera, report.frames, report.added, strange) == ("cam1", 3, 0, [])


def test_other_tenants_and_prefixes_are_not_touched(redis_server, client):
    for vhost in ("loja", "loja2", "lo*", "[l]oja", "default"):
        put_new(client, row("cam1", 3, vhost=vhost))
    other_prefix = keys.build_frame_key(FrameKey("loja", "backup", "cam1", T0, 1))
    client.set(other_prefix, picture())
    before = contents(client)
    for vhost in ("lo*", "[l]oja"):
        reports, strange = reindex(redis_server, vhost)
        assert [(report.camera, report.added) for report in reports] == [("cam1", 3)]
        assert not strange
    # But for notes that jobs leave to each other.
    new = {name for name in contents(client).keys() - before.keys() if b":rebuild:" not in name}
    assert new == {
        key.encode()
        for vhost in ("lo*", "[l]oja")
        for key in (keys.journal_key(vhost, PREFIX, "cam1"), keys.cameras_key(vhost, PREFIX))
    }
    reports, _ = reindex(redis_server, "loja", "backup")
    assert [(report.camera, report.added) for report in reports] == [("cam1", 1)]
    assert {name: contents(client)[name] for name in before} == before


def test_what_is_no_frame_is_told_of_and_left_alone(redis_server, client):
    put_new(client, row("cam1", 3))
    strange_names = [
        "loja:frames:cam1:123:00001",
        "loja:frames:cam1:1731024000123456789:1",
        "loja:frames:cam1:1731024000123456789:00000",
        "loja:frames:cam 1:1731024000123456789:00001",
        "loja:frames:cam1",
        "loja:frames:",
        "loja:frames:a:b:1731024000123456789:00001",
    ]
    for name in strange_names:
        client.set(name, b"x", px=TTL_MS)
    no_string = keys.build_frame_key(FrameKey("loja", PREFIX, "cam1", T0 + 7, 1))
    client.rpush(no_string, "x")
    untouched = {name.encode(): contents(client)[name.encode()] for name in (*strange_names, no_string)}
    _, strange = reindex(redis_server)
    assert sorted(one.key for one in strange) == sorted([*strange_names, no_string])
    assert {name: contents(client)[name] for name in untouched} == untouched
    assert len(listed(client, "loja", "cam1")) == 3


def test_frames_of_the_future_wait(redis_server, client):
    seconds, _ = client.time()
    put_new(client, [*row("cam1", 3), old("cam1", (seconds + 3600) * SECOND, 9)])
    reports, _ = reindex(redis_server)
    assert reports == [CameraReindex("cam1", 4, 3, 0, 1)]
    assert [entry.sequence for entry in listed(client, "loja", "cam1")] == [1, 2, 3]


def test_a_running_sites_journals_are_mended_and_it_loses_nothing(site, redis_server, client):
    """Frames without entries and entries without frames, older than the site's, again and again while it writes."""
    cameras = [{"id": f"cam{number}", "url": "test://?fps=30&kb=20&size=320x240"} for number in (1, 2, 3)]
    site.write(cameras=cameras, redis={"address": redis_server.address, "ttl_seconds": 7200})
    site.start()
    wait_until(lambda: all(camera["stored"] > 20 for camera in site.status()["cameras"]), 30, "frames flow")
    frames: list[Old] = []
    for number in range(3):
        some = [
            frame
            for camera in ("cam1", "cam2", "cam3", "script")
            for frame in as_new(row(camera, 400, first=T0 + number * SECOND // 4, vhost="default"))
        ]
        put_new(client, some)
        frames += some
        begun = site.total("stored")
        with session(redis_server) as one:
            reports = Reindex(one, "default", PREFIX, ears()[0]).run()
        assert [report.added for report in reports] == [400] * 4
        assert [report.removed for report in reports] == [200 if number else 0] * 4
        # Every other frame ends now, and its entry stands until the next run.
        client.delete(*(frame.new for frame in some[::2]))
        frames = [frame for frame in frames if frame not in some[::2]]
        wait_until(lambda begun=begun: site.total("stored") > begun + 60, 30, "frames flow on")
    done = command("reindex", "-c", str(site.file), "--json")
    assert done.returncode == 0, done.stderr
    *reports, summary = map(json.loads, done.stdout.splitlines())
    assert [(report["added"], report["removed"]) for report in reports] == [(0, 200)] * 4
    assert summary == {"left_alone": 0}
    assert site.dropped() == {}
    assert site.stop() == 0
    assert_in_place(client, frames, expiry(client, [frame.new for frame in frames]))
    assert_site_unharmed(site, client, "default")
    assert_journals_agree(client, "default", ["cam1", "cam2", "cam3", "script"])


def test_a_site_whose_journals_were_deleted_gets_them_back_while_it_runs(site, redis_server, client):
    """The frames that it had stored before are listed again, before those that it stores meanwhile."""
    cameras = [{"id": f"cam{number}", "url": "test://?fps=30&kb=20&size=320x240"} for number in (1, 2)]
    site.write(cameras=cameras, redis={"address": redis_server.address, "ttl_seconds": 7200})
    site.start()
    wait_until(lambda: all(camera["stored"] > 60 for camera in site.status()["cameras"]), 30, "frames flow")
    client.delete(*(keys.journal_key("default", PREFIX, camera) for camera in ("cam1", "cam2")))
    stored = site.total("stored")
    wait_until(lambda: site.total("stored") > stored + 30, 30, "the journals have begun anew")
    reports, _ = reindex(redis_server, "default")
    assert all(report.added >= 60 for report in reports)
    assert all(report.deferred == 0 for report in reports)
    wait_until(lambda: site.total("stored") > stored + 120, 30, "frames flow on")
    assert site.dropped() == {}
    assert site.stop() == 0
    assert_site_unharmed(site, client, "default")
    assert_journals_agree(client, "default", ["cam1", "cam2"])


def test_nothing_to_list_is_said_by_the_exit_code(redis_server, client):
    done = command("reindex", "--redis", redis_server.url, "--vhost", "loja", "--json")
    assert done.returncode == EXIT_NOTHING
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"left_alone": 0}]
