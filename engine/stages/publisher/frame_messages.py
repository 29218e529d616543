"""Sends the messages that announce frames: one for each journal entry, or an array for many."""

from __future__ import annotations

from engine.config import Config
from engine.servers.amqp.broker import Broker
from engine.shm.status_page import PublisherCount, StatusPage
from engine.stages.publisher.entry_queue import EntryQueue
from engine.wire.metadata import FrameEvents, encode_batch, encode_event


class _EventMakers(dict[str, FrameEvents]):
    """By camera: makes events from its journal entries."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config

    def __missing__(self, camera: str) -> FrameEvents:
        config = self._config
        made = self[camera] = FrameEvents(config.vhost, config.prefix, camera, config.redis.ttl_seconds)
        return made


class FrameMessages:
    """Messages for the entries of ``queue``, through ``broker``. A message's token is the list of its items."""

    def __init__(self, config: Config, broker: Broker, queue: EntryQueue, page: StatusPage) -> None:
        self._metadata = config.metadata
        self._window = config.publisher.window
        self._events = _EventMakers(config)
        self._broker = broker
        self._queue = queue
        self._counts = page.counts

    def send(self) -> int:
        """Fill the window; returns the number of messages sent."""
        queue, broker, metadata = self._queue.items, self._broker, self._metadata
        sent = events = 0
        room = self._window - broker.in_flight if broker.ready else 0
        while queue and sent < room and broker.ready:
            if metadata.format == "batch":
                taken = [queue.popleft() for _ in range(min(len(queue), metadata.batch_max))]
                body = encode_batch([self._events[camera].event(entry) for camera, entry, _ in taken])
                broker.publish(body, metadata.batch_routing_key, taken)
            else:
                camera, entry, _ = item = queue.popleft()
                taken = [item]
                broker.publish(encode_event(self._events[camera].event(entry)), metadata.routing_key, taken)
            events += len(taken)
            sent += 1
        self._counts[PublisherCount.PUBLISHED] += events
        return sent
