"""Every query equals the same query written plainly over a sorted list, for both stores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Frame, FrameEntry
from engine.client import payloads, queries, stats_queries
from engine.client import ranges as range_reader
from engine.client import store_base as stores
from engine.client import tail as tail_reader
from engine.client.iterators import Frames
from engine.client.stats import Bucket, CameraStats
from engine.config.rules import CAMERA_FILE_BYTES_MAX, file_stem
from engine.wire import keys
from engine.wire.state import CameraStatus
from tests.client.stocked import STATUS, STORES, T0, TTL_MS, VHOST, AnyStore, Stored, frame, row, stock
from tests.servers.redis_server import RedisServer
from tests.wire.names import names

camera_names = names.filter(
    lambda name: name not in keys.RESERVED_WORDS and len(file_stem(name)) <= CAMERA_FILE_BYTES_MAX
)
#: "/" is another name of the tenant "default".
vhost_names = names.filter(lambda name: name not in (keys.ENGINE, "/"))
prefix_names = names.filter(lambda name: name not in keys.RESERVED_WORDS)
#: From frames of one instant to frames that are minutes apart.
gaps = st.sampled_from((0, 0, 1, 2, 999, 10**6, 33_333_333, 10**9, 61 * 10**9))


class World(NamedTuple):
    """What Redis holds, sorted; ``cameras`` may list some without frames. The numbers are where chunks end."""

    vhost: str
    prefix: str
    cameras: list[str]
    frames: list[Stored]
    entries_max: int
    frames_max: int
    chunk_bytes: int

    def of(self, camera: str) -> list[Stored]:
        return [stored for stored in self.frames if stored.camera == camera]

    def living(self, camera: str) -> list[Stored]:
        return [stored for stored in self.of(camera) if stored.there]

    def frame(self, stored: Stored) -> Frame:
        return frame(stored, self.vhost, self.prefix)


@st.composite
def camera_frames(draw: st.DrawFn, camera: str) -> list[Stored]:
    unix_nano = T0 + draw(gaps)
    sequence = draw(st.sampled_from((1, 500, 99_996, 99_999)))
    drawn = st.tuples(gaps, st.integers(1, 3), st.binary(max_size=6), st.integers(0, 3))
    frames = []
    # Lists of a drawn length: left to themselves they are short, and what is short crosses no border.
    count = draw(st.integers(0, 14))
    for gap, steps, payload, there in draw(st.lists(drawn, min_size=count, max_size=count)):
        frames.append(Stored(camera, unix_nano, sequence, payload, there > 0))
        following = keys.sequence_after(sequence, steps)
        # Within one instant the journal takes rising numbers only.
        unix_nano += gap if following > sequence else max(gap, 1)
        sequence = following
    return frames


@st.composite
def worlds(draw: st.DrawFn) -> World:
    cameras = draw(st.lists(camera_names, min_size=1, max_size=3, unique=True))
    frames = sorted(itertools.chain.from_iterable(draw(camera_frames(camera)) for camera in cameras))
    return World(
        draw(vhost_names),
        draw(prefix_names),
        cameras,
        sorted(frames, key=lambda stored: (stored.unix_nano, stored.sequence)),
        draw(st.sampled_from((1, 2, 3, 5, 1000))),
        draw(st.sampled_from((1, 2, 256))),
        draw(st.sampled_from((1, 7, 4 * 2**20))),
    )


#: A moment near the frames, or none.
moments = st.none() | st.builds(int.__add__, st.just(T0 - 1), st.integers(0, 4) | gaps | st.integers(0, 200 * 10**9))
steps = st.none() | st.sampled_from((1, 2, 1000, 10**6, 10**9, 60 * 10**9, 10**12))


@contextmanager
def stocked(server: RedisServer, kind: Any, world: World, **options: Any) -> Iterator[AnyStore]:
    with pytest.MonkeyPatch.context() as patch, server.client() as client:
        for module in (range_reader, tail_reader, stats_queries):
            patch.setattr(module, "ENTRIES_MAX", world.entries_max)
        patch.setattr(payloads, "_FRAMES_MAX", world.frames_max)
        patch.setattr(queries, "_GETS_MAX", world.frames_max)
        patch.setattr(stores, "TAIL_BLOCK_MS", 1)
        client.flushall()
        listed = dict.fromkeys(world.cameras, STATUS)
        stock(client, world.frames, vhost=world.vhost, prefix=world.prefix, cameras=listed)
        with kind(server.address, world.vhost, world.prefix, chunk_bytes=world.chunk_bytes, **options) as store:
            yield store


def window(frames: list[Stored], start: int | None, end: int | None) -> list[Stored]:
    return [
        stored
        for stored in frames
        if (start is None or start <= stored.unix_nano) and (end is None or stored.unix_nano <= end)
    ]


def thinned(living: list[Stored], step: int, start: int | None, end: int | None, reverse: bool) -> list[Stored]:
    """Of each span of ``step`` the first of ``living``, which are in the order in which they are met."""
    begin = end if reverse else start
    if begin is None:
        begin = living[0].unix_nano if living else 0
    spans: dict[int, Stored] = {}
    for stored in living:
        spans.setdefault(abs(stored.unix_nano - begin) // step, stored)
    return list(spans.values())


def property_test(test: Callable[..., None]) -> Any:
    """20 worlds, for each store, and for one server and a cluster."""
    given_ = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])(test)
    return pytest.mark.parametrize("kind", STORES, ids=["FrameStore", "AsyncFrameStore"])(given_)


@property_test
@given(world=worlds(), whens=st.lists(moments.filter(bool), max_size=6))
def test_latest_and_at_are_the_last_living_frame_up_to_then(shared_redis, kind, world, whens):
    with stocked(shared_redis, kind, world) as store:
        for camera in world.cameras:
            living = world.living(camera)
            assert store.latest(camera) == (world.frame(living[-1]) if living else None)
            for when in [*whens, *(stored.unix_nano for stored in world.of(camera)[:4])]:
                until = window(living, None, when)
                assert store.at(camera, when) == (world.frame(until[-1]) if until else None)


@property_test
@given(world=worlds(), data=st.data())
def test_keys_bring_their_frames_in_the_order_asked(shared_redis, kind, world, data):
    strangers = [Stored(camera, T0 - 10, 7, b"", False) for camera in [*world.cameras, "never heard of"]]
    chosen = data.draw(st.lists(st.sampled_from([*world.frames, *strangers]), max_size=20))
    expected = [world.frame(stored) if stored.there else None for stored in chosen]
    asked: list[str | bytes] = [world.frame(stored).key for stored in chosen]
    asked[::2] = [str(key).encode() for key in asked[::2]]
    with stocked(shared_redis, kind, world) as store:
        assert store.get_many(iter(asked)) == expected
        assert [store.get(key) for key in asked] == expected


class Range(NamedTuple):
    start: int | None
    end: int | None
    limit: int | None
    step: int | None
    reverse: bool

    def options(self) -> dict[str, Any]:
        # As text: an int of so few nanoseconds is taken for a slip.
        step = None if self.step is None else f"{self.step}ns"
        return {"limit": self.limit, "step": step, "reverse": self.reverse}


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    start, end = draw(st.none() | moments), draw(st.none() | moments)
    if start and end:
        start, end = sorted((start, end))
    return Range(start, end, draw(st.none() | st.integers(0, 9)), draw(steps), draw(st.booleans()))


@property_test
@given(world=worlds(), asked=st.lists(ranges(), min_size=3, max_size=3))
def test_ranges_are_the_living_frames_between(shared_redis, kind, world, asked):
    with stocked(shared_redis, kind, world) as store:
        for camera, one in itertools.product(world.cameras, asked):
            met = window(world.of(camera), one.start, one.end)[:: -1 if one.reverse else 1]
            living = [stored for stored in met if stored.there]
            whole = living if one.step is None else thinned(living, one.step, one.start, one.end, one.reverse)
            wanted = whole[: one.limit]
            gone = [number for number, stored in enumerate(met) if not stored.there]
            if one.limit is None:
                missing_min = len(gone)
            else:
                # It may have looked ahead.
                missing_min = sum(number < met.index(wanted[-1]) for number in gone) if wanted else 0
            frames = store.range(camera, one.start, one.end, **one.options())
            assert list(frames) == [world.frame(stored) for stored in wanted]
            assert missing_min <= frames.missing <= len(gone)
            assert next(frames, None) is None
            entries = store.entries(camera, one.start, one.end, **one.options())
            assert list(entries) == [entry_of(world.frame(stored)) for stored in wanted]
            assert missing_min <= entries.missing <= len(gone)
            assert frames.unreadable == entries.unreadable == 0


def entry_of(one: Frame) -> FrameEntry:
    fields = FrameEntry.__struct_fields__
    return FrameEntry(**{name: getattr(one, name) for name in fields})


@property_test
@given(world=worlds(), data=st.data(), start=moments, end=moments, bucket=st.sampled_from((10**9, 7 * 10**9, 10**12)))
def test_counts_and_rates_are_those_of_the_living_frames(shared_redis, kind, world, data, start, end, bucket):
    camera = data.draw(st.sampled_from(world.cameras))
    if start and end:
        start, end = sorted((start, end))
    living = window(world.living(camera), start, end)
    buckets = []
    if living:
        first, last = living[0].unix_nano // bucket, living[-1].unix_nano // bucket
        for begin in range(first * bucket, last * bucket + 1, bucket):
            sizes = [len(stored.payload) for stored in living if begin <= stored.unix_nano < begin + bucket]
            mean = sum(sizes) / len(sizes) if sizes else 0.0
            buckets.append(Bucket(begin, len(sizes), sum(sizes), mean))
    with stocked(shared_redis, kind, world) as store:
        assert store.count(camera, start, end) == len(living)
        assert store.rate(camera, start, end, bucket) == buckets


@property_test
@given(world=worlds(), known=st.lists(camera_names, max_size=2))
def test_snapshot_and_cameras_are_of_all_cameras(shared_redis, kind, world, known):
    newest = {camera: world.frame(world.living(camera)[-1]) for camera in world.cameras if world.living(camera)}
    states = {camera: CameraStatus() for camera in known} | dict.fromkeys(world.cameras, STATUS)
    with stocked(shared_redis, kind, world, cameras=known) as store:
        for _ in ("not met yet", "met"):
            found = store.snapshot()
            assert found == newest
            assert list(found) == sorted(newest)
        cameras = store.cameras()
        assert cameras == states
        assert list(cameras) == sorted(states)


@property_test
@given(world=worlds())
def test_stats_are_of_all_living_frames(shared_redis, kind, world):
    def plain(stored: list[Stored]) -> CameraStats:
        living = sorted(one.unix_nano for one in stored if one.there)
        size = sum(len(one.payload) for one in stored if one.there)
        oldest, newest = (living[0], living[-1]) if living else (0, 0)
        mean = TTL_MS / 1000 if living else None
        return CameraStats(len(living), size, oldest, newest, mean, 0, len(stored) - len(living))

    def assert_same(stats: CameraStats, expected: CameraStats) -> None:
        for name in CameraStats.__struct_fields__:
            one, other = getattr(stats, name), getattr(expected, name)
            # Lifetimes run on while we ask.
            assert one == (other if name != "mean_ttl_seconds" or other is None else pytest.approx(other, rel=0.2))

    with stocked(shared_redis, kind, world) as store:
        stats = store.stats()
    assert (stats.vhost, stats.prefix) == (world.vhost, world.prefix)
    assert_same(stats.total, plain(world.frames))
    assert stats.cameras.keys() == set(world.cameras)
    for camera in world.cameras:
        assert_same(stats.cameras[camera], plain(world.of(camera)))


def drained(tail: Any, count: int) -> list[Any]:
    """The next ``count``; and then nothing is left."""
    found = list(itertools.islice(tail, count))
    assert tail.poll() is None
    return found


def by_camera(found: list[Any]) -> dict[str, list[Any]]:
    return {camera: [one for one in found if one.camera == camera] for camera in {one.camera for one in found}}


@property_test
@given(world=worlds(), data=st.data(), since=moments.filter(bool) | st.just(0), every=st.booleans())
def test_a_tail_brings_all_living_frames_since_then(shared_redis, kind, world, data, since, every):
    chosen = world.cameras if every else data.draw(st.lists(st.sampled_from(world.cameras), min_size=1, unique=True))
    met = [stored for stored in window(world.frames, since, None) if stored.camera in chosen]
    expected = [world.frame(stored) for stored in met if stored.there]
    with stocked(shared_redis, kind, world) as store:
        tail = store.tail(None if every else chosen, since)
        assert by_camera(drained(tail, len(expected))) == by_camera(expected)
        # What poll() saw behind the last frame may have been a chunk of gone ones.
        for _ in met:
            if tail.missing < len(met) - len(expected):
                assert tail.poll() is None
        assert tail.missing == len(met) - len(expected)
        entries = store.tail_entries(None if every else chosen, since)
        assert by_camera(drained(entries, len(expected))) == by_camera([entry_of(one) for one in expected])


@property_test
@given(world=worlds(), data=st.data(), since=moments.filter(bool), payload=st.booleans())
def test_a_tail_s_position_resumes_behind_what_was_taken(shared_redis, kind, world, data, since, payload):
    expected = [world.frame(stored) for stored in window(world.frames, since, None) if stored.there]
    taken_first = data.draw(st.integers(0, len(expected)))
    with stocked(shared_redis, kind, world) as store:
        follow = store.tail if payload else store.tail_entries
        tail = follow(None, since)
        first = list(itertools.islice(tail, taken_first))
        # Before anything was asked there is no position yet: the tail begins where it was to begin.
        resumed = follow(None, tail.position or since)
        rest = drained(resumed, len(expected) - len(first))
    if not payload:
        expected = [entry_of(one) for one in expected]
    assert by_camera(first + rest) == by_camera(expected)


def test_a_tail_without_a_beginning_brings_what_comes_from_now_on(store, client):
    old, new = row("cam1", 3), row("cam1", 3, first=T0 + 10**12)
    stock(client, old)
    tail = store.tail()
    assert tail.poll() is None
    stock(client, new)
    assert list(itertools.islice(tail, 3)) == [frame(stored) for stored in new]


@pytest.mark.parametrize("met_before", [False, True], ids=["first camera", "another camera"])
def test_a_camera_that_comes_while_a_tail_runs_is_tailed_from_its_first_frame(store, client, monkeypatch, met_before):
    monkeypatch.setattr(tail_reader, "_CAMERAS_SECONDS", 0)
    if met_before:
        stock(client, row("cam1", 3))
    tail = store.tail()
    assert tail.poll() is None
    stock(client, row("cam2", 3))
    assert list(itertools.islice(tail, 3)) == [frame(stored) for stored in row("cam2", 3)]


def test_a_named_camera_that_has_nothing_yet_is_tailed_from_its_first_frame(open_store, shared_redis, client):
    store = open_store(shared_redis.address, cameras=["cam1"])
    tail = store.tail("cam1")
    assert tail.poll() is None
    stock(client, row("cam1", 3))
    assert list(itertools.islice(tail, 3)) == [frame(stored) for stored in row("cam1", 3)]


@pytest.mark.parametrize("what", ["range", "tail"])
def test_poll_finds_a_frame_behind_many_that_are_gone(store, client, monkeypatch, what):
    monkeypatch.setattr(range_reader if what == "range" else tail_reader, "ENTRIES_MAX", 4)
    gone = [stored._replace(there=False) for stored in row("cam1", 10)]
    last = Stored("cam1", T0 + 10**12, 11, b"there")
    stock(client, [*gone, last])
    items = store.range("cam1") if what == "range" else store.tail("cam1", 0)
    assert items.poll() == frame(last)
    assert items.missing == 10


def test_a_frame_that_no_journal_lists_is_still_found_by_its_key(store, client):
    (stored,) = row("cam1", 1)
    one = frame(stored)
    client.set(one.key, one.data)
    found = store.get(one.key)
    assert (found.data, found.size, found.encoding, found.width) == (one.data, one.size, "unknown", 0)
    assert found.key == one.key


def test_stats_count_frames_without_a_ttl_apart(store, client):
    stock(client, row("cam1", 4))
    client.persist(frame(row("cam1", 4)[0]).key)
    stats = store.stats().total
    assert (stats.frames, stats.without_ttl) == (4, 1)
    assert stats.mean_ttl_seconds == pytest.approx(TTL_MS / 1000, rel=0.2)


def test_tenants_and_prefixes_do_not_see_each_other(open_store, shared_redis, client):
    for vhost, prefix in itertools.product(("a", "a:frames", VHOST), ("frames", "other")):
        stock(client, [Stored("cam1", T0, 1, f"{vhost} {prefix}".encode())], vhost=vhost, prefix=prefix)
    for vhost, prefix in itertools.product(("a", "a:frames", VHOST), ("frames", "other")):
        store = open_store(shared_redis.address, vhost, prefix=prefix)
        assert store.latest("cam1").data == f"{vhost} {prefix}".encode()
        assert store.stats().total.frames == 1


@pytest.mark.parametrize("name", ["default", "", "/"])
def test_no_vhost_and_the_brokers_default_are_the_tenant_default(open_store, shared_redis, client, name):
    stock(client, row("cam1", 1), vhost="default")
    store = open_store(shared_redis.address, name)
    assert store.vhost == "default"
    assert store.latest("cam1") == frame(row("cam1", 1)[0], "default")


def test_a_range_is_an_iterator_that_tells_what_it_met(store, client):
    frames = row("cam1", 6)
    frames[2] = frames[2]._replace(there=False)
    stock(client, frames)
    found = store.range("cam1")
    assert isinstance(found, Frames) or iter(found) is found
    assert [one.sequence for one in found] == [1, 2, 4, 5, 6]
    assert found.missing == 1
    assert found.position == {}


@pytest.mark.one_server
def test_redis_is_asked_nothing_before_the_first_question(open_store, redis_server):
    redis_server.stop()
    open_store(redis_server.address).range("cam1")


def test_valkey_answers_the_same(open_store, short_path):
    with RedisServer(short_path / "valkey", binary="valkey", unix=True) as server, server.client() as client:
        frames = row("cam1", 5)
        stock(client, frames)
        store = open_store(server.address)
        expected = [frame(stored) for stored in frames]
        assert list(store.range("cam1")) == list(itertools.islice(store.tail(since=0), 5)) == expected
        assert store.snapshot() == {"cam1": expected[-1]}
        assert (store.count("cam1"), store.stats().total.frames) == (5, 5)


def test_a_site_file_names_server_tenant_prefix_and_cameras(shared_redis, client, tmp_path):
    site = tmp_path / "site.toml"
    site.write_text(
        f'[redis]\naddress = "{shared_redis.address}"\nprefix = "pictures"\n'
        '[amqp]\namqp_url = "amqp://u:p@127.0.0.1:1/my%3Ashop"\n'
        '[[cameras]]\nid = "cam1"\nurl = "test://"\n[[cameras]]\nid = "cam2"\nurl = "test://"\n'
    )
    stock(client, row("cam1", 2), vhost="my:shop", prefix="pictures")
    from engine import FrameStore

    with FrameStore.from_site(site) as store:
        assert store.latest("cam1") == frame(row("cam1", 2)[1], "my:shop", "pictures")
        assert store.latest("cam2") is None
        assert list(store.cameras()) == ["cam1", "cam2"]


def test_a_client_of_the_page_s_recipes_finds_the_same_keys(store, client: redis.Redis):
    stock(client, row("cam1", 5))
    assert sorted(key.decode() for key in client.scan_iter(f"{VHOST}:frames:*")) == [
        entry.key for entry in store.entries("cam1")
    ]
