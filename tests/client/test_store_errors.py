"""Questions that cannot be, other things under our names, and servers that are away, refuse or stand still."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
import redis
from redis._parsers.base import BaseParser

from engine import AsyncFrameStore, FrameStore
from engine.client import ranges, tail
from engine.client.async_cluster_pool import AsyncClusterPool, AsyncNodeConnections
from engine.errors import (
    ConfigError,
    EngineError,
    InputError,
    QueryError,
    RedisUnavailable,
    ServerRefused,
    UnknownName,
    WireError,
)
from engine.servers.redis import patience
from engine.servers.redis.cluster_connections import NodeConnections
from engine.servers.redis.errors import checked
from engine.servers.redis.patience import TRIES
from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_fields
from engine.wire.keys import FrameKey, build_frame_key
from engine.wire.redis_address import parse_redis_address
from engine.wire.state import CameraStatus
from tests.client.stocked import PREFIX, STORES, T0, VHOST, AnyStore, frame, row, stock
from tests.servers.cluster_client import (
    CLUSTER,
    AnyClient,
    AnyServer,
    ClusterClient,
    ReadCluster,
    connections,
    owner,
    servers,
)
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until

JOURNAL = keys.journal_key(VHOST, PREFIX, "cam1")
CAMERAS = keys.cameras_key(VHOST, PREFIX)
NAIVE = datetime.datetime(2024, 11, 8, 14, 30)
GOOD_FIELDS = entry_fields(JournalEntry(T0, 1, 5, 64, 48, "jpeg", True))

#: Every question about one camera.
ABOUT_A_CAMERA: dict[str, Callable[[Any, str], Any]] = {
    "latest": lambda store, camera: store.latest(camera),
    "at": lambda store, camera: store.at(camera, T0),
    "range": lambda store, camera: list(store.range(camera)),
    "entries": lambda store, camera: list(store.entries(camera)),
    "count": lambda store, camera: store.count(camera),
    "rate": lambda store, camera: store.rate(camera),
    "tail": lambda store, camera: store.tail(camera).poll(),
    "tail_entries": lambda store, camera: store.tail_entries([camera]).poll(),
}
about_a_camera = pytest.mark.parametrize("ask", ABOUT_A_CAMERA.values(), ids=ABOUT_A_CAMERA.keys())
#: Every question that takes a time.
WITH_A_TIME: dict[str, Callable[[Any, Any], Any]] = {
    "at": lambda store, when: store.at("cam1", when),
    "range from": lambda store, when: store.range("cam1", when),
    "range to": lambda store, when: store.range("cam1", None, when),
    "entries from": lambda store, when: store.entries("cam1", when),
    "count to": lambda store, when: store.count("cam1", end=when),
    "rate from": lambda store, when: store.rate("cam1", when),
    "tail": lambda store, when: store.tail("cam1", when),
    "tail_entries": lambda store, when: store.tail_entries(None, when),
}
with_a_time = pytest.mark.parametrize("ask", WITH_A_TIME.values(), ids=WITH_A_TIME.keys())
#: Every question there is.
ALL = {
    **{name: lambda store, ask=ask: ask(store, "cam1") for name, ask in ABOUT_A_CAMERA.items()},
    "get": lambda store: store.get(frame(row("cam1", 1)[0]).key),
    "snapshot": lambda store: store.snapshot(),
    "cameras": lambda store: store.cameras(),
    "stats": lambda store: store.stats(),
    "tail of all": lambda store: store.tail(since=0).poll(),
}
all_questions = pytest.mark.parametrize("ask", ALL.values(), ids=ALL.keys())


class TestNames:
    @about_a_camera
    def test_an_unknown_camera_is_refused_with_the_nearest_name(self, store, client, ask):
        stock(client, [*row("cam1", 2), *row("entrance", 2)])
        with pytest.raises(UnknownName, match=r"'entrence' in tenant 'loja'; did you mean 'entrance'\?"):
            ask(store, "entrence")

    def test_where_no_name_is_near_the_known_ones_are_listed(self, store, client):
        stock(client, [*row("cam1", 2), *row("cam2", 2)])
        with pytest.raises(UnknownName, match="known are cam1, cam2"):
            store.latest("xyz")

    def test_a_camera_of_the_site_file_is_near_too(self, open_store, shared_redis, client):
        with pytest.raises(UnknownName, match="did you mean 'entrance'"):
            open_store(shared_redis.address, cameras=["entrance"]).latest("entrence")

    @about_a_camera
    def test_a_tenant_without_anything_is_named(self, open_store, shared_redis, client, ask):
        stock(client, row("cam1", 2))
        with pytest.raises(UnknownName, match="nothing is stored for tenant 'shop' under prefix 'frames'"):
            ask(open_store(shared_redis.address, "shop"), "cam1")

    @pytest.mark.parametrize("how", ["configured", "in the hash", "with a journal only"])
    def test_a_known_camera_without_frames_has_none(self, open_store, shared_redis, client, how):
        gone = [stored._replace(there=False) for stored in row("cam1", 3)]
        stock(client, gone if how == "with a journal only" else [], cameras={"cam1": CameraStatus()})
        if how != "in the hash":
            client.delete(CAMERAS)
        store = open_store(shared_redis.address, cameras=["cam1"] if how == "configured" else [])
        assert store.latest("cam1") is store.at("cam1", "now") is None
        assert list(store.range("cam1")) == list(store.entries("cam1")) == store.rate("cam1") == []
        assert store.count("cam1") == 0
        assert store.tail("cam1", 0).poll() is None
        assert store.snapshot() == {}
        assert list(store.cameras()) == ([] if how == "with a journal only" else ["cam1"])

    def test_a_tenant_without_anything_has_an_empty_snapshot_and_no_cameras(self, store, client):
        assert (store.snapshot(), store.cameras()) == ({}, {})
        assert store.stats().total.frames == 0
        assert store.tail().poll() is None

    @pytest.mark.parametrize(("camera", "part"), [("", "empty"), ("\ud800", "surrogates")])
    @about_a_camera
    def test_what_no_key_can_hold_is_no_camera(self, store, ask, camera, part):
        with pytest.raises(QueryError, match=f"camera: .*{part}"):
            ask(store, camera)

    @pytest.mark.parametrize("camera", [None, 7, b"cam1"])
    @pytest.mark.parametrize("name", [name for name in ABOUT_A_CAMERA if name != "tail"])
    def test_what_is_no_text_is_no_camera(self, store, name, camera):
        with pytest.raises(QueryError, match=f"camera: {camera!r} is no text"):
            ABOUT_A_CAMERA[name](store, camera)

    def test_a_tail_of_no_cameras_is_refused(self, store):
        with pytest.raises(QueryError, match="no cameras to tail"):
            store.tail([])

    @pytest.mark.parametrize("options", [{"prefix": ""}, {"prefix": "\ud800"}, {"vhost": "\ud800"}])
    def test_a_tenant_that_no_key_can_hold_is_refused(self, open_store, options):
        with pytest.raises(QueryError, match=next(iter(options))):
            open_store("127.0.0.1:1", **{"vhost": VHOST, **options})

    def test_a_configured_camera_that_no_key_can_hold_is_refused(self, open_store):
        with pytest.raises(QueryError, match="empty"):
            open_store("127.0.0.1:1", cameras=["cam1", ""])

    def test_unknown_names_are_lookup_errors_and_refused_questions_are_value_errors(self, store, client):
        with pytest.raises(LookupError):
            store.latest("nobody")
        with pytest.raises(ValueError, match="empty"):
            store.latest("")


@pytest.mark.one_server
class TestQuestions:
    """Refused before a server is asked."""

    @with_a_time
    @pytest.mark.parametrize(
        ("when", "part"),
        [
            (NAIVE, "naive"),
            (1731076200.5, "1731076200.5"),
            (1731076200, "seconds"),
            (1731076200123, "milliseconds"),
            (1731076200123456, "microseconds"),
            (-1, "-1"),
            (True, "True"),
            ("yesterday", "yesterday"),
            ("2024-11-08T14:30:00", "time zone"),
            (b"now", "now"),
        ],
    )
    def test_a_time_that_could_mean_anything_is_refused(self, store, ask, when, part):
        with pytest.raises(QueryError, match=part):
            ask(store, when)

    @pytest.mark.parametrize("method", ["range", "entries", "count", "rate"])
    def test_a_reversed_range_is_refused(self, store, method):
        with pytest.raises(QueryError, match=f"reversed: its end {T0} is before its start {T0 + 1}"):
            getattr(store, method)("cam1", T0 + 1, T0)

    @pytest.mark.parametrize("method", ["range", "entries"])
    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ({"limit": -1}, "limit -1"),
            ({"limit": 2.5}, r"limit 2\.5"),
            ({"limit": "3"}, "limit '3'"),
            ({"step": 0}, "duration 0"),
            ({"step": "0s"}, "duration '0s'"),
            ({"step": -5}, "duration -5"),
            ({"step": 1.5}, r"duration 1\.5"),
            ({"step": "5 parsecs"}, "parsecs"),
        ],
        ids=str,
    )
    def test_a_limit_or_step_that_cannot_be_is_refused(self, store, client, method, options, part):
        stock(client, row("cam1", 3))
        with pytest.raises(QueryError, match=part):
            list(getattr(store, method)("cam1", **options))

    def test_limit_0_brings_nothing(self, store, client):
        stock(client, row("cam1", 3))
        assert list(store.range("cam1", limit=0)) == []

    def test_a_bucket_that_makes_too_many_is_refused(self, store, client):
        stock(client, row("cam1", 2))
        with pytest.raises(QueryError, match="bucket '100ns' makes 10,000,001 buckets"):
            store.rate("cam1", bucket="100ns")

    @pytest.mark.parametrize("bucket", [0, "0m", -1, None, 1.0, "often"])
    def test_a_bucket_without_length_is_refused(self, store, client, bucket):
        stock(client, row("cam1", 2))
        with pytest.raises(QueryError, match="duration"):
            store.rate("cam1", bucket=bucket)

    @pytest.mark.parametrize(
        ("key", "part"),
        [
            ("loja:frames:cam1", "3 parts"),
            ("loja:frames:cam1:1731024000123456789:00001:x", "6 parts"),
            ("loja:frames:cam1:17310240001234567890:00001", "unix_nano"),
            ("loja:frames:cam1:1731024000123456789:1", "sequence"),
            ("loja:frames:cam1:1731024000123456789:00000", "sequence"),
            ("loja:frames::1731024000123456789:00001", "key part ''"),
            ("loja:frames:%3a:1731024000123456789:00001", "key part '%3a'"),
            (b"loja:frames:\xff:1731024000123456789:00001", "UTF-8"),
            ("frames:loja:cam4:2024-11-08T14:30:00Z:00001", "parts"),
            ("", "1 parts"),
        ],
    )
    def test_a_malformed_key_is_refused_and_its_part_named(self, store, key, part):
        with pytest.raises(QueryError, match=part):
            store.get(key)
        with pytest.raises(QueryError, match=part):
            store.get_many([frame(row("cam1", 1)[0]).key, key])

    @pytest.mark.parametrize("key", [None, T0, frame(row("cam1", 1)[0])], ids=["None", "time", "frame"])
    def test_what_is_no_text_is_no_key(self, store, key):
        with pytest.raises(QueryError, match="key"):
            store.get(key)

    @pytest.mark.parametrize(("vhost", "prefix"), [("shop", "frames"), ("loja", "pictures")])
    def test_a_key_of_another_tenant_or_prefix_is_refused(self, store, vhost, prefix):
        key = build_frame_key(FrameKey(vhost, prefix, "cam1", T0, 1))
        with pytest.raises(QueryError, match=rf"tenant '{vhost}' and prefix '{prefix}'.* reads 'loja' and 'frames'"):
            store.get(key)

    @pytest.mark.parametrize("position", [{"cam1": "yesterday"}, {"cam1": ""}, {"cam1": 7.5}], ids=str)
    def test_a_position_that_no_tail_had_is_refused(self, store, client, position):
        stock(client, row("cam1", 2))
        with pytest.raises(QueryError, match="position"):
            store.tail("cam1", position).poll()

    def test_chunks_of_no_bytes_are_refused(self, open_store):
        with pytest.raises(QueryError, match="chunk_bytes 0"):
            open_store("127.0.0.1:1", chunk_bytes=0)

    @pytest.mark.parametrize(
        ("address", "error"), [("embedded", QueryError), ("http://x", ConfigError), ("", ConfigError)]
    )
    def test_an_address_that_cannot_be_is_refused(self, open_store, address, error):
        with pytest.raises(error):
            open_store(address)


class TestOtherThingsUnderOurNames:
    @pytest.mark.parametrize("kind", ["string", "list", "hash"])
    @about_a_camera
    def test_a_journal_of_another_type_is_named(self, open_store, shared_redis, client, ask, kind):
        stock(client, [], cameras={"cam1": CameraStatus()})
        put(client, kind, JOURNAL)
        with pytest.raises(WireError, match=f"{shared_redis.address}.*(key '{JOURNAL}'|journal)"):
            ask(open_store(shared_redis.address), "cam1")

    @pytest.mark.parametrize("ask", [ALL[name] for name in ("snapshot", "cameras", "stats", "tail of all")])
    def test_a_cameras_hash_of_another_type_is_named(self, store, shared_redis, client, ask):
        put(client, "string", CAMERAS)
        with pytest.raises(WireError, match=f"{shared_redis.address}.*{CAMERAS}"):
            ask(store)

    def test_a_frame_of_another_type_is_passed_over(self, store, client):
        frames = row("cam1", 3)
        stock(client, [frames[0], *(stored._replace(there=False) for stored in frames[1:])])
        for stored in frames[1:]:
            put(client, "list", frame(stored).key)
        assert store.latest("cam1") == store.at("cam1", "now") == frame(frames[0])
        assert store.snapshot() == {"cam1": frame(frames[0])}
        assert store.get_many([frame(stored).key for stored in frames]) == [frame(frames[0]), None, None]
        found = store.range("cam1")
        assert list(found) == [frame(frames[0])]
        assert found.missing == 2
        tail = store.tail("cam1", 0)
        assert next(tail) == frame(frames[0])

    @pytest.mark.parametrize("items", ["range", "entries", "tail", "tail_entries"])
    def test_entries_that_the_engine_did_not_write_are_counted_and_passed_over(self, store, client, items):
        client.xadd(JOURNAL, {"s": "5"}, id="1-1")
        client.xadd(JOURNAL, {"hello": "world"}, id=f"{T0 - 1}-1")
        stock(client, row("cam1", 3))
        client.xadd(JOURNAL, fields(GOOD_FIELDS), id=f"{T0 + 10**12}-0")
        client.xadd(JOURNAL, fields(GOOD_FIELDS), id=f"{T0 + 10**12}-100000")
        client.xadd(JOURNAL, {**fields(GOOD_FIELDS), "s": "many"}, id=f"{T0 + 10**12 + 1}-1")
        client.xadd(JOURNAL, {"a": b"\xff" * 100}, id=f"{2**64 - 1}-{2**64 - 1}")
        found = store.tail("cam1", 0) if items == "tail" else None
        found = found or (store.tail_entries("cam1", 0) if items == "tail_entries" else getattr(store, items)("cam1"))
        assert [one.sequence for one in itertools.islice(found, 3)] == [1, 2, 3]
        if items in ("range", "entries"):
            assert next(found, None) is None
        assert (found.unreadable, found.missing) == (6, 0)
        assert store.latest("cam1").sequence == 3
        assert store.count("cam1") == store.stats().total.frames == 3

    @pytest.mark.parametrize("identifier", ["5-1", f"{2**64 - 1}-99999"])
    @pytest.mark.parametrize(
        "ask",
        [
            *(ABOUT_A_CAMERA[name] for name in ("latest", "range", "entries", "count", "rate")),
            ALL["snapshot"],
            ALL["stats"],
        ],
        ids=["latest", "range", "entries", "count", "rate", "snapshot", "stats"],
    )
    def test_an_entry_whose_time_no_key_can_hold_is_passed_over(self, store, client, ask, identifier):
        early = int(identifier.partition("-")[0]) < T0
        if early:
            client.xadd(JOURNAL, fields(GOOD_FIELDS), id=identifier)
        stock(client, row("cam1", 3))
        if not early:
            client.xadd(JOURNAL, fields(GOOD_FIELDS), id=identifier)
        expected = frame(row("cam1", 3)[-1])
        answer = ask(store, "cam1") if ask in ABOUT_A_CAMERA.values() else ask(store)
        if isinstance(answer, list) and answer and hasattr(answer[0], "key"):
            assert [one.sequence for one in answer] == [1, 2, 3]
        elif isinstance(answer, dict):
            assert answer == {"cam1": expected}
        elif hasattr(answer, "total"):
            assert answer.total.frames == 3
        elif isinstance(answer, int):
            assert answer == 3
        elif not isinstance(answer, list):
            assert answer == expected

    def test_a_full_chunk_that_ends_with_the_last_id_of_all_ends_the_walk(self, store, client, monkeypatch):
        """No id can follow that one, and asking for what does is an error."""
        monkeypatch.setattr(ranges, "ENTRIES_MAX", 4)
        stock(client, row("cam1", 3))
        client.xadd(JOURNAL, {"a": "b"}, id=f"{2**64 - 1}-{2**64 - 1}")
        assert [one.sequence for one in store.range("cam1")] == [1, 2, 3]
        assert store.count("cam1") == 3

    def test_names_and_states_that_the_engine_did_not_write_stop_nobody(self, store, client):
        stock(client, row("cam1", 3))
        client.hset(
            CAMERAS, mapping={b"\xff\xfe": b"{}", "cam2": b"junk \xff", "cam3": b"", "cam4": b'{"state":"asleep"}'}
        )
        cameras = store.cameras()
        assert [name for name in cameras if name.isascii()] == ["cam1", "cam2", "cam3", "cam4"]
        assert cameras["cam2"] == cameras["cam3"] == cameras["cam4"] == CameraStatus()
        for _ in ("not met yet", "met"):
            assert list(store.snapshot()) == ["cam1"]
        assert store.stats().total.frames == 3
        assert [one.sequence for one in itertools.islice(store.tail(since=0), 3)] == [1, 2, 3]
        with pytest.raises(UnknownName, match="did you mean 'cam"):
            store.latest("cam")

    def test_an_empty_name_in_the_cameras_hash_stops_nobody(self, store, client):
        stock(client, row("cam1", 3))
        client.hset(CAMERAS, "", b"{}")
        assert "cam1" in store.cameras()
        assert list(store.snapshot()) == ["cam1"]
        assert store.stats().total.frames == 3
        assert [one.sequence for one in itertools.islice(store.tail(since=0), 3)] == [1, 2, 3]


def put(client: redis.Redis, kind: str, key: str) -> None:
    client.delete(key)
    if kind == "string":
        client.set(key, "x")
    elif kind == "list":
        client.rpush(key, "x")
    else:
        client.hset(key, "x", "y")


def fields(flat: tuple[bytes, ...]) -> dict[bytes, bytes]:
    return dict(zip(flat[0::2], flat[1::2], strict=True))


SECRET = "pa:ss/wörd"


class TestServersThatRefuse:
    @all_questions
    @pytest.mark.parametrize("login", ["wrong", "none"])
    def test_wrong_credentials_are_refused_without_showing_them(self, open_store, guarded, ask, login):
        wrong = guarded.url.replace(quote(SECRET, safe=""), quote("not " + SECRET, safe=""))
        store = open_store(wrong if login == "wrong" else guarded.address)
        with pytest.raises(ServerRefused, match="credentials") as caught:
            ask(store)
        shown = f"{caught.value}{caught.value!r}{caught.value.__cause__}{store!r}"
        assert SECRET not in shown
        assert quote(SECRET, safe="") not in shown

    @pytest.mark.parametrize("login", ["wrong", "none"])
    def test_the_server_that_refuses_the_credentials_is_named(self, open_store, guarded, login):
        wrong = guarded.url.replace(quote(SECRET, safe=""), "wrong")
        with pytest.raises(ServerRefused, match=guarded.address):
            open_store(wrong if login == "wrong" else guarded.address).latest("cam1")

    def test_the_right_password_opens(self, open_store, guarded):
        with guarded.client() as client:
            client.flushall()
            stock(client, row("cam1", 1))
        assert open_store(guarded.url).latest("cam1") == frame(row("cam1", 1)[0])

    @all_questions
    def test_a_user_without_the_right_to_read_is_refused_with_the_command(self, open_store, shared_redis, client, ask):
        stock(client, row("cam1", 1))
        set_user(client, "blind", "~*", "+ping", "+select")
        store = open_store(address_of(shared_redis, "blind"))
        with pytest.raises(
            ServerRefused, match=f"{shared_redis.address} does not permit [A-Z]+ to this user"
        ) as caught:
            ask(store)
        assert "secret" not in str(caught.value)

    def test_a_user_who_may_read_only_needs_nothing_more(self, open_store, shared_redis, client):
        stock(client, row("cam1", 1))
        set_user(client, "reader", f"~{VHOST}:*", f"~engine:{VHOST}:*", "-@all", "+@read", "+ping")
        store = open_store(address_of(shared_redis, "reader"))
        for ask in ALL.values():
            ask(store)

    @pytest.mark.one_server
    def test_a_database_that_the_server_does_not_have_is_named(self, open_store, shared_redis):
        with pytest.raises(EngineError, match=f"{shared_redis.address}.*DB index"):
            open_store(f"redis://{shared_redis.address}/99").latest("cam1")


def set_user(client: AnyClient, name: str, *rules: str) -> None:
    """A user with the password "secret", on every server. In a cluster it may also ask where slots are."""
    known = ["+cluster|slots"] if isinstance(client, ClusterClient) else []
    for server in servers(client):
        server.execute_command("ACL", "SETUSER", name, "reset", "on", ">secret", *rules, *known)


def address_of(server: AnyServer, user: str) -> str:
    """The URL for a user of ``set_user``."""
    scheme, _, hosts = server.address.rpartition("://")
    return f"{scheme or 'redis'}://{user}:secret@{hosts}"


@pytest.fixture(scope="module")
def guarded(redis_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyServer]:
    kind = ReadCluster if redis_kind == CLUSTER else RedisServer
    with kind(tmp_path_factory.mktemp("guarded"), password=SECRET) as server:
        yield server


FEW = ("latest", "snapshot", "stats", "tail of all")
a_few_questions = pytest.mark.parametrize("ask", [ALL[name] for name in FEW], ids=FEW)


class TestServersThatAreAway:
    @pytest.fixture(autouse=True)
    def brief_pauses(self, monkeypatch):
        monkeypatch.setattr(patience, "_PAUSE_SECONDS", 0.001)

    def test_a_cluster_of_which_no_node_is_there_is_named_with_each(self, open_store):
        nodes = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        store = open_store(f"cluster://{','.join(nodes)}", timeout_seconds=0.05)
        for ask in ALL.values():
            with pytest.raises(RedisUnavailable, match=f"Redis at cluster://{','.join(nodes)}: no node says") as away:
                ask(store)
            assert all(f"Redis at redis://{node} cannot be reached" in str(away.value) for node in nodes)

    @pytest.mark.parametrize("address", ["127.0.0.1", "unix"])
    def test_a_server_that_is_not_there_is_named(self, open_store, tmp_path, address):
        address = f"unix://{tmp_path}/none.sock" if address == "unix" else f"127.0.0.1:{free_port()}"
        store = open_store(address)
        for ask in ALL.values():
            with pytest.raises(RedisUnavailable, match=f"Redis at .*{address} cannot be reached"):
                ask(store)

    @pytest.mark.one_server
    def test_a_server_restarted_between_two_questions_is_found_again(self, open_store, redis_server):
        store = open_store(redis_server.address)
        for generation in (1, 2, 3):
            with redis_server.client() as client:
                stock(client, row("cam1", generation))
            assert store.latest("cam1").sequence == generation
            assert store.count("cam1") == len(store.stats().cameras) * generation
            redis_server.restart()

    @pytest.mark.one_server
    def test_a_tail_outlives_a_restart(self, open_store, redis_server):
        store = open_store(redis_server.address)
        with redis_server.client() as client:
            stock(client, row("cam1", 3))
            tail = store.tail("cam1", 0)
            assert [one.sequence for one in itertools.islice(tail, 3)] == [1, 2, 3]
        redis_server.restart()
        with redis_server.client() as client:
            stock(client, row("cam1", 6))
            assert [one.sequence for one in itertools.islice(tail, 3)] == [4, 5, 6]

    # A node of a cluster is waited for once: test_cluster_hangs.py.
    @pytest.mark.one_server
    @a_few_questions
    def test_a_server_that_stands_still_is_waited_for(self, open_store, shared_redis, client, ask):
        stock(client, row("cam1", 3))
        store = open_store(shared_redis.address, timeout_seconds=0.2)
        expected = ask(store)
        with paused(shared_redis) as server:
            # The last try finds it at work again.
            on_try(store, TRIES, server.resume)
            answer = ask(store)
        if not hasattr(answer, "total"):
            assert answer == expected

    @a_few_questions
    def test_a_server_that_stands_still_for_longer_is_named(self, open_store, shared_redis, client, ask):
        stock(client, row("cam1", 3))
        store = open_store(shared_redis.address, timeout_seconds=0.1)
        ask(store)
        with paused(shared_redis) as server, pytest.raises(RedisUnavailable, match=f"Redis at .*{server.address}"):
            ask(store)
        answers_again(store)
        assert store.latest("cam1").sequence == 3

    @pytest.mark.parametrize("items", ["range", "tail", "entries", "tail_entries"])
    @pytest.mark.parametrize("trips", [1, 2, 3, 4])
    def test_an_iterator_asked_again_after_an_error_misses_nothing(
        self, open_store, shared_redis, client, monkeypatch, items, trips
    ):
        monkeypatch.setattr(tail if "tail" in items else ranges, "ENTRIES_MAX", 5)
        frames = row("cam1", 9)
        frames[1] = frames[1]._replace(there=False)
        stock(client, frames)
        store = open_store(shared_redis.address, timeout_seconds=0.05, chunk_bytes=12)
        found = getattr(store, items)("cam1", **({"since": 0} if "tail" in items else {}))
        server = owner(shared_redis, JOURNAL)
        on_try(store, trips + 1, server.pause)
        got: list[int] = []
        try:
            got.extend(one.sequence for one in itertools.islice(found, 8))
        except RedisUnavailable:
            server.resume()
            answers_again(store)
            # A tail that has lost some would wait for ever.
            for _ in range(30):
                if len(got) < 8 and (one := found.poll()):
                    got.append(one.sequence)
        finally:
            server.resume()
        assert got == [1, *range(3, 10)]
        assert found.missing == 1


@contextlib.contextmanager
def paused(shared: AnyServer) -> Iterator[RedisServer]:
    """The server stands still, or the node of a cluster that has cam1's journal."""
    server = owner(shared, JOURNAL)
    server.pause()
    try:
        yield server
    finally:
        server.resume()


def answers_again(store: AnyStore) -> None:
    """Wait until a store knows that its server answers. A silent node of a cluster is asked in the background."""

    def answers() -> bool:
        with contextlib.suppress(RedisUnavailable):
            return store.latest("cam1") is not None
        return False

    wait_until(answers, 30, "the server answers again", interval=0.01)


def on_try(store: AnyStore, number: int, do: Callable[[], None]) -> None:
    """Do something right before the store's ``number``-th try of a round trip from now on. For one thread."""
    transport: Any = getattr(store, "store", store)._transport
    tries, name = transport, "_once"
    if transport.address.cluster:
        tries, name = node_connections(transport), "_exchange"
    once, counter = getattr(tries, name), itertools.count(1)

    def counted(*arguments: Any) -> Any:
        if next(counter) == number:
            do()
        return once(*arguments)

    setattr(tries, name, counted)


def node_connections(transport: Any) -> Any:
    """The connections to a cluster's nodes that the next round trip uses."""
    pool = transport._nodes
    if not pool._idle:
        kind = AsyncNodeConnections if isinstance(pool, AsyncClusterPool) else NodeConnections
        pool._idle.append(kind(pool._state, transport._timeout_seconds))
    return pool._idle[-1]


def open_connections(store: FrameStore) -> list[Any]:
    """The connections of a store that one thread has asked."""
    transport: Any = store._transport
    if transport.address.cluster:
        return list(node_connections(transport)._open.values())
    return [transport._pool._connections[0]]


class TestInterruptions:
    def test_an_interrupted_question_leaves_no_replies_to_the_next(self, shared_redis, client):
        stock(client, [*row("cam1", 3), *row("cam2", 3)])

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        old = signal.signal(signal.SIGALRM, interrupt)
        try:
            with FrameStore(shared_redis.address, VHOST, cameras=["cam1", "cam2"]) as store:
                for ask in (lambda: store.latest("cam1"), store.snapshot, store.stats):
                    ask()
                    with paused(shared_redis):
                        signal.setitimer(signal.ITIMER_REAL, 0.05)
                        with pytest.raises(KeyboardInterrupt):
                            ask()
                    assert store.latest("cam2") == frame(row("cam2", 3)[-1])
                    assert store.count("cam2") == 3
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)

    def test_an_interruption_between_two_replies_leaves_none_to_the_next_question(
        self, shared_redis, client, monkeypatch
    ):
        """Interrupted outside of redis-py, which would close the connection by itself."""
        stock(client, [*row("cam1", 3), *row("cam2", 3)])
        with FrameStore(shared_redis.address, VHOST, cameras=["cam1", "cam2"]) as store:
            store.snapshot()
            opened, counter = open_connections(store), itertools.count(1)

            def interrupted(read: Callable[[], Any]) -> Any:
                if next(counter) == 2:
                    raise KeyboardInterrupt
                return read()

            for connection in opened:
                read = connection.read_response
                monkeypatch.setattr(connection, "read_response", partial(interrupted, read))
            with pytest.raises(KeyboardInterrupt):
                store.snapshot()
            assert not any(connection.is_connected for connection in opened)
            assert store.latest("cam2") == frame(row("cam2", 3)[-1])

    def test_a_cancelled_question_leaves_no_replies_to_the_next(self, shared_redis, client):
        stock(client, [*row("cam1", 3), *row("cam2", 3)])

        async def scenario() -> None:
            async with AsyncFrameStore(shared_redis.address, VHOST, cameras=["cam1", "cam2"]) as store:
                for ask in (lambda: store.latest("cam1"), store.snapshot, store.stats):
                    await ask()
                    with paused(shared_redis), pytest.raises(TimeoutError):
                        await asyncio.wait_for(ask(), 0.05)
                    assert await store.latest("cam2") == frame(row("cam2", 3)[-1])
                    assert await store.count("cam2") == 3

        asyncio.run(scenario())

    @pytest.mark.parametrize("trips", [1, 2, 3, 4])
    def test_a_cancelled_wait_for_the_next_frame_misses_none(self, shared_redis, client, trips):
        """``wait_for(anext(tail), …)`` is how asyncio waits with a limit."""
        stock(client, row("cam1", 6))
        server = owner(shared_redis, JOURNAL)

        async def scenario() -> list[int]:
            async with AsyncFrameStore(shared_redis.address, VHOST, chunk_bytes=12) as store:
                tail = store.tail("cam1", 0)
                on_try(store, trips, server.pause)
                got: list[int] = []
                for _ in range(6 + 6):
                    if len(got) == 6:
                        break
                    with contextlib.suppress(TimeoutError):
                        got.append((await asyncio.wait_for(anext(tail), 0.1)).sequence)
                        continue
                    server.resume()
                return got

        try:
            assert asyncio.run(scenario()) == [1, 2, 3, 4, 5, 6]
        finally:
            server.resume()

    @pytest.mark.parametrize("kind", STORES, ids=["FrameStore", "AsyncFrameStore"])
    def test_an_abandoned_iterator_leaves_no_replies_to_the_next_question(self, shared_redis, client, kind):
        stock(client, row("cam1", 30))
        with kind(shared_redis.address, VHOST, chunk_bytes=1) as store:
            for number in range(1, 30):
                assert [one.sequence for one in itertools.islice(store.range("cam1"), number)] == [
                    *range(1, number + 1)
                ]
                assert store.latest("cam1").sequence == 30


class TestSlips:
    """What a script writer hands over by mistake is told, and not answered with nothing."""

    def test_cameras_that_can_be_read_only_once_are_tailed(self, store, client):
        stock(client, row("cam1", 2))
        tail = store.tail((name for name in ["cam1"]), since=0)
        assert [tail.poll().sequence, tail.poll().sequence] == [1, 2]

    @pytest.mark.parametrize("key", ["loja:frames:cam1:1731024000123456789:00001", b"x"])
    def test_one_key_is_no_list_of_keys(self, store, key):
        with pytest.raises(QueryError, match="is one key; get takes one"):
            store.get_many(key)

    @pytest.mark.parametrize("kind", STORES)
    @pytest.mark.parametrize(
        ("arguments", "part"),
        [
            ((6379,), "6379 is no address"),
            ((None,), "None is no address"),
            ((), "give the address"),
            (("",), "give the"),
        ],
    )
    def test_what_is_no_address_is_said(self, kind, arguments, part):
        with pytest.raises(InputError, match=part):
            kind(*arguments)


class TestClosed:
    @all_questions
    def test_every_question_to_a_closed_store_is_refused(self, store, client, ask):
        stock(client, row("cam1", 3))
        ask(store)
        store.close()
        with pytest.raises(QueryError, match="this store is closed"):
            ask(store)
        # Closing again is nothing, and opens nothing.
        store.close()
        with pytest.raises(QueryError, match="this store is closed"):
            ask(store)

    def test_it_holds_no_connection_any_more(self, store, client):
        stock(client, row("cam1", 3))
        before = len(connections(client))
        assert store.latest("cam1") is not None
        assert_one_a_server(client, before)
        store.close()
        wait_until(lambda: len(connections(client)) == before, 20, "its connection is gone")
        with contextlib.suppress(QueryError):
            store.latest("cam1")
        assert len(connections(client)) == before

    def test_an_iterator_that_is_on_its_way_ends_with_the_same_error(self, store, client):
        stock(client, row("cam1", 2500))
        found = store.entries("cam1")
        next(found)
        store.close()
        with pytest.raises(QueryError, match="this store is closed"):
            list(found)

    @pytest.mark.parametrize("kind", STORES)
    def test_leaving_a_with_block_closes_it(self, kind, shared_redis):
        with kind(shared_redis.url, VHOST) as store:
            pass
        with pytest.raises(QueryError, match="this store is closed"):
            _ = store.latest("cam1") if kind is FrameStore else asyncio.run(store.store.latest("cam1"))

    def test_a_tail_that_another_thread_waits_in_ends(self, client, shared_redis):
        stock(client, row("cam1", 1))
        store = FrameStore(shared_redis.url, VHOST)
        waiting = threading.Event()

        def follow() -> None:
            tail = store.tail("cam1")
            tail.poll()
            waiting.set()
            next(tail)

        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(follow)
            assert waiting.wait(30)
            store.close()
            with pytest.raises(QueryError, match="this store is closed"):
                ended.result(20)


class TestSharing:
    def test_eight_threads_share_one_store(self, shared_redis, client):
        cameras = [f"cam{number}" for number in range(8)]
        stock(client, itertools.chain.from_iterable(row(camera, 50, size=2000) for camera in cameras))
        with FrameStore(shared_redis.address, VHOST, chunk_bytes=10_000) as store:

            def ask(camera: str) -> int:
                frames = [frame(stored) for stored in row(camera, 50, size=2000)]
                for number in range(20):
                    assert store.latest(camera) == frames[-1]
                    assert store.at(camera, frames[number].unix_nano) == frames[number]
                    assert list(store.range(camera, limit=10)) == frames[:10]
                    assert store.get(frames[number].key) == frames[number]
                    assert store.snapshot()[camera] == frames[-1]
                return store.count(camera)

            with ThreadPoolExecutor(8) as pool:
                assert list(pool.map(ask, cameras)) == [50] * 8

    def test_more_threads_than_connections_wait_for_one(self, shared_redis, client):
        stock(client, row("cam1", 50))
        with FrameStore(shared_redis.address, VHOST) as store, ThreadPoolExecutor(40) as pool:
            assert list(pool.map(store.count, ["cam1"] * 200)) == [50] * 200
            # Ours that stocked is one of them.
            assert len(connections(client)) <= (16 + 2) * len(servers(client))

    def test_many_tasks_share_one_store(self, shared_redis, client):
        cameras = [f"cam{number}" for number in range(8)]
        stock(client, itertools.chain.from_iterable(row(camera, 10) for camera in cameras))

        async def scenario() -> None:
            async with AsyncFrameStore(shared_redis.address, VHOST) as store:
                found = await asyncio.gather(*(store.latest(camera) for camera in cameras * 10))
                assert found == [frame(row(camera, 10)[-1]) for camera in cameras] * 10

        asyncio.run(scenario())

    @pytest.mark.parametrize("kind", STORES, ids=["FrameStore", "AsyncFrameStore"])
    def test_a_closed_store_holds_no_connection(self, shared_redis, client, kind):
        before = len(connections(client))
        with kind(shared_redis.address, VHOST, cameras=["cam1"]) as store:
            assert store.latest("cam1") is None
            assert_one_a_server(client, before)
        # Redis notices an end of its own accord, soon.
        wait_until(lambda: len(connections(client)) == before, 10, "the connection's end")


def assert_one_a_server(client: AnyClient, before: int) -> None:
    """A store has connected: once to the server, or to the nodes of a cluster that it asked."""
    most = before + len(servers(client))
    wait_until(lambda: before < len(connections(client)) <= most, 10, "a connection to each server at most")


@pytest.mark.parametrize(
    "said",
    [
        "BUSY Redis is busy running a script", "CLUSTERDOWN The cluster is down", "TRYAGAIN Multiple keys request",
        "MASTERDOWN Link with MASTER is down", "READONLY You can't write", "UNBLOCKED force unblock",
        "NOREPLICAS Not enough good replicas to write.",
    ],
)  # fmt: skip
def test_an_error_that_waiting_mends_is_unavailability(said):
    error = BaseParser.parse_error(said)
    with pytest.raises(RedisUnavailable, match="cannot answer now"):
        checked(parse_redis_address("h"), [("GET", "k")], [error])
