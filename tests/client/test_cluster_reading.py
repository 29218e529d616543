"""Readers of a cluster get what readers of one server get: at rest, while slots move, and after a failover."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import AsyncFrameStore, Frame, FrameStore
from engine.client import store_base as stores
from engine.errors import ConfigError, EngineError, QueryError, RedisUnavailable, ServerRefused
from engine.servers.redis.session import Session
from engine.wire import keys as names
from engine.wire.redis_address import RedisAddress, parse_redis_address
from tests.client.stocked import PREFIX, STORES, T0, VHOST, AnyStore, Stored, frame, pipe, row, stock
from tests.client.stored_video import PERSON, arrivals, clip, stock_video
from tests.client.test_store_properties import World, worlds
from tests.servers.cluster_client import ReadCluster
from tests.servers.redis_cluster import ClusterServer, RedisCluster
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import command

CAMERAS = [f"cam{number}" for number in range(1, 9)]
both_stores = pytest.mark.parametrize("kind", STORES, ids=["FrameStore", "AsyncFrameStore"])


@pytest.fixture(scope="module")
def replicated() -> Iterator[ReadCluster]:
    """Three masters with a replica each, for tests that move slots and fail over."""
    path = Path(tempfile.mkdtemp(prefix="ev-cluster-"))
    with ReadCluster(path, replicas=1) as cluster:
        yield cluster
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def held(replicated: ReadCluster) -> list[Stored]:
    """What the replicated cluster has: two cameras' frames, some expired, and a camera's video."""
    frames = [stored._replace(there=number % 7 != 0) for number, stored in enumerate(row("cam1", 120, size=300))]
    frames += row("cam2", 60, gap=2_000_000_000)
    with replicated.client() as client:
        client.flushall()
        stock(client, frames)
        stock_video(client, arrivals(clip(PERSON, 30)))
    await_replicas(replicated.cluster)
    return frames


def address(cluster: ReadCluster) -> RedisAddress:
    return parse_redis_address(cluster.address)


def answers(store: AnyStore) -> list[Any]:
    """What every public query of a store says of what it holds."""
    found: list[Any] = [sorted(store.cameras()), store.snapshot(), without_lifetimes(store.stats())]
    for camera in store.cameras():
        for reverse, step in itertools.product((False, True), (None, "2s")):
            frames = store.range(camera, reverse=reverse, step=step)
            found += [list(frames), frames.missing]
            entries = store.entries(camera, T0 + 10**9, T0 + 40 * 10**9, reverse=reverse, step=step)
            found += [list(entries), entries.missing]
        found += [store.latest(camera), store.at(camera, T0 + 30 * 10**9), store.count(camera)]
        found += [store.rate(camera, bucket="10s"), store.count(camera, video=True)]
        found += [store.get_many([one.key for one in store.entries(camera)])]
        found += [list(store.video(camera)), list(store.video_entries(camera, from_key=True))]
        found.append(shown(store, camera))
    for tail in (store.tail(None, T0), store.tail_entries(None, T0)):
        met = polled(tail)
        found += [sorted(met, key=lambda one: (one.camera, one.unix_nano)), tail.missing, tail.position]
    return found


def polled(tail: Any) -> list[Any]:
    """What a tail brings until nothing more comes."""
    met: list[Any] = []
    empty = 0
    while empty < 3:
        one = tail.poll()
        empty = empty + 1 if one is None else 0
        met += [] if one is None else [one]
    return met


def shown(store: AnyStore, camera: str) -> Any:
    """Which picture is shown last; of JPEGs that are none, the error."""
    try:
        picture = store.picture(camera)
    except EngineError as error:
        return type(error)
    return picture and (picture.unix_nano, picture.encoding)


def without_lifetimes(stats: Any) -> Any:
    cameras = [stats.total, *stats.cameras.values(), stats.video, *stats.video_cameras.values()]
    return [(each.frames, each.bytes, each.oldest_nano, each.newest_nano, each.missing) for each in cameras]


@both_stores
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(world=worlds())
def test_a_cluster_answers_as_one_server(
    one_redis: RedisServer, one_cluster: ReadCluster, kind: Any, world: World
) -> None:
    found = []
    for server in (one_redis, one_cluster):
        with pytest.MonkeyPatch.context() as patch, server.client() as client:
            patch.setattr(stores, "TAIL_BLOCK_MS", 1)
            client.flushall()
            stock(client, world.frames, vhost=world.vhost, prefix=world.prefix)
            with kind(server.address, world.vhost, world.prefix, chunk_bytes=world.chunk_bytes) as store:
                found.append(answers(store))
    assert found[0] == found[1]


keys = st.sampled_from([f"key{number}" for number in range(20)])
asked = st.one_of(
    st.builds(lambda found: ("MGET", *found), st.lists(keys, min_size=1, max_size=9)),
    st.builds(lambda found: ("EXISTS", *found), st.lists(keys, min_size=1, max_size=9)),
    st.builds(lambda found: ("UNLINK", *found), st.lists(keys, min_size=1, max_size=3)),
    st.builds(lambda key, value: ("SET", key, value), keys, st.binary(max_size=3)),
    st.builds(lambda key: ("XADD", f"s{key}", "*", "field", "value"), keys),
    st.builds(lambda key: ("GET", f"s{key}"), keys),
    st.builds(
        lambda found: ("XREAD", "COUNT", 1, "BLOCK", 1, "STREAMS", *found, *("5-0" for _ in found)),
        st.lists(keys, min_size=1, max_size=4, unique=True),
    ),
    st.builds(
        lambda found: ("XREAD", "COUNT", 2, "STREAMS", *(f"s{key}" for key in found), *("0" for _ in found)),
        st.lists(keys, min_size=1, max_size=9, unique=True),
    ),
    st.just(("DBSIZE",)),
    st.just(("PING",)),
)


@settings(max_examples=60, deadline=None)
@given(trips=st.lists(st.lists(asked, min_size=1, max_size=9), min_size=1, max_size=4))
def test_a_session_s_replies_are_those_of_one_server(
    one_redis: RedisServer, one_cluster: ReadCluster, trips: list[list[tuple[Any, ...]]]
) -> None:
    """Error replies included; ids of entries, which Redis makes, are left out."""
    found: list[list[Any]] = []
    for server in (one_redis, one_cluster):
        with server.client() as client, Session(parse_redis_address(server.address), 5) as session:
            client.flushall()
            found.append([[plain(reply) for reply in session.try_call(*trip)] for trip in trips])
    assert found[0] == found[1]


def plain(reply: Any) -> Any:
    if isinstance(reply, list):
        return [plain(part) for part in reply]
    if isinstance(reply, bytes) and b"-" in reply:
        return b"id"
    return str(reply) if isinstance(reply, Exception) else reply


class TestMovingSlots:
    @both_stores
    def test_answers_stay_the_same_while_slots_move(self, replicated: ReadCluster, held: Any, kind: Any) -> None:
        with kind(replicated.address, VHOST, timeout_seconds=20) as store:
            before = answers(store)
            rounds = 0
            for _ in moving(replicated):
                assert answers(store) == before
                rounds += 1
            assert rounds > 1
            assert answers(store) == before

    def test_a_scan_misses_no_key(self, replicated: ReadCluster, held: list[Stored]) -> None:
        wanted = {frame(stored).key.encode() for stored in held if stored.there}
        with Session(address(replicated), 20) as session:
            for _ in moving(replicated):
                assert {key for step in session.scan(f"{VHOST}:frames:*") for key in step} >= wanted

    def test_a_transaction_at_the_old_node_fails_and_at_the_new_one_works(self, replicated: ReadCluster) -> None:
        """As a job does it: node, transaction, and both again after RedisUnavailable."""
        cluster = replicated.cluster
        with replicated.client() as client, Session(address(replicated), 20) as session:
            client.set("key", 0)
            failures = 0
            for number in range(1, 4):
                node = session.node_of("key")
                cluster.move_slots(owner := cluster.owner("key"), another(replicated, owner), [slot(client, "key")])
                with pytest.raises(RedisUnavailable, match="slots are moving"):
                    node.call(("MULTI",), ("SET", "key", number), ("EXEC",))
                failures += 1
                assert client.get("key") == str(number - 1).encode()
                assert session.node_of("key").call(("MULTI",), ("SET", "key", number), ("EXEC",))[-1] == [b"OK"]
            assert failures == 3
            with pytest.raises(ValueError, match="node_of"):
                session.call(("MULTI",), ("SET", "key", 1), ("EXEC",))


def another(cluster: ReadCluster, owner: ClusterServer) -> ClusterServer:
    return next(each for each in cluster.cluster.masters() if each is not owner)


def slot(client: redis.RedisCluster, key: str) -> int:
    return int(client.keyslot(key))


def moving(cluster: ReadCluster) -> Iterator[None]:
    """Yields while slots go from one master to another and back, with all their keys, once before, and once behind."""
    first, second, *_ = cluster.cluster.masters()
    slots = cluster.cluster.slots_of(first)[:2000]

    def move() -> None:
        cluster.cluster.move_slots(first, second, slots)
        cluster.cluster.move_slots(second, first, slots)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        while thread.is_alive():
            yield
    finally:
        thread.join()
    yield


class TestFailover:
    @both_stores
    def test_answers_are_the_same_after_one(self, replicated: ReadCluster, held: Any, kind: Any) -> None:
        with kind(replicated.address, VHOST, timeout_seconds=20) as store:
            before = answers(store)
            replicated.cluster.failover(0)
            assert answers(store) == before

    @both_stores
    def test_a_tail_loses_nothing_when_a_master_is_killed(
        self, replicated: ReadCluster, held: Any, kind: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stores, "TAIL_BLOCK_MS", 20)
        cluster = replicated.cluster
        with kind(replicated.address, VHOST, timeout_seconds=30) as store, replicated.client() as client:
            tail = store.tail("cam1", T0 + 10**12)
            assert tail.poll() is None
            first = row("cam1", 20, first=T0 + 10**12)
            stock(client, first)
            # What a failover loses is the cluster's own matter: here, nothing.
            await_replicas(cluster)
            killed = cluster.masters()[0]
            killed.kill()
            wanted = [frame(stored) for stored in first]
            met: list[Frame] = []
            while len(met) < len(wanted):
                if (one := tail.poll()) is not None:
                    met.append(one)
            assert met == wanted
            cluster.settle()
            cluster.restart(killed)
            assert tail.missing == 0


def await_replicas(cluster: RedisCluster) -> None:
    """Wait until replicas have all that their masters have."""
    wait_until(lambda: all(caught_up(cluster, master) for master in cluster.masters()), 10, "replicas have all")


def caught_up(cluster: RedisCluster, master: ClusterServer) -> bool:
    with master.client() as own, cluster.replica_of(master).client() as other:
        offset = own.info("replication")["master_repl_offset"]
        return bool(other.info("replication")["slave_repl_offset"] >= offset)


class TestANodeThatIsDown:
    """Without a replica. What it has cannot be read until it is back; all else can."""

    def test_it_is_named_the_others_answer_and_it_is_found_again(
        self, one_cluster: ReadCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stores, "TAIL_BLOCK_MS", 20)
        cluster = one_cluster.cluster
        down = cluster.owner(names.cameras_key(VHOST, PREFIX))
        away = next(camera for camera in CAMERAS if cluster.owner(names.journal_key(VHOST, PREFIX, camera)) is down)
        frames = {camera: row(camera, 30) for camera in CAMERAS}
        with one_cluster.client() as client, ExitStack() as stack:
            client.flushall()
            stock(client, itertools.chain.from_iterable(frames.values()))
            opened = [
                stack.enter_context(kind(one_cluster.address, VHOST, cameras=CAMERAS, timeout_seconds=0.3))
                for kind in STORES
            ]
            tails = [store.tail(away, 0) for store in opened]
            for tail in tails:
                assert list(itertools.islice(tail, 30)) == [frame(stored) for stored in frames[away]]
            down.kill()
            try:
                with ThreadPoolExecutor(1) as pool:
                    # A command has more patience than these stores.
                    words = ("frames", "latest", away, "--redis", one_cluster.address, "--vhost", VHOST)
                    asked = pool.submit(command, *words)
                    for store, tail in zip(opened, tails, strict=True):
                        self.assert_only_what_it_has_is_missing(store, tail, cluster, down, frames, away)
                    done = asked.result(60)
                assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
                assert f"Redis at redis://{down.address} cannot be reached" in done.stderr
            finally:
                cluster.restart(down)
            # What it had is gone: a journal without entries, and those frames that it had of others.
            for store in opened:
                assert store.latest(away) is None
            stock(client, row(away, 40))
            for tail in tails:
                later = [frame(stored) for stored in row(away, 40)[30:]]
                assert list(itertools.islice(tail, 10)) == later

    @staticmethod
    def assert_only_what_it_has_is_missing(
        store: AnyStore,
        tail: Any,
        cluster: RedisCluster,
        down: ClusterServer,
        frames: dict[str, list[Stored]],
        away: str,
    ) -> None:
        named = pytest.raises(RedisUnavailable, match=f"Redis at redis://{down.address} cannot be reached")
        for ask in (
            lambda: store.latest(away),
            lambda: store.count(away),
            store.snapshot,
            store.stats,
            store.cameras,
            lambda: store.get_many([frame(stored).key for stored in frames[away]]),
            tail.poll,
        ):
            with named:
                ask()
        # A camera whose journal lies elsewhere: what another node has of it is read, one by one.
        other = next(camera for camera in frames if cluster.owner(names.journal_key(VHOST, PREFIX, camera)) is not down)
        readable = [frame(stored) for stored in frames[other] if cluster.owner(frame(stored).key) is not down]
        assert len(readable) > 5
        for one in readable[:5]:
            assert store.get(one.key) == one
            assert store.at(other, one.unix_nano) == one


class TestReplicas:
    @both_stores
    def test_replicas_answer_the_same_and_masters_are_left_alone(
        self, replicated: ReadCluster, held: list[Stored], kind: Any
    ) -> None:
        frames = [frame(stored) for stored in held if stored.camera == "cam2"]
        with kind(replicated.address, VHOST, read_replicas=True) as store:
            before = reads(replicated)
            assert list(store.range("cam2")) == frames
            assert reads(replicated) == before

    @both_stores
    def test_what_a_replica_lacks_is_asked_of_its_master(self, replicated: ReadCluster, held: Any, kind: Any) -> None:
        cluster = replicated.cluster
        cut = [(master, cluster.replica_of(master)) for master in cluster.masters()]
        (stored,) = row("cam3", 1)
        with kind(replicated.address, VHOST, read_replicas=True) as store, replicated.client() as client:
            for master, replica in cut:
                # It cannot log in, so it stays behind.
                replica.ask("CONFIG", "SET", "masterauth", "wrong")
                master.ask("CLIENT", "KILL", "TYPE", "replica")
                wait_until(lambda replica=replica: link(replica) == "down", 10, "the link is down")  # type: ignore[misc]
            try:
                stock(client, [stored])
                assert store.get(frame(stored).key) == frame(stored)
                assert store.get_many(["loja:frames:cam3:1731024000123456789:00009"]) == [None]
            finally:
                for _, replica in cut:
                    replica.ask("CONFIG", "SET", "masterauth", "")
            cluster.settle()

    @both_stores
    def test_a_replica_that_is_down_costs_nothing(self, replicated: ReadCluster, held: list[Stored], kind: Any) -> None:
        cluster = replicated.cluster
        replica = cluster.replica_of(cluster.masters()[0])
        with kind(replicated.address, VHOST, read_replicas=True, timeout_seconds=10) as store:
            before = list(store.range("cam1"))
            replica.kill()
            assert list(store.range("cam1")) == before
        cluster.restart(replica)

    def test_they_are_for_a_cluster(self, one_redis: RedisServer) -> None:
        with pytest.raises(QueryError, match="read_replicas is for a cluster"):
            FrameStore(one_redis.address, read_replicas=True)


def link(replica: ClusterServer) -> str:
    with replica.client() as client:
        return str(client.info("replication")["master_link_status"])


def reads(cluster: ReadCluster) -> int:
    """Reads of frames and journals that the masters have answered."""
    found = 0
    for master in cluster.cluster.masters():
        with master.client() as client:
            stats = client.info("commandstats")
            found += sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("mget", "xrange", "exists"))
    return found


class TestAddresses:
    @pytest.mark.parametrize("form", ["url", "list", "site"])
    def test_a_cluster_is_named_in_three_ways(self, one_cluster: ReadCluster, tmp_path: Path, form: str) -> None:
        nodes = one_cluster.cluster.addresses
        with one_cluster.client() as client:
            client.flushall()
            stock(client, row("cam1", 3))
        if form == "site":
            site = tmp_path / "site.toml"
            site.write_text(
                f'[amqp]\namqp_url = "amqp://127.0.0.1/{VHOST}"\n'
                f'[redis]\ncluster = ["{nodes[0]}"]\nread_replicas = true\n'
                '[[cameras]]\nid = "cam1"\nurl = "rtsp://127.0.0.1/a"\n'
            )
            store = FrameStore.from_site(site)
            assert store._address.read_replicas
        elif form == "url":
            store = FrameStore(f"cluster://{nodes[1]}", VHOST)
        else:
            store = FrameStore(cluster=[nodes[2]], vhost=VHOST)
        with store:
            assert store.count("cam1") == 3

    def test_one_server_is_no_cluster(self, one_redis: RedisServer) -> None:
        with FrameStore(cluster=[one_redis.address]) as store, pytest.raises(ServerRefused, match="no node of a clust"):
            store.cameras()

    def test_only_one_kind_of_address(self) -> None:
        with pytest.raises(QueryError, match="only one of them"):
            FrameStore("redis:6379", cluster=["redis:6379"])
        with pytest.raises(ConfigError, match="one database"):
            FrameStore(cluster=["redis:6379/3"])


def test_many_threads_share_a_store(one_cluster: ReadCluster) -> None:
    frames = row("cam1", 40)
    with one_cluster.client() as client:
        client.flushall()
        stock(client, frames)
    wanted = [frame(stored) for stored in frames]
    found: list[list[Frame]] = []
    with FrameStore(one_cluster.address, VHOST) as store:
        ask: Callable[[], None] = lambda: found.append(list(store.range("cam1")))  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [wanted] * 24


def test_a_cancelled_task_leaves_the_store_usable(one_cluster: ReadCluster) -> None:
    frames = row("cam1", 40)
    with one_cluster.client() as client:
        client.flushall()
        stock(client, frames)
        pipe(client, [("XADD", "other", "1-1", "a", "b")])

    async def ask() -> None:
        async with AsyncFrameStore(one_cluster.address, VHOST) as store:
            for turn in range(30):
                task = asyncio.create_task(store.snapshot())
                for _ in range(turn):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert [one async for one in store.range("cam1")] == [frame(stored) for stored in frames]

    asyncio.run(ask())
