"""Frames under the Go edition's old keys get the new ones, with every nanosecond, byte and millisecond they had."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import redis

from engine.errors import EXIT_FAILED, EXIT_NOTHING
from engine.jobs.keyspace_scan import Strange
from engine.jobs.migrate import CameraMigration, Migration
from engine.servers.redis.session import Session
from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_fields, entry_id
from engine.wire.keys import FrameKey
from engine.wire.redis_address import parse_redis_address
from engine.wire.state import CameraStatus, encode_status
from tests.client.stocked import pipe
from tests.jobs.old_frames import (
    PREFIX,
    SECOND,
    T0,
    TTL_MS,
    Old,
    assert_in_place,
    assert_site_unharmed,
    clock_text,
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
from tests.servers.wait import free_port, wait_until
from tests.stored_video import store_video, video_units
from tests.system.site import command


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


def migrate(
    server: RedisServer, vhost: str | None = None, *, dry_run: bool = False
) -> tuple[list[CameraMigration], list[Strange], int]:
    """One run: its report, what it left alone, and how many frames stand under old keys behind it."""
    hear, strange = ears()
    with session(server) as one:
        job = Migration(one, PREFIX, vhost, hear, dry_run=dry_run)
        return job.run(), strange, job.left()


def ends_of(client: redis.Redis, frames: list[Old]) -> list[int]:
    return expiry(client, [frame.name for frame in frames])


def test_stored_video_is_no_old_frame(redis_server, client):
    """Whatever the prefix is called: its keys and journals stay, and are not even looked at."""
    store_video(client, "loja", video_units("cam1", "K...."))
    store_video(client, PREFIX, video_units("cam1", "K...."), prefix="loja")
    frames = row("cam1", 3)
    put(client, frames)
    video = {name: held for name, held in contents(client).items() if name.startswith(b"engine:")}
    reports, strange, left = migrate(redis_server)
    assert ([report.moved for report in reports], strange, left) == ([3], [], 0)
    after = contents(client)
    assert {name: after[name] for name in video} == video


#: Timestamps as Go, Python and people write them: nanoseconds, and text.
TIMES = {
    "nanoseconds": (T0, clock_text(T0)),
    **{
        f"{digits} digits": (
            T0 // 10 ** (9 - digits) * 10 ** (9 - digits),
            clock_text(T0 // 10 ** (9 - digits) * 10 ** (9 - digits), digits),
        )
        for digits in range(9)
    },
    "Go leaves zeros out": (T0 // SECOND * SECOND + 120_000_000, "2024-11-08T00:00:00.12Z"),
    "west of Greenwich": (T0, clock_text(T0, 9, -180)),
    "east, half an hour": (T0, clock_text(T0, 9, 330)),
    "yesterday there": (T0, "2024-11-07T12:00:00.123456789-12:00"),
    "offset without fraction": (T0 // SECOND * SECOND, clock_text(T0 // SECOND * SECOND, 0, -180)),
    "unknown offset": (T0, clock_text(T0, 9, 0).replace("+", "-")),
    "small letters": (T0, clock_text(T0).lower()),
    "the last nanosecond of a day": (1731110399999999999, "2024-11-08T23:59:59.999999999Z"),
    "a leap day": (1709164800000000001, "2024-02-29T00:00:00.000000001Z"),
    "the first second of 19 digits": (10**18, "2001-09-09T01:46:40Z"),
}


@pytest.mark.parametrize("form", TIMES)
def test_every_form_of_rfc_3339_keeps_its_nanoseconds(redis_server, client, form):
    nano, text = TIMES[form]
    frames = [old("cam1", nano, 7, text=text)]
    put(client, frames)
    ends = ends_of(client, frames)
    reports, strange, left = migrate(redis_server)
    assert not strange
    assert left == 0
    assert reports == [CameraMigration("loja", "cam1", found=1, bytes=len(frames[0].payload), moved=1)]
    assert str(nano).encode() in frames[0].new
    assert_in_place(client, frames, ends)


def test_names_that_the_new_keys_encode_stand_as_they_were_meant(redis_server, client):
    """Cameras with colons and what looks like a timestamp, tenants with spaces, percent signs and glob characters."""
    names = [
        ("loja", "cam:1"),
        ("loja", "a:b:c"),
        ("loja", "cam 1"),
        ("loja", "câmera-ção"),
        ("loja", "100%"),
        ("loja", "cam%201"),
        ("loja", "[ab]*?"),
        ("loja", "back\\slash"),
        ("loja", "2024-11-08T14:30:00Z"),
        ("loja", "2024-11-08T14:30:00Z:1:x"),
        ("loja", "quote'\""),
        ("tenant one", "cam1"),
        ("50%", "cam1"),
        ("a*b", "cam1"),
        ("[x]", "cam1"),
        ("frames", "cam1"),
        ("", "slash-less"),
        ("/", "slash"),
        ("default", "named"),
    ]
    frames = [old(camera, T0 + number, 1, vhost=vhost) for number, (vhost, camera) in enumerate(names)]
    put(client, frames)
    ends = ends_of(client, frames)
    reports, strange, left = migrate(redis_server)
    assert not strange
    assert left == 0
    assert sum(report.moved for report in reports) == len(frames)
    assert_in_place(client, frames, ends)
    assert all(keys.parse_frame_key(frame.new) == frame.key for frame in frames)


def test_one_tenant_is_migrated_and_the_others_are_not_touched(redis_server, client):
    """Also where one's name begins like another's, or reads like a pattern that matches it."""
    tenants = ["loja", "loja2", "lo", "l*", "loj?", "[l]oja", "frames", "default", "/", ""]
    frames = {tenant: row("cam1", 5, vhost=tenant) for tenant in tenants}
    # The three names of the default tenant are the same frames otherwise.
    frames["/"], frames[""] = row("cam2", 5, vhost="/"), row("cam3", 5, vhost="")
    put(client, [frame for some in frames.values() for frame in some])
    for tenant in ("l*", "[l]oja", "loja"):
        others = contents(client, f"{PREFIX}:*")
        ends = ends_of(client, frames[tenant])
        reports, _, left = migrate(redis_server, tenant)
        assert [(report.vhost, report.moved) for report in reports] == [(tenant, 5)]
        assert left == 0
        assert_in_place(client, frames[tenant], ends)
        for frame in frames[tenant]:
            del others[frame.name]
        still = contents(client, f"{PREFIX}:*")
        # A tenant that is called as the prefix is has new keys that begin as old ones do.
        assert {name: held for name, held in still.items() if name in others} == others
    reports, _, left = migrate(redis_server, "default")
    assert [(report.camera, report.moved) for report in reports] == [("cam1", 5), ("cam2", 5), ("cam3", 5)]
    reports, _, left = migrate(redis_server, None)
    assert sorted(report.vhost for report in reports) == ["frames", "lo", "loj?", "loja2"]
    assert left == 0


#: Keys that no frame of the Go edition has.
STRANGE = [
    b"frames:loja:cam1:2024-11-08T14:30:00.1234567891Z:00001",
    b"frames:loja:cam1:2024-11-08T14:30:00:00001",
    b"frames:loja:cam1:2024-11-08:00001",
    b"frames:loja:cam1:2024-02-30T14:30:00Z:00001",
    b"frames:loja:cam1:2024-11-08T25:30:00Z:00001",
    b"frames:loja:cam1:2024-11-08T14:30:00Z",
    b"frames:loja:cam1:2024-11-08T14:30:00Z:",
    b"frames:loja:cam1:2024-11-08T14:30:00Z:abc",
    b"frames:loja:cam1:2024-11-08T14:30:00Z:-1",
    b"frames:loja:cam1:2024-11-08T14:30:00Z:00000",
    b"frames:loja:cam1:2024-11-08T14:30:00Z:100000",
    b"frames:loja:cam1:1999-12-31T23:59:59Z:00001",
    b"frames:loja:cam1:2400-01-01T00:00:00Z:00001",
    b"frames:loja:cam1:0000-01-01T00:00:00Z:00001",
    b"frames:loja::2024-11-08T14:30:00Z:00001",
    b"frames:cam1:2024-11-08T14:30:00Z",
    b"frames:\xff\xfe:cam1:2024-11-08T14:30:00Z:00001",
    b"frames:loja:\xff:2024-11-08T14:30:00Z:00001",
    b"frames:",
    b"frames:loja",
    # These would match patterns of the engine's own keys.
    b"frames:engine:cam1:2024-11-08T14:30:00Z:00001",
    b"frames:loja:journal:2024-11-08T14:30:00Z:00001",
    b"frames:loja:cameras:2024-11-08T14:30:00Z:00001",
    b"frames:loja:cursor:2024-11-08T14:30:00Z:00001",
    b"frames:loja:rebuild:2024-11-08T14:30:00Z:00001",
]
#: And others that are none of its business at all.
FOREIGN = [
    # A new key, of a tenant that is called as the prefix is.
    b"frames:loja:cam1:1731076200123456789:00001",
    b"frame:loja:cam1:2024-11-08T14:30:00Z:00001",
    b"framesx",
    b"outro",
    b"loja:frames:x",
]


def test_what_does_not_parse_is_told_of_and_left_as_it_is(redis_server, client):
    frames = row("cam1", 10)
    put(client, frames)
    for name in STRANGE:
        client.set(name, b"\x00\xff" + name, px=TTL_MS)
    for name in FOREIGN:
        client.set(name, b"foreign")
    others = [f"frames:loja:cam1:2024-11-08T15:00:0{number}Z:00001".encode() for number in range(3)]
    client.rpush(others[0], "a", "b")
    client.hset(others[1], "a", "b")
    client.xadd(others[2], {"a": "b"})
    untouched = {name: contents(client)[name] for name in (*STRANGE, *FOREIGN, *others)}
    ends = ends_of(client, frames)
    reports, strange, left = migrate(redis_server)
    assert_in_place(client, frames, ends)
    assert [(report.camera, report.found, report.moved) for report in reports] == [("cam1", 10, 10)]
    assert left == 0
    assert {name: contents(client)[name] for name in untouched} == untouched
    told = [one.key.encode("utf-8") for one in strange]
    wanted = [name.decode("utf-8", "backslashreplace").encode() for name in (*STRANGE, *others)]
    assert sorted(told) == sorted(wanted)
    assert all(one.reason for one in strange)
    # Nothing stands in their stead.
    names = {frame.new for frame in frames} | untouched.keys()
    assert {name for name in client.scan_iter() if not name.startswith(b"engine:")} == names
    assert [entry.sequence for entry in listed(client, "loja", "cam1")] == list(range(1, 11))


def test_pictures_are_looked_at_for_their_size_however_long_their_headers_are(redis_server, client):
    frames = [
        old("cam1", T0, 1, payload=picture(64, 48), size=(64, 48)),
        old("cam1", T0 + 1, 1, payload=picture(320, 240, header_bytes=2000), size=(320, 240)),
        old("cam1", T0 + 2, 1, payload=picture(1280, 720, header_bytes=70_000), size=(1280, 720)),
        # Not every payload is a picture: nobody knows its size.
        old("cam1", T0 + 3, 1, payload=bytes(range(256)) * 8, size=(0, 0)),
        old("cam1", T0 + 4, 1, payload=b"\xff\xd8\xff", size=(0, 0)),
        old("cam1", T0 + 5, 1, payload=b"", size=(0, 0)),
    ]
    put(client, frames)
    ends = ends_of(client, frames)
    reports, strange, left = migrate(redis_server)
    assert (reports[0].moved, left, strange) == (6, 0, [])
    assert reports[0].bytes == sum(len(frame.payload) for frame in frames)
    assert_in_place(client, frames, ends)


def test_lifetimes_stay_to_the_millisecond_and_a_frame_without_one_keeps_none(redis_server, client):
    frames = [old("cam1", T0 + number, 1, ttl_ms=30_000 + number * 977) for number in range(50)]
    frames += [old("cam2", T0, 1, ttl_ms=0), old("cam2", T0 + 1, 2, ttl_ms=30_000)]
    put(client, frames)
    ends = ends_of(client, frames)
    assert ends[50] == -1
    migrate(redis_server)
    assert_in_place(client, frames, ends)
    # The journal lasts as long as what it lists.
    assert client.pttl(keys.journal_key("loja", PREFIX, "cam2")) == -1
    assert 0 < client.pttl(keys.journal_key("loja", PREFIX, "cam1")) <= 30_000 + 49 * 977


def stock_site(client: redis.Redis, camera: str, stamps: list[int], state: str = "offline") -> list[JournalEntry]:
    """What a site has stored, with numbers of its own."""
    entries = [
        JournalEntry(stamp, number % 99_999 + 50_000, 9, 64, 48, "jpeg", True) for number, stamp in enumerate(stamps)
    ]
    journal = keys.journal_key("loja", PREFIX, camera)

    def commands() -> Any:
        for entry in entries:
            name = keys.build_frame_key(FrameKey("loja", PREFIX, camera, entry.unix_nano, entry.sequence))
            yield "SET", name, b"of a site", "PX", TTL_MS
            yield "XADD", journal, entry_id(entry.unix_nano, entry.sequence), *entry_fields(entry)
        yield "PEXPIRE", journal, TTL_MS
        yield "HSET", keys.cameras_key("loja", PREFIX), camera, encode_status(CameraStatus(state))  # type: ignore[arg-type]

    pipe(client, commands())
    return entries


def test_frames_go_between_the_entries_that_a_journal_has(redis_server, client):
    """Before all, between any two, at the same nanosecond, and behind the last."""
    entries = stock_site(client, "cam1", [T0 + number * 10 * SECOND for number in range(100)])
    frames = row("cam1", 1020, first=T0 - 10 * SECOND)
    put(client, frames)
    ends = ends_of(client, frames)
    state = client.hget(keys.cameras_key("loja", PREFIX), "cam1")
    reports, _, left = migrate(redis_server)
    assert (reports[0].moved, left) == (1020, 0)
    assert_in_place(client, frames, ends)
    assert listed(client, "loja", "cam1") == sorted([*entries, *(frame.entry for frame in frames)])
    # And what is known of the camera stays.
    assert client.hget(keys.cameras_key("loja", PREFIX), "cam1") == state


def test_a_dry_run_counts_and_changes_nothing(redis_server, client):
    frames = row("cam1", 30) + row("cam2", 20) + row("cam1", 10, vhost="outra")
    put(client, frames)
    stock_site(client, "cam1", [T0 + 5])
    for name in STRANGE:
        client.set(name, b"x")
    before = contents(client)
    changes = changed(client)
    reports, strange, left = migrate(redis_server, dry_run=True)
    assert contents(client) == before
    assert changed(client) == changes
    assert [(report.vhost, report.camera, report.found, report.moved) for report in reports] == [
        ("loja", "cam1", 30, 0),
        ("loja", "cam2", 20, 0),
        ("outra", "cam1", 10, 0),
    ]
    assert sum(report.bytes for report in reports) == sum(len(frame.payload) for frame in frames)
    assert len(strange) == len(STRANGE)
    assert left == 60


def changed(client: redis.Redis) -> int:
    """Writes that the server has counted."""
    return int(client.info("persistence")["rdb_changes_since_last_save"])


def test_a_second_run_finds_nothing_and_changes_nothing(redis_server, client):
    frames = row("cam1", 30)
    put(client, frames)
    migrate(redis_server)
    before = contents(client)
    assert migrate(redis_server) == ([], [], 0)
    assert contents(client) == before


def test_a_frame_that_was_copied_before_is_no_second_frame(redis_server, client):
    """Another script copied some, and may have been stopped before it removed the old keys."""
    frames = row("cam1", 6)
    put(client, frames)
    put(client, frames[:3], new=True)
    ends = expiry(client, [frame.new for frame in frames[:3]]) + ends_of(client, frames[3:])
    reports, strange, left = migrate(redis_server)
    assert reports == [
        CameraMigration("loja", "cam1", 6, sum(len(frame.payload) for frame in frames), moved=3, duplicates=3)
    ]
    assert not strange
    assert left == 0
    assert_in_place(client, frames, ends)


class Slow(Session):
    """A session whose commands are carried out at different milliseconds, as nodes of a loaded cluster do."""

    def try_call(self, *commands: tuple[Any, ...]) -> list[Any]:
        replies = []
        for one in commands:
            replies += super().try_call(one)
            after = time.monotonic() + 0.002
            wait_until(lambda after=after: time.monotonic() > after, 1, "it is another millisecond", interval=0.001)
        return replies


def test_a_copy_that_ends_with_its_original_keeps_its_end(redis_server, client):
    """What a run left that was killed between copy and removal."""
    frames = row("cam1", 3)
    put(client, frames)
    ends = ends_of(client, frames)
    for frame, end in zip(frames, ends, strict=True):
        client.set(frame.new, frame.payload, pxat=end)
    with Slow(parse_redis_address(redis_server.url), 20.0, checks_mode=True) as one:
        (report,) = Migration(one, PREFIX, None, ears()[0]).run()
    assert report.duplicates == 3
    assert_in_place(client, frames, ends)


@pytest.mark.parametrize("kept", [-1, TTL_MS])
def test_a_copy_with_a_shorter_life_gets_the_life_of_what_it_was_copied_from(redis_server, client, kept):
    """As the product page's script makes them: 300 seconds for what had no lifetime."""
    (frame,) = row("cam1", 1)
    client.set(frame.name, frame.payload, px=None if kept < 0 else kept)
    client.set(frame.new, frame.payload, px=5_000)
    reports, _, _ = migrate(redis_server)
    assert reports[0].duplicates == 1
    assert not client.exists(frame.name)
    assert client.pttl(frame.new) == -1 if kept < 0 else client.pttl(frame.new) > 5_000


def test_another_frame_under_the_new_key_is_a_conflict_and_both_stay(redis_server, client):
    frames = row("cam1", 6)
    put(client, frames)
    entries = stock_site(client, "cam1", [frames[2].key.unix_nano])
    # The same nanosecond and number, other bytes.
    taken = frames[3]
    client.set(taken.new, b"another frame, of 26 bytes", px=TTL_MS)
    before = contents(client)
    others = [frame for frame in frames if frame is not taken]
    ends = ends_of(client, others)
    reports, strange, left = migrate(redis_server)
    assert (reports[0].found, reports[0].moved, reports[0].conflicts, left) == (6, 5, 1, 1)
    assert [one.key for one in strange] == [taken.name.decode()]
    assert taken.new.decode() in strange[0].reason
    assert contents(client)[taken.name] == before[taken.name]
    assert contents(client)[taken.new] == before[taken.new]
    assert_in_place(client, others, ends)
    assert entries[0] in listed(client, "loja", "cam1")
    # Whatever is listed under the key that is taken, it is what stands there.
    sizes = [entry.size for entry in listed(client, "loja", "cam1") if entry.unix_nano == taken.key.unix_nano]
    assert sizes in ([], [26])


def test_two_old_keys_of_one_moment_are_a_conflict_and_the_journal_tells_of_the_one_that_has_the_key(
    redis_server, client
):
    """The same instant, written in UTC and in local time."""
    one = old("cam1", T0, 1, payload=b"in UTC")
    other = old("cam1", T0, 1, text=clock_text(T0, 9, -180), payload=b"in local time")
    put(client, [one, other])
    reports, strange, left = migrate(redis_server)
    assert (reports[0].found, reports[0].moved, reports[0].conflicts, left) == (2, 1, 1, 1)
    assert len(strange) == 1
    (entry,) = listed(client, "loja", "cam1")
    assert entry.size == client.strlen(one.new)
    assert {client.get(one.new), *client.mget(one.name, other.name)} == {b"in UTC", b"in local time", None}


def test_frames_of_the_future_wait_because_they_would_lock_the_journal(redis_server, client):
    """A camera's clock, or the machine's, was wrong once."""
    seconds, micros = client.time()
    now = seconds * SECOND + micros * 1000
    late = [old("cam1", now + 3600 * SECOND, 1), old("cam1", now + 90_000 * SECOND, 2)]
    frames = row("cam1", 5)
    put(client, frames + late)
    ends = ends_of(client, frames)
    before = {name: held for name, held in contents(client).items() if name in {frame.name for frame in late}}
    reports, _, left = migrate(redis_server)
    assert (reports[0].found, reports[0].moved, reports[0].deferred, left) == (7, 5, 2, 2)
    assert_in_place(client, frames, ends)
    assert {frame.name: contents(client)[frame.name] for frame in late} == before
    assert not client.exists(*(frame.new for frame in late))
    # What a site stores now has its place.
    client.xadd(keys.journal_key("loja", PREFIX, "cam1"), {"s": 1}, id=f"{now}-1")


@pytest.mark.one_server
def test_frames_that_expire_on_the_way_are_counted_as_such(redis_server, client):
    """They are there when the keys are looked for, and gone when they are asked for."""
    frames = row("cam1", 20)
    put(client, frames)
    hear, strange = ears()
    dying = [frame.name for frame in frames[::2]]
    with session(redis_server) as one:
        job = Migration(one, PREFIX, "loja", hear._replace(step=lambda: client.delete(*dying)))
        reports = job.run()
    assert (reports[0].found, reports[0].moved, reports[0].expired) == (10, 10, 10)
    assert not strange
    assert len(listed(client, "loja", "cam1")) == 10


def test_a_running_site_loses_nothing_and_old_frames_of_its_cameras_are_listed(site, redis_server, client):
    cameras = [{"id": f"cam{number}", "url": "test://?fps=30&kb=20&size=320x240"} for number in (1, 2, 3)]
    site.write(cameras=cameras, redis={"address": redis_server.address, "ttl_seconds": 7200})
    frames = [frame for number in (1, 2, 3, 4) for frame in row(f"cam{number}", 1500, vhost="default")]
    put(client, frames)
    ends = ends_of(client, frames)
    site.start()
    wait_until(lambda: all(camera["stored"] > 20 for camera in site.status()["cameras"]), 30, "frames flow")
    begun = site.total("stored")
    # A frame that is newer than what the site has listed may not go there while it runs.
    seconds, _ = client.time()
    ahead = old("cam1", (seconds + 30) * SECOND, 1, vhost="default")
    put(client, [ahead])
    done = command("migrate", "-c", str(site.file), "--json")
    assert done.returncode == EXIT_FAILED, done.stderr
    *reports, summary = map(json.loads, done.stdout.splitlines())
    assert {report["camera"]: (report["moved"], report["deferred"]) for report in reports} == {
        "cam1": (1500, 1), "cam2": (1500, 0), "cam3": (1500, 0), "cam4": (1500, 0),
    }  # fmt: skip
    assert summary == {"left_alone": 0, "old_keys_left": 1, "dry_run": False}
    assert site.total("stored") > begun, "the site wrote nothing meanwhile"
    before = site.total("stored")
    wait_until(lambda: site.total("stored") > before + 100, 30, "frames flow on")
    assert site.dropped() == {}
    assert site.stop() == 0
    assert client.get(ahead.name) == ahead.payload
    client.delete(ahead.name)
    assert_in_place(client, frames, ends)
    assert_site_unharmed(site, client, "default")


def run(server: RedisServer, *arguments: str) -> Any:
    return command("migrate", "--redis", server.url, *arguments)


def test_the_command_says_what_it_did_and_its_exit_code_agrees(redis_server, client):
    put(client, row("cam1", 3) + row("cam1", 2, vhost="outra"))
    client.set("frames:loja:strange", b"x")
    done = run(redis_server, "--vhost", "loja", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    told, report, summary = map(json.loads, done.stdout.splitlines())
    assert told["left_alone"] == "frames:loja:strange"
    assert (report["found"], report["moved"]) == (3, 0)
    assert summary == {"left_alone": 1, "old_keys_left": None, "dry_run": True}
    done = run(redis_server, "--vhost", "loja")
    assert done.returncode == 0, done.stderr
    assert "no old keys are left" in done.stderr
    assert "frames:loja:strange" in done.stderr
    assert run(redis_server, "--vhost", "loja").returncode == EXIT_NOTHING
    done = run(redis_server, "--all-tenants", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-2])["vhost"] == "outra"
    # A conflict is for a person to settle, so it is no success.
    put(client, [old("cam1", T0, 1, payload=b"another")])
    done = run(redis_server, "--vhost", "loja")
    assert done.returncode == EXIT_FAILED
    assert "1 old keys are left" in done.stderr
    assert command("migrate", "--redis", f"127.0.0.1:{free_port()}").returncode == EXIT_FAILED
