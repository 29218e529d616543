"""The publisher's peers: one confirmed message at a time, and unconfirmed messages. Also the receiver for the
publisher's latency."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pika
import pika.exceptions
from pika.adapters.select_connection import SelectConnection

from benchmarks.in_process import Spent, Stopwatch
from engine.wire.metadata import CONTENT_TYPE, decode_event

EXCHANGE = "camera.metadata"
QUEUE = "events"
#: Messages that are given to pika before it sends them.
_HANDFUL = 512
_PERSISTENT = pika.BasicProperties(content_type=CONTENT_TYPE, delivery_mode=2)


def declare(connection: pika.BlockingConnection) -> None:
    """The durable exchange, and a durable queue that gets every event."""
    channel = connection.channel()
    channel.exchange_declare(EXCHANGE, "topic", durable=True)
    channel.queue_declare(QUEUE, durable=True)
    channel.queue_bind(QUEUE, EXCHANGE, "camera.metadata.#")
    channel.close()


def one_at_a_time(connection: pika.BlockingConnection, bodies: Sequence[bytes], routing_key: str) -> Spent:
    """pika's BlockingConnection with confirm_delivery: each message waits for its confirm."""
    channel = connection.channel()
    channel.confirm_delivery()
    with Stopwatch() as watch:
        for body in bodies:
            channel.basic_publish(EXCHANGE, routing_key, body, _PERSISTENT)
    channel.close()
    return watch.spent


def blast(url: str, bodies: Sequence[bytes], routing_key: str) -> Spent:
    """Unconfirmed messages on pika's SelectConnection, until the broker has taken them all.

    The broker answers the channel's close after the last message. Some messages may not be in the queue then, which
    favours this side. Connecting is not timed.
    """
    watch = Stopwatch()
    state: dict[str, Any] = {}

    def publish(channel: Any, first: int = 0) -> None:
        for body in bodies[first : first + _HANDFUL]:
            channel.basic_publish(EXCHANGE, routing_key, body, _PERSISTENT)
        if first + _HANDFUL < len(bodies):
            connection.ioloop.add_callback_threadsafe(lambda: publish(channel, first + _HANDFUL))
        else:
            channel.add_on_close_callback(done)
            channel.close()

    def begin(channel: Any) -> None:
        watch.__enter__()
        publish(channel)

    def done(*_: object) -> None:
        watch.__exit__()
        connection.close()

    def ended(_: object, error: object) -> None:
        state["error"] = error
        connection.ioloop.stop()

    connection = SelectConnection(
        pika.URLParameters(url),
        on_open_callback=lambda opened: opened.channel(on_open_callback=begin),
        on_open_error_callback=ended,
        on_close_callback=ended,
    )
    connection.ioloop.start()
    assert isinstance(state["error"], pika.exceptions.ConnectionClosedByClient), state["error"]
    return watch.spent


class Receiver:
    """A consumer in its own thread. It records when each event arrived (nanoseconds UTC), by camera and time."""

    def __init__(self, connect: Callable[[], pika.BlockingConnection]) -> None:
        self.received: dict[tuple[str, int], int] = {}
        self._connect = connect
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(10)

    def _run(self) -> None:
        connection = self._connect()
        channel = connection.channel()
        channel.basic_consume(QUEUE, self._on_message, auto_ack=True)
        while not self._stop:
            connection.process_data_events(0.1)
        connection.close()

    def _on_message(self, _: Any, __: Any, ___: Any, body: bytes) -> None:
        now = time.time_ns()
        event = decode_event(body)
        self.received.setdefault((event.camera_id, event.timestamp_nano), now)
