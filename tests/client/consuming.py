"""What the consumer's tests share: a tenant with frames to announce, its queues, and consumers in threads."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pika
import pytest

from engine import Frame, FrameConsumer
from engine.wire import metadata
from engine.wire.journal import JournalEntry
from engine.wire.metadata import FrameEvent, FrameEvents
from tests.servers.cluster_client import AnyClient
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.wait import wait_until
from tests.system.site import COMMAND, ROOT

EXCHANGE = "camera.metadata"
EVENT_KEY = "camera.metadata.event"
BATCH_KEY = "camera.metadata.batch"
QUEUE = "work"
DEAD = "dead"
START_NANO = 1731024000000000000
both_queues = pytest.mark.parametrize("queue", ["", QUEUE], ids=["exclusive", "named"])


class Tenant:
    """One vhost: makes frames and their events, publishes them, and looks into queues."""

    def __init__(self, broker: RabbitMQ, vhost: str, client: AnyClient) -> None:
        self.broker = broker
        self.vhost = vhost
        self.client = client
        #: As Erlang writes it.
        self.name = _binary(vhost)
        self.url = broker.url(vhost)
        self._events = FrameEvents(vhost, "frames", "cam1", 300)
        self._next = 1
        with self.channel() as channel:
            channel.exchange_declare(EXCHANGE, exchange_type="topic", durable=True)

    @contextmanager
    def channel(self) -> Iterator[Any]:
        connection = self.broker.connect(self.vhost)
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    def event(self, *, stored: bool = True) -> FrameEvent:
        """The next frame's event; its payload, where it is stored, is its key."""
        event = self._events.event(JournalEntry(START_NANO + self._next, self._next, 100, 640, 480, "jpeg", True))
        self._next += 1
        if stored:
            self.client.set(event.redis_key, event.redis_key.encode(), px=300_000)
        return event

    def events(self, count: int) -> list[FrameEvent]:
        return [self.event() for _ in range(count)]

    def publish(self, *bodies: bytes | FrameEvent | list[FrameEvent], key: str = EVENT_KEY) -> None:
        """Publish messages, confirmed, once there is a queue that gets them."""
        with self.channel() as channel:
            channel.confirm_delivery()
            for body in bodies:
                text = body if isinstance(body, bytes) else encoded(body)
                wait_until(lambda text=text: _routed(channel, text, key), 20, "a queue is bound")

    def waiting(self, queue: str = QUEUE) -> int:
        """Messages of a queue that no consumer holds."""
        with self.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).method.message_count)

    def take_all(self, queue: str = DEAD) -> list[bytes]:
        """Empty a queue."""
        bodies = []
        with self.channel() as channel:
            while True:
                method, _, body = channel.basic_get(queue, auto_ack=True)
                if method is None:
                    return bodies
                bodies.append(body)

    def connections(self) -> int:
        """Open connections of the vhost."""
        return self._number(f"length([1 || [{{vhost, V}}] <- {_ALL}([vhost]), V =:= {self.name}])")

    def held(self) -> int:
        """Messages of all classic queues of the vhost that consumers hold; others may not ask for exclusive ones.

        Of quorum queues, the broker says so only every five seconds.
        """
        queues = f"rabbit_amqqueue:info_all({self.name}, [messages_unacknowledged])"
        return self._number(f"lists:sum([N || [{{_, N}}] <- {queues}])")

    def bound(self, exchange: str = EXCHANGE) -> int:
        """Bindings of the exchange."""
        name = f"rabbit_misc:r({self.name}, exchange, {_binary(exchange)})"
        return self._number(f"length(rabbit_binding:list_for_source({name}))")

    def _number(self, erlang: str) -> int:
        return int(self.broker.eval(erlang).removeprefix("{ok, ").removesuffix("}"))

    def cut(self) -> None:
        """The broker closes all connections of the vhost."""
        self.broker.eval(
            f'[rabbit_networking:close_connection(P, "cut by the test") || [{{pid, P}}, {{vhost, V}}] <- '
            f"{_ALL}([pid, vhost]), V =:= {self.name}]"
        )


_ALL = "rabbit_networking:connection_info_all"


def encoded(body: FrameEvent | list[FrameEvent]) -> bytes:
    return metadata.encode_batch(body) if isinstance(body, list) else metadata.encode_event(body)


class Seen:
    """A callback that keeps what it was called with; ``fails`` says for which events it raises."""

    def __init__(self, fails: Callable[[FrameEvent], bool] = lambda _: False) -> None:
        self.fails = fails
        self.calls: list[tuple[FrameEvent, Frame | None]] = []

    def __call__(self, event: FrameEvent, frame: Frame | None) -> None:
        self.calls.append((event, frame))
        if self.fails(event):
            raise ValueError("the callback was told to fail")

    @property
    def events(self) -> list[FrameEvent]:
        return [event for event, _ in self.calls]

    @property
    def numbers(self) -> list[int]:
        return [int(event.sequence) for event in self.events]

    def has(self, count: int) -> None:
        wait_until(lambda: len(self.calls) >= count, 20, f"{count} calls, not {len(self.calls)}")


@contextmanager
def running(*consumers: FrameConsumer) -> Iterator[None]:
    """Consumers, each in a thread, until the end of the block; what they raise is raised there."""
    errors: list[BaseException] = []

    def run(consumer: FrameConsumer) -> None:
        try:
            consumer.run()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(consumer,), daemon=True) for consumer in consumers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for consumer in consumers:
            consumer.stop()
        join(threads)
    if errors:
        raise errors[0]


def declared(make: Callable[..., FrameConsumer], tenant: Tenant, **options: Any) -> None:
    """Let the named queue be declared as a consumer does it, and collect."""
    consumer = make(Seen(), queue=QUEUE, **options)
    with running(consumer):
        tenant.publish(b"[]")
        wait_until(lambda: consumer.counts.received == 1, 20, "the queue is there")


def consume(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """``edge-video consume``, running."""
    return subprocess.Popen(
        [*COMMAND, "consume", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def join(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "the consumer does not end"


def _routed(channel: Any, body: bytes, key: str) -> bool:
    try:
        channel.basic_publish(EXCHANGE, key, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
    except pika.exceptions.UnroutableError:
        return False
    return True


def _binary(text: str) -> str:
    return f"<<{', '.join(map(str, text.encode()))}>>"
