"""A plain pika consumer in a thread, written as on the product page, that keeps what it was sent."""

from __future__ import annotations

import json
import threading
from typing import Any, Self

import pika

from tests.servers.rabbitmq import RabbitMQ


class Consumer:
    """Collects metadata events of a vhost; ``durable`` queue and exchange outlive a restart of the broker."""

    QUEUE = "collector"

    def __init__(self, broker: RabbitMQ, vhost: str) -> None:
        self._broker = broker
        self._vhost = vhost
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._messages: list[tuple[str, Any]] = []
        connection = broker.connect(vhost)
        channel = connection.channel()
        channel.exchange_declare("camera.metadata", exchange_type="topic", durable=True)
        channel.queue_declare(self.QUEUE, durable=True)
        channel.queue_bind(self.QUEUE, "camera.metadata", "camera.metadata.#")
        connection.close()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._consume()
            except (pika.exceptions.AMQPError, OSError):
                self._stop.wait(0.2)

    def _consume(self) -> None:
        connection = self._broker.connect(self._vhost)
        channel = connection.channel()
        channel.basic_qos(prefetch_count=500)
        for method, _, body in channel.consume(self.QUEUE, inactivity_timeout=0.2):
            if method is not None:
                with self._lock:
                    self._messages.append((method.routing_key, json.loads(body)))
                channel.basic_ack(method.delivery_tag)
            if self._stop.is_set():
                break
        connection.close()

    def frames(self) -> list[dict[str, Any]]:
        """All frame events, in the order received."""
        with self._lock:
            return [body for key, body in self._messages if key == "camera.metadata.event"]

    def statuses(self, camera: str) -> list[dict[str, Any]]:
        """A camera's status events, in the order received."""
        with self._lock:
            found = [body for key, body in self._messages if key == "camera.metadata.event.status"]
        return [body for body in found if body["camera_id"] == camera]

    def sequences(self) -> dict[str, list[int]]:
        """Sequence numbers by camera, in the order received."""
        numbers: dict[str, list[int]] = {}
        for event in self.frames():
            numbers.setdefault(event["camera_id"], []).append(int(event["sequence"]))
        return numbers


def first_times(numbers: list[int]) -> list[int]:
    """Each number where it came first: repeats, which at-least-once allows, taken out."""
    return list(dict.fromkeys(numbers))
