"""A site whose events go to a cluster of three RabbitMQ nodes, and several publishers, under kills of both."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pika.exceptions
import pytest

from engine import FrameConsumer
from tests.client.consuming import Seen, running
from tests.servers.rabbitmq import RabbitMQ, RabbitMQCluster
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.consumer import Consumer, first_times
from tests.system.site import Site, stored_frames

CAMERAS = [{"id": f"cam{number}", "url": "test://?fps=10&kb=10&size=320x240"} for number in range(6)]
VHOST = "shop"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RabbitMQCluster]:
    path = Path(tempfile.mkdtemp(prefix="ev-cluster-"))
    with RabbitMQCluster(path) as nodes:
        nodes.nodes[0].add_vhost(VHOST)
        yield nodes
    shutil.rmtree(path, ignore_errors=True)


def confirmed(site: Site) -> int:
    return int(site.status()["publisher"]["confirmed"])


def kill_publishers(site: Site) -> None:
    """Both at once; the supervisor starts them again."""
    pids = {one["pid"] for one in site.status()["processes"] if one["role"] == "publisher" and one["alive"]}
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        alive = [one["pid"] for one in site.status()["processes"] if one["role"] == "publisher" and one["alive"]]
        return len(alive) == 2 and not pids & set(alive)

    wait_until(replaced, 30, "both publishers were started again")


def events_flow(site: Site, count: int = 60) -> None:
    before = confirmed(site)
    wait_until(lambda: confirmed(site) > before + count, 60, "events are confirmed", log=site.log_text)


def test_a_killed_node_costs_no_event(site: Site, redis_server: RedisServer, cluster: RabbitMQCluster) -> None:
    """A quorum queue and a stream keep every confirmed event; the stream's consumer accepts each message once."""
    first, second, third = cluster.nodes
    with third.connect(VHOST) as connection:
        channel = connection.channel()
        channel.exchange_declare("camera.metadata", "topic", durable=True)
        for name in ("quorum", "stream"):
            channel.queue_declare(name, durable=True, arguments={"x-queue-type": name})
            channel.queue_bind(name, "camera.metadata", "camera.metadata.event")
    site.write(
        cameras=CAMERAS,
        redis={"address": redis_server.address},
        amqp={"amqp_urls": cluster.urls(VHOST), "timeout_seconds": 3.0},
        publisher={"publishers": 2},
    )
    seen = Seen()
    consumer = FrameConsumer.from_site(site.file, seen, queue="stream", stream=True, offset="first")
    with running(consumer):
        site.start()
        events_flow(site)
        assert site.status()["publisher"]["brokers"] == [f"127.0.0.1:{first.port}"]
        first.kill()
        others = {f"127.0.0.1:{second.port}", f"127.0.0.1:{third.port}"}
        wait_until(lambda: set(site.status()["publisher"]["brokers"]) <= others, 30, "they are at another node")
        events_flow(site)
        kill_publishers(site)
        events_flow(site)
        # Back in the cluster, and another one goes.
        first.start()
        wait_until(lambda: third.eval("length(rabbit_mnesia:cluster_nodes(running))") == "{ok, 3}", 30, "all are back")
        second.kill()
        kill_publishers(site)
        events_flow(site)
        second.start()
        assert site.stop() == 0, site.log_text()[-3000:]
        stored = stored_frames(redis_server.client(), VHOST)
        total = sum(map(len, stored.numbers.values()))
        wait_until(lambda: len(set(accepted(seen))) >= total, 60, "the consumer has read them all")
    assert consumer.counts.failed == 0
    queued = drain(third, "quorum")
    for camera, numbers in stored.numbers.items():
        assert first_times([number for name, number in queued if name == camera]) == numbers, camera
        assert first_times([number for name, number in accepted(seen) if name == camera]) == numbers, camera
    # What came twice was sent twice: the stream has the same messages as the queue.
    assert sorted(accepted(seen)) == sorted(queued)


def accepted(seen: Seen) -> list[tuple[str, int]]:
    return [(event.camera_id, int(event.sequence)) for event in seen.events]


def drain(node: RabbitMQ, queue: str) -> list[tuple[str, int]]:
    """Everything that a queue holds, in order, as camera and sequence."""
    collector = Consumer(node, VHOST)
    collector.QUEUE = queue
    with collector, node.connect(VHOST) as connection:
        channel = connection.channel()

        def left() -> bool:
            return bool(channel.queue_declare(queue, durable=True, passive=True).method.message_count)

        before = -1
        while left() or len(collector.frames()) != before:
            before = len(collector.frames())
            connection.sleep(0.5)
    return [(event["camera_id"], int(event["sequence"])) for event in collector.frames()]


def test_a_consumer_of_a_quorum_queue_goes_on_at_another_node(
    redis_server: RedisServer, cluster: RabbitMQCluster
) -> None:
    cluster.nodes[0].add_vhost("work")
    seen = Seen()
    consumer = FrameConsumer(cluster.urls("work"), redis_server.address, seen, queue="work", timeout_seconds=3)
    sent = 0

    def publish(count: int) -> None:
        nonlocal sent
        bodies = [EVENT % number for number in range(sent + 1, sent + count + 1)]
        wait_until(lambda: taken(cluster.nodes[2], bodies), 30, "the queue takes them", interval=0.3)
        sent += count

    with running(consumer):
        wait_until(lambda: is_bound(cluster.nodes[2]), 30, "the queue is bound")
        publish(20)
        seen.has(20)
        cluster.nodes[0].kill()
        publish(20)
        wait_until(lambda: len(set(seen.numbers)) == 40, 30, "all are read")
        wait_until(lambda: consumer.counts.reconnects, 30, "it is at another node")
        cluster.nodes[0].start()
    assert first_times(seen.numbers) == list(range(1, 41))


#: An event, but for its number. Nobody has stored its frame.
EVENT = (
    b'{"camera_id":"cam1","timestamp":"2024-11-08T14:30:00.123456789Z","size_bytes":9,'
    b'"redis_key":"work:frames:cam1:1731076200123456789:%05d"}'
)


def taken(node: RabbitMQ, bodies: list[bytes]) -> bool:
    """Publish what is left of some messages, in order. A queue without a leader refuses, also later, what comes on the
    channel that it has refused once."""
    with node.connect("work") as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        try:
            while bodies:
                channel.basic_publish("camera.metadata", "camera.metadata.event", bodies[0], mandatory=True)
                del bodies[0]
        except pika.exceptions.NackError:
            return False
    return True


def is_bound(node: RabbitMQ) -> bool:
    queue = 'rabbit_misc:r(<<"work">>, exchange, <<"camera.metadata">>)'
    return node.eval(f"length(rabbit_binding:list_for_source({queue})) >= 1") == "{ok, true}"
