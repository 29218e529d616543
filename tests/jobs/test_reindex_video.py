"""Journals of video are made, or mended, from the access units alone."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import pytest
import redis

from engine import FrameStore
from engine.jobs import keyspace_scan
from engine.jobs.keyspace_scan import Strange
from engine.jobs.reindex import CameraReindex, Reindex
from engine.wire import keys
from engine.wire.journal import JournalEntry
from engine.wire.state import CameraStatus, encode_status
from tests.client.stocked import row, stock
from tests.jobs.old_frames import contents, drafts, ears, session
from tests.servers.clips import Stream, make_clip, read_clip
from tests.servers.cluster_client import AnyServer
from tests.stored_video import VideoUnit, store_video
from tests.system.site import command
from tests.system.stored_units import stored_units

VHOST = "loja"
T0 = 1731024000123456789
#: Access units between two key frames of the clips, and in all.
GOP, UNITS = 5, 20


@pytest.fixture(scope="module", params=["h264", "h265"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stream:
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    return read_clip(make_clip(path, codec=request.param, fps=15, gop=GOP, seconds=UNITS / 15))


@pytest.fixture
def client(redis_server: AnyServer) -> redis.Redis:
    return redis_server.client()


def units_of(stream: Stream, camera: str = "cam1", *, first: int = T0) -> list[VideoUnit]:
    """A clip as the engine stores it."""
    return [
        VideoUnit(
            camera,
            JournalEntry(
                first + round(unit.due * 1e9), place + 1, len(unit.annexb), 320, 240, stream.codec, unit.keyframe,
                place + 1, 40_000,
            ),
            unit.annexb,
        )
        for place, unit in enumerate(stream.units)
    ]  # fmt: skip


def reindex(server: AnyServer, prefix: str = "frames") -> tuple[list[CameraReindex], list[Strange]]:
    hear, strange = ears()
    with session(server) as one:
        return Reindex(one, VHOST, prefix, hear).run(), strange


def of_video(reports: Sequence[CameraReindex]) -> list[CameraReindex]:
    return [report for report in reports if report.video]


def entries(client: redis.Redis, camera: str = "cam1") -> list[JournalEntry]:
    return [unit.entry for unit in stored_units(client, camera, VHOST)]


def as_added(units: Sequence[VideoUnit]) -> list[JournalEntry]:
    """The entries of units that were found by their keys: without their number and presentation time."""
    return [unit.entry._replace(number=0, offset_us=0) for unit in units]


def journal(camera: str = "cam1") -> str:
    return keys.video_journal_key(VHOST, "frames", camera)


def test_a_journal_that_was_lost_is_made_again(redis_server: AnyServer, client: redis.Redis, clip: Stream):
    units = units_of(clip) + units_of(clip, "cam/2: a")
    store_video(client, VHOST, units)
    stock(client, row("cam1", 3), vhost=VHOST)
    before = {name: held for name, held in contents(client).items() if b":video:" in name or b"loja:frames" in name}
    client.delete(journal(), journal("cam/2: a"))
    reports, strange = reindex(redis_server)
    assert of_video(reports) == [
        CameraReindex("cam/2: a", UNITS, UNITS, video=True),
        CameraReindex("cam1", UNITS, UNITS, video=True),
    ]
    assert [report for report in reports if not report.video] == [CameraReindex("cam1", 3)]
    assert not strange
    for camera in ("cam1", "cam/2: a"):
        assert entries(client, camera) == as_added([unit for unit in units if unit.camera == camera])
        assert 0 < client.pttl(journal(camera)) <= 300_000
    assert {name: contents(client)[name] for name in before} == before
    with FrameStore(redis_server.url, VHOST) as store:
        assert len(list(store.pictures("cam1"))) == UNITS
        assert len(list(store.range("cam1"))) == 3
    again, _ = reindex(redis_server)
    assert of_video(again) == [CameraReindex(camera, UNITS, video=True) for camera in ("cam/2: a", "cam1")]
    assert not drafts(client)


def test_a_journal_is_mended_in_both_directions(redis_server: AnyServer, client: redis.Redis, clip: Stream):
    """What it lists stays as it is, with numbers and presentation times; what lists nothing goes."""
    units = units_of(clip)
    store_video(client, VHOST, units)
    ids = [f"{unit.entry.unix_nano}-{unit.entry.sequence}" for unit in units]
    unlisted, gone = (1, 5, 6, 12, 19), (15, 16)
    client.xdel(journal(), *(ids[place] for place in unlisted))
    client.delete(*(units[place].key(VHOST) for place in gone))
    reports, _ = reindex(redis_server)
    assert of_video(reports) == [CameraReindex("cam1", UNITS - 2, 5, 2, video=True)]
    expected = [
        as_added([unit])[0] if place in unlisted else unit.entry
        for place, unit in enumerate(units)
        if place not in gone
    ]
    assert entries(client) == expected


def test_what_has_lost_its_key_frame_is_not_listed(redis_server: AnyServer, client: redis.Redis, clip: Stream):
    units = units_of(clip)
    store_video(client, VHOST, units)
    client.delete(journal(), units[0].key(VHOST))
    reports, strange = reindex(redis_server)
    assert of_video(reports) == [CameraReindex("cam1", UNITS - 1, UNITS - GOP, video=True, without_key=GOP - 1)]
    assert entries(client) == as_added(units[GOP:])
    assert not strange


def test_key_frames_that_are_met_late_serve_what_needs_them(
    redis_server: AnyServer, client: redis.Redis, clip: Stream, monkeypatch: pytest.MonkeyPatch
):
    """The keyspace is walked in no order, and in parts."""
    monkeypatch.setattr(keyspace_scan, "PART_MAX", 3)
    units = units_of(clip)
    store_video(client, VHOST, units)
    client.delete(journal())
    # A SCAN of so few keys has one step: make it have many.
    for number in range(3000):
        client.set(f"other:{number}", b"")
    reports, _ = reindex(redis_server)
    assert of_video(reports) == [CameraReindex("cam1", UNITS, UNITS, video=True)]
    assert entries(client) == as_added(units)


def test_other_prefixes_and_other_values_are_left_alone(redis_server: AnyServer, client: redis.Redis, clip: Stream):
    units = units_of(clip)
    for prefix in ("frames/x", "framesx", "other"):
        store_video(client, VHOST, units, prefix=prefix)
    store_video(client, VHOST, units)
    root = keys.video_root(VHOST, "frames")
    odd = {f"{root}cam1:{T0 + 1}:00001": b"text", f"{root}cam1:{T0 + 2}:00001": b"\xff\xd8\xff", f"{root}cam1": b"x"}
    for name, value in odd.items():
        client.set(name, value)
    client.hset(f"{root}cam1:{T0 + 3}:00001", "a", "b")
    before = contents(client)
    client.delete(journal())
    reports, strange = reindex(redis_server)
    (video,) = of_video(reports)
    assert (video.added, video.removed, video.without_key) == (UNITS, 0, 0)
    assert {one.key for one in strange} == {*odd, f"{root}cam1:{T0 + 3}:00001"}
    assert {one.reason for one in strange if one.key in list(odd)[:2]} == {"holds no access unit of H.264 or H.265"}
    after = contents(client)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == {journal().encode()}


def test_units_that_are_too_new_for_a_running_site_wait(redis_server: AnyServer, client: redis.Redis, clip: Stream):
    """With them listed, the site's next ones could not be."""
    units = units_of(clip, first=time.time_ns() - 2 * 10**9)
    store_video(client, VHOST, units)
    client.hset(keys.cameras_key(VHOST, "frames"), "cam1", encode_status(CameraStatus("active", T0)))
    ids = [f"{unit.entry.unix_nano}-{unit.entry.sequence}" for unit in units]
    client.xdel(journal(), *ids[-3:])
    reports, _ = reindex(redis_server)
    assert of_video(reports) == [CameraReindex("cam1", UNITS, 0, 0, 3, video=True)]
    assert entries(client) == [unit.entry for unit in units[:-3]]


def test_the_command_tells_of_both_kinds(redis_server: AnyServer, client: redis.Redis, clip: Stream):
    store_video(client, VHOST, units_of(clip))
    stock(client, row("cam1", 3), vhost=VHOST)
    client.delete(journal())
    done = command("reindex", "--redis", redis_server.url, "--vhost", VHOST)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["camera", "kind", "frames", "added", "removed", "deferred", "without_key"]
    assert lines[1] == ["cam1", "frames", "3", "0", "0", "0", "0"]
    assert lines[2] == ["cam1", "video", str(UNITS), str(UNITS), "0", "0", "0"]
    done = command("reindex", "--redis", redis_server.url, "--vhost", VHOST, "--json")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["video"], one["frames"], one["added"]) for one in told[:2]] == [(False, 3, 0), (True, UNITS, 0)]
