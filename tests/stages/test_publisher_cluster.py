"""The publisher's agent between a real Redis Cluster and a real broker: which events wait when a node is away, and that
each comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from engine.config import Config, from_document
from engine.shm.status_page import PublisherCount, StatusPage
from engine.stages.publisher.cluster_calls import ClusterCalls
from engine.stages.publisher.journals import Journals
from engine.stages.publisher.polling_read import StreamQuestions
from engine.wire import keys
from engine.wire.cluster import Node, slot_of
from engine.wire.journal import JournalEntry, entry_fields, entry_id
from engine.wire.marks import Mark, format_mark
from engine.wire.redis_address import parse_cluster
from engine.wire.state import decode_outages
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_cluster import ClusterServer, RedisCluster
from tests.stages.test_gop_events import Announced
from tests.stages.test_publisher import publishing, turn
from tests.stored_video import store_video, video_units

TIMEOUT_SECONDS = 1.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("cluster"), masters=3, replicas=1) as started:
        yield started


@pytest.fixture
def client(cluster: RedisCluster) -> Iterator[redis.RedisCluster]:
    client = cluster.client()
    client.flushall(target_nodes=redis.RedisCluster.PRIMARIES)
    yield client
    client.close()


def cameras_by_node(cluster: RedisCluster, vhost: str, count: int = 2) -> dict[ClusterServer, list[str]]:
    """``count`` cameras whose journals each master has."""
    found: dict[ClusterServer, list[str]] = {master: [] for master in cluster.masters()}
    slots = {slot: master for master in found for slot in cluster.slots_of(master)}
    for number in range(1000):
        camera = f"cam{number}"
        own = found[slots[slot_of(keys.journal_key(vhost, "frames", camera).encode())]]
        if len(own) < count:
            own.append(camera)
        if all(len(own) == count for own in found.values()):
            break
    return found


def site_config(directory: Path, cluster: RedisCluster, amqp_url: str, cameras: list[str], **redis_: Any) -> Config:
    document = {
        "site": {"run_directory": str(directory / "run")},
        "ring": {"directory": str(directory)},
        "redis": {"cluster": cluster.addresses, "timeout_seconds": TIMEOUT_SECONDS, **redis_},
        "amqp": {"amqp_url": amqp_url},
        "metadata": {"video": "gop"},
        "cameras": [{"id": camera, "url": "rtsp://192.0.2.1/x", "video": True} for camera in cameras],
    }
    return from_document(document, {})


class Stock:
    """Frames and their entries, numbered without end."""

    def __init__(self, client: redis.RedisCluster, config: Config) -> None:
        self._client, self._config = client, config
        self.numbers: dict[str, int] = {}

    def add(self, cameras: list[str], count: int) -> None:
        config = self._config
        with self._client.pipeline(transaction=False) as pipeline:
            for camera in cameras:
                for _ in range(count):
                    number = self.numbers[camera] = self.numbers.get(camera, 0) + 1
                    at = time.time_ns()
                    frame = keys.frame_key_prefix(config.vhost, config.prefix, camera)
                    pipeline.set(frame + keys.frame_key_suffix(at, number), b"jpeg", ex=300)
                    entry = JournalEntry(at, number, 100, 64, 48, "jpeg", True, number)
                    journal = keys.journal_key(config.vhost, config.prefix, camera)
                    pipeline.xadd(
                        journal, dict(zip(*[iter(entry_fields(entry))] * 2, strict=True)), entry_id(at, number)
                    )
            pipeline.execute()

    @property
    def total(self) -> int:
        return sum(self.numbers.values())


def frame_events(rabbitmq: RabbitMQ, vhost: str, config: Config) -> Callable[[], list[tuple[str, int]]]:
    """(camera, number) of each event so far, in the order of arrival."""
    import json

    channel = rabbitmq.connect(vhost).channel()
    metadata = config.metadata
    channel.exchange_declare(metadata.exchange, exchange_type="topic", durable=metadata.exchange_durable)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, metadata.exchange, metadata.routing_key)
    events: list[tuple[str, int]] = []

    def take() -> list[tuple[str, int]]:
        while (message := channel.basic_get(queue, auto_ack=True))[0]:
            event = json.loads(message[2])
            events.append((event["camera_id"], int(event["sequence"])))
        return events

    return take


def first_times(events: list[tuple[str, int]], camera: str) -> list[int]:
    """The numbers of one camera, each where it came first."""
    return list(dict.fromkeys(number for name, number in events if name == camera))


def counted(page: StatusPage) -> tuple[int, int]:
    return page.counts[PublisherCount.CONFIRMED], page.counts[PublisherCount.EXPIRED]


def test_events_of_all_nodes_are_published_and_cursors_saved(
    tmp_path: Path, cluster: RedisCluster, client: redis.RedisCluster, rabbitmq: RabbitMQ, vhost: str
):
    nodes = cameras_by_node(cluster, vhost)
    cameras = [camera for own in nodes.values() for camera in own]
    config = site_config(tmp_path, cluster, rabbitmq.url(vhost), cameras)
    take, stock = frame_events(rabbitmq, vhost, config), Stock(client, config)
    stock.add(cameras, 100)
    units = video_units(cameras[0], "K....K...K.", first=time.time_ns())
    store_video(client, vhost, units)
    connection = rabbitmq.connect(vhost)
    announced = Announced(connection.channel(), config)
    with publishing(config, tmp_path) as (agent, page):
        turn(agent, lambda: counted(page) == (stock.total, 0))
        turn(agent, lambda: page.counts[PublisherCount.GOPS] == 2)
        stock.add(cameras[:3], 5)
        turn(agent, lambda: counted(page) == (stock.total, 0))
    events = take()
    for camera in cameras:
        assert first_times(events, camera) == list(range(1, stock.numbers[camera] + 1))
    assert [event.frames for event in announced.take()] == [5, 4]
    saved = client.hgetall(keys.cursor_key(vhost, "frames"))
    assert {name.decode() for name in saved} == set(cameras)
    with publishing(config, tmp_path) as (agent, page):
        stock.add(cameras[-1:], 1)
        turn(agent, lambda: counted(page) == (stock.total, 0))
    assert len(take()) == stock.total, "a successor goes on behind the cursors"
    connection.close()


@pytest.mark.parametrize("what", ["cursors", "marks", "frames"])
def test_a_node_that_hangs_delays_only_the_events_of_its_cameras(
    what: str, tmp_path: Path, rabbitmq: RabbitMQ, vhost: str
):
    """Also if it has the cursors, or the writer's marks. Nothing that waits counts as expired."""
    written = keys.written_key(vhost, "frames")
    with RedisCluster(tmp_path / "c", masters=3, replicas=0) as cluster, cluster.client() as client:
        nodes = cameras_by_node(cluster, vhost)
        owners = [cluster.owner(keys.cursor_key(vhost, "frames")), cluster.owner(written)]
        away = {"cursors": owners[0], "marks": owners[1]}.get(
            what, next(node for node in nodes if node is not owners[1])
        )
        theirs = nodes[away]
        others = [camera for node, own in nodes.items() if node is not away for camera in own]
        config = site_config(tmp_path, cluster, rabbitmq.url(vhost), theirs + others)
        take, stock = frame_events(rabbitmq, vhost, config), Stock(client, config)
        with publishing(config, tmp_path) as (agent, page):
            stock.add(theirs + others, 10)
            turn(agent, lambda: counted(page) == (stock.total, 0))
            away.pause()
            if what == "frames":
                # The journals that are away would count as emptied, if they counted as read.
                for camera in theirs:
                    client.hset(written, camera, format_mark(Mark((time.time_ns(), 50), 50)))
            for _ in range(5):
                add_entries(stock, config, others, cluster)
                pause = time.monotonic() + 0.3
                turn(agent, lambda pause=pause: time.monotonic() > pause)
            turn(agent, lambda: counted(page) == (stock.total, 0))
            assert f":{away.port}" in decode_outages(page.text)["redis"].error
            client.hdel(written, *theirs) if what == "frames" else None
            away.resume()
            turn(agent, lambda: "redis" not in decode_outages(page.text))
            add_entries(stock, config, theirs, cluster)
            turn(agent, lambda: counted(page) == (stock.total, 0))
        saved = client.hgetall(keys.cursor_key(vhost, "frames"))
        events = take()
    assert {name.decode() for name in saved} == set(theirs + others)
    for camera in theirs + others:
        assert first_times(events, camera) == list(range(1, stock.numbers[camera] + 1))


def add_entries(stock: Stock, config: Config, cameras: list[str], cluster: RedisCluster) -> None:
    """An entry of each camera; the publisher does not look whether frames are there while none of them waits."""
    for camera in cameras:
        number = stock.numbers[camera] = stock.numbers.get(camera, 0) + 1
        at = time.time_ns()
        entry = JournalEntry(at, number, 100, 64, 48, "jpeg", True, number)
        journal = keys.journal_key(config.vhost, config.prefix, camera)
        cluster.owner(journal).ask("XADD", journal, entry_id(at, number), *entry_fields(entry))


def test_a_failover_and_moved_slots_lose_no_event_and_keep_the_order(
    tmp_path: Path, cluster: RedisCluster, client: redis.RedisCluster, rabbitmq: RabbitMQ, vhost: str
):
    nodes = cameras_by_node(cluster, vhost)
    cameras = [camera for own in nodes.values() for camera in own]
    config = site_config(tmp_path, cluster, rabbitmq.url(vhost), cameras)
    take, stock = frame_events(rabbitmq, vhost, config), Stock(client, config)
    with publishing(config, tmp_path) as (agent, page):
        stock.add(cameras, 20)
        turn(agent, lambda: counted(page) == (stock.total, 0))

        def change() -> None:
            """Each journal of one master moves to another one, while entries come; then that one hands over."""
            first, second, _ = cluster.masters()
            journals = [keys.journal_key(vhost, "frames", camera) for camera in nodes[first]]
            cluster.move_slots(first, second, [*(slot_of(key.encode()) for key in journals)])
            stock.add(cameras, 20)
            cluster.failover(cluster.masters().index(second))
            stock.add(cameras, 20)

        changing = threading.Thread(target=change)
        changing.start()
        turn(agent, lambda: not changing.is_alive())
        changing.join()
        turn(agent, lambda: counted(page) == (stock.total, 0))
    events = take()
    for camera in cameras:
        assert first_times(events, camera) == list(range(1, 61))


def test_a_stop_waits_for_a_node_that_is_not_connected_again_yet(
    tmp_path: Path, cluster: RedisCluster, client: redis.RedisCluster, rabbitmq: RabbitMQ, vhost: str
):
    """Its connection broke a moment ago. The events of its cameras and of their video are not left in the journals."""
    nodes = cameras_by_node(cluster, vhost)
    cameras = [camera for own in nodes.values() for camera in own]
    config = site_config(tmp_path, cluster, rabbitmq.url(vhost), cameras)
    stock = Stock(client, config)
    with publishing(config, tmp_path) as (agent, page):
        stock.add(cameras, 10)
        turn(agent, lambda: counted(page) == (stock.total, 0))
        away = cluster.owner(keys.video_journal_key(vhost, "frames", cameras[0]))
        for journals in (agent._journals, agent._gops._journals):
            link = journals._session._links[Node("127.0.0.1", away.port)]
            link.broken("it was reset")
            link._retry_at = time.monotonic() + 0.5
        stock.add(cameras, 5)
        store_video(client, vhost, video_units(cameras[0], "K....K...K.", first=time.time_ns()))
        turn(agent, agent.drained)
        assert counted(page) == (stock.total, 0)
        assert page.counts[PublisherCount.GOPS] == 3


def test_a_key_that_is_on_its_way_is_asked_for_where_it_arrives(cluster: RedisCluster, client: redis.RedisCluster):
    """ASK: the slot is being moved, and the key has gone ahead."""
    source, target, _ = cluster.masters()
    key = next(k for k in map("key{}".format, range(1000)) if cluster.owner(k) is source)
    slot = slot_of(key.encode())
    calls = ClusterCalls(parse_cluster(cluster.addresses), TIMEOUT_SECONDS)
    client.hset(key, "a", "1")
    assert calls.try_call(("HGETALL", key)) == [[b"a", b"1"]]
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    try:
        source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        assert calls.try_call(("HGETALL", key), ("EXISTS", key)) == [[b"a", b"1"], 1]
    finally:
        for node in (target, source):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)
        cluster.settle()
    assert calls.try_call(("HGETALL", key)) == [[b"a", b"1"]]
    calls.close()


def test_a_cluster_that_is_away_is_one_outage(tmp_path: Path):
    from engine.errors import RedisUnavailable

    with RedisCluster(tmp_path / "c", masters=3, replicas=0) as cluster:
        journals = Journals(parse_cluster(cluster.addresses), TIMEOUT_SECONDS, "v", "frames", ["cam1", "cam2"])
        assert journals.overview().newest == {}
        assert journals.away is None
        for node in cluster.nodes:
            node.kill()
        with pytest.raises(RedisUnavailable):
            journals.overview()
        with pytest.raises(RedisUnavailable):
            journals.states()
        journals.close()


def test_questions_about_journals_that_are_asked_for_no_more_are_forgotten():
    questions = StreamQuestions()
    for number in range(1000):
        questions.keep({b"journal%d" % number: (0, 0)})
        questions.question(b"journal%d" % number, (0, 0), 10)
    assert len(questions._known) < 200
    known = questions.question(b"journal999", (0, 0), 10)
    questions.keep({b"journal999": (0, 0)})
    assert questions.question(b"journal999", (0, 0), 10) is known
