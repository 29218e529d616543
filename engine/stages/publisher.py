"""The publisher process's agent: journals in, confirmed messages out.

It reads each camera's journal behind its cursor, sends a message for each entry (or an array for many), and moves the
cursor only past entries whose message, and all messages before it, the broker has confirmed. Killed or cut off at any
moment, it begins again at the cursors: events come at least once, per camera in order. Nothing is held but a window of
messages and one look ahead; an outage of the broker piles up in the journals, which are in Redis anyway.
"""

from __future__ import annotations

import random
import time
from collections import deque
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import BrokerUnavailable, RedisUnavailable, ServerRefused, WireError
from engine.shm.slate import PublisherCount, Slate
from engine.stages.broker import Broker, metadata_exchange
from engine.stages.journals import Journals, cursor_of
from engine.stages.outage import Outage
from engine.wire.journal import JournalEntry, parse_entry_id
from engine.wire.metadata import FrameEvents, StatusEvent, encode_batch, encode_event
from engine.wire.rfc3339 import NANO, rfc3339
from engine.wire.state import change_of, decode_status

#: Entries held at a time, over all cameras: a few windows, so that the next messages are at hand.
_QUEUE_MAX = 2048
#: Seconds between looks for new entries: the shortest while there are some, doubling to the longest while there are
#: none. A look costs the same for one entry as for many.
_READ_SECONDS_MIN = 0.01
_READ_SECONDS_MAX = 0.04
#: Seconds that a publisher without a broker or without Redis sleeps at a time.
_AWAY_SECONDS = 0.2
#: Seconds between writes of the cursors: what a kill can make the publisher say twice.
_SAVE_SECONDS = 0.1
#: Seconds between looks at states, lag and expired entries.
_LOOK_SECONDS = 0.25
#: Pauses between tries to connect, in seconds: doubling, with jitter.
_BACKOFF_SECONDS_MIN = 0.5
_BACKOFF_SECONDS_MAX = 10.0
#: Looks for expired entries in a row before other work goes on.
_EXPIRY_ROUNDS_MAX = 64


#: A frame to announce: its camera and journal entry. A message's token is the list of those that it announces.
Item = tuple[str, JournalEntry]


class _StatusToken(NamedTuple):
    camera: str
    change: bytes


class PublisherAgent:
    """The publisher of a site."""

    role_name = "publisher"

    def __init__(self, config: Config, slate: Slate, log: FilteringBoundLogger) -> None:
        self.finished = False
        self._config = config
        self._metadata = config.metadata
        self._counts = slate.counts
        self._log = log
        cameras = [camera.id for camera in config.cameras]
        ttl = config.redis.ttl_seconds
        self._ttl_nano = ttl * NANO
        self._events = {camera: FrameEvents(config.vhost, config.prefix, camera, ttl) for camera in cameras}
        self._journals = Journals(
            config.publisher_redis_address, config.redis.timeout_seconds, config.vhost, config.prefix, cameras
        )
        self._broker = Broker(config.amqp, metadata_exchange(config.metadata))
        self._queue: deque[Item] = deque()
        #: Last confirmed, last written to Redis, and last read entry of each camera.
        self._cursors: dict[str, str] = {}
        self._saved: dict[str, str] = {}
        self._read: dict[str, str] = {}
        self._states: dict[str, bytes] = {}
        #: The change that each state tells of, and those that were sent and confirmed.
        self._changes: dict[str, bytes] = {}
        self._states_sent: dict[str, bytes] = {}
        self._states_confirmed: dict[str, bytes] = {}
        self._targets: dict[str, str] | None = None
        self._read_seconds = _READ_SECONDS_MIN
        self._read_at = self._save_at = self._look_at = self._retry_at = 0.0
        self._failures = 0
        self._redis_outage = Outage(log, "redis", "is away; nothing to announce", slate)
        self._broker_outage = Outage(log, "rabbitmq", "is away; events wait in the journals", slate)

    def on_start(self) -> None:
        """Nothing is needed before the first round."""

    def do_work(self) -> int:
        """One round: events confirmed and messages sent."""
        now = time.monotonic()
        work = self._turn_broker(now)
        try:
            if not self._cursors:
                self._begin()
            if now >= self._look_at:
                self._look_at = now + _LOOK_SECONDS
                self._look()
            if now >= self._read_at and self._wants_entries():
                self._fill()
            work += self._send()
            if now >= self._save_at:
                self._save_at = now + _SAVE_SECONDS
                self._save()
        except (RedisUnavailable, ServerRefused) as error:
            self._redis_lost(error)
            return 0
        self._redis_outage.over()
        return work

    def idle(self) -> None:
        """Wait for the broker's I/O, which may bring confirms, until the next look for entries is due; with enough
        entries at hand none is."""
        if self._broker.opened and not self._redis_outage.ongoing:
            wait = self._read_at - time.monotonic() if self._wants_entries() else _READ_SECONDS_MAX
            try:
                self._broker.pump(max(wait, 0.0))
            except BrokerUnavailable as error:
                self._broker_lost(error)
        else:
            time.sleep(_AWAY_SECONDS)

    def drained(self) -> bool:
        """True when all that stood in the journals at the first call is confirmed, or cannot be for now."""
        if self._broker_outage.ongoing or self._broker.blocked or self._redis_outage.ongoing:
            return True
        if not self._broker.ready or not self._cursors:
            return False
        try:
            if self._targets is None:
                self._targets = self._journals.newest()
                self._look()
            pending = any(
                self._states_confirmed.get(camera) != change for camera, change in self._changes.items()
            ) or any(
                parse_entry_id(self._cursors[camera]) < parse_entry_id(target)
                for camera, target in self._targets.items()
            )
        except (RedisUnavailable, ServerRefused) as error:
            self._redis_lost(error)
            return True
        return not pending

    def on_close(self) -> None:
        """Write the cursors down and leave the broker."""
        try:
            self._save()
        except (RedisUnavailable, ServerRefused) as error:
            self._log.warning("cursors not written; some events will be sent again", error=str(error))
        self._broker.close()
        self._journals.close()
        self._counts[PublisherCount.CONNECTED] = 0

    # Redis to broker

    def _begin(self) -> None:
        """Go on where the last publisher stopped."""
        cursors = self._journals.cursors()
        self._counts[PublisherCount.EXPIRED] += self._journals.missed(cursors)
        self._cursors = cursors
        self._saved = dict(cursors)
        self._read = dict(cursors)

    def _wants_entries(self) -> bool:
        return len(self._queue) < _QUEUE_MAX // 2

    def _fill(self) -> None:
        """Read the entries behind those already read."""
        room = max((_QUEUE_MAX - len(self._queue)) // max(len(self._read), 1), 1)
        found = self._journals.read(self._read, room)
        if len(found.entries) >= room:
            # There may be more of some camera than was asked for.
            self._read_at = 0.0
        else:
            self._read_seconds = _READ_SECONDS_MIN if found.entries else min(2 * self._read_seconds, _READ_SECONDS_MAX)
            self._read_at = time.monotonic() + self._read_seconds
        self._read.update(found.last)
        self._queue.extend(found.entries)
        self._counts[PublisherCount.UNREADABLE] += found.unreadable

    def _send(self) -> int:
        """Fill the window; returns the number of messages sent."""
        self._send_states()
        queue, broker, metadata = self._queue, self._broker, self._metadata
        sent = events = 0
        while queue and broker.ready and broker.in_flight < self._config.publisher.window:
            if metadata.format == "batch":
                taken = [queue.popleft() for _ in range(min(len(queue), metadata.batch_max))]
                body = encode_batch([self._events[camera].event(entry) for camera, entry in taken])
                broker.publish(body, metadata.batch_routing_key, taken)
            else:
                camera, entry = item = queue.popleft()
                taken = [item]
                broker.publish(encode_event(self._events[camera].event(entry)), metadata.routing_key, taken)
            events += len(taken)
            sent += 1
        self._counts[PublisherCount.PUBLISHED] += events
        return sent

    def _send_states(self) -> None:
        for camera, change in self._changes.items():
            if not self._broker.ready or self._states_sent.get(camera) == change:
                continue
            try:
                status = decode_status(self._states[camera])
            except WireError as error:
                self._log.warning("camera state cannot be read", camera=camera, error=str(error))
                self._states_sent[camera] = self._states_confirmed[camera] = change
                continue
            if status.state == "connecting":
                continue
            event = StatusEvent(
                camera,
                rfc3339(status.timestamp_nano),
                status.timestamp_nano,
                status.state,
                status.consecutive_failures,
                status.last_error,
            )
            self._broker.publish(encode_event(event), self._metadata.status_routing_key, _StatusToken(camera, change))
            self._states_sent[camera] = change

    def _turn_broker(self, now: float) -> int:
        """Keep the connection, take what was confirmed; returns the number of confirmed messages."""
        try:
            if not self._broker.opened:
                if now < self._retry_at:
                    return 0
                self._counts[PublisherCount.CONNECTS] += 1
                self._broker.open()
            self._broker.pump(0)
        except (BrokerUnavailable, OSError) as error:
            self._broker_lost(error)
            return 0
        if self._broker.ready and not self._counts[PublisherCount.CONNECTED]:
            self._counts[PublisherCount.CONNECTED] = 1
            self._failures = 0
            self._broker_outage.over()
            self._log.info("rabbitmq connected")
        if self._broker.blocked and self._counts[PublisherCount.CONNECTED]:
            self._counts[PublisherCount.CONNECTED] = 0
            self._broker_outage.lost(BrokerUnavailable(f"RabbitMQ takes no messages: {self._broker.blocked}"))
        confirmed = self._take_confirmed()
        if self._broker.nacked:
            self._counts[PublisherCount.NACKED] += self._broker.nacked
            self._broker_lost(BrokerUnavailable(f"RabbitMQ refused {self._broker.nacked} messages (nack)"))
        return confirmed

    def _take_confirmed(self) -> int:
        """Move the cursors past what was confirmed; returns the number of messages."""
        tokens: list[list[Item] | _StatusToken] = self._broker.take_confirmed()
        newest: dict[str, JournalEntry] = {}
        events = messages = 0
        for token in tokens:
            if isinstance(token, _StatusToken):
                self._states_confirmed[token.camera] = token.change
                self._counts[PublisherCount.STATUS_EVENTS] += 1
            else:
                newest.update(token)
                events += len(token)
                messages += 1
        self._cursors.update({camera: cursor_of(entry) for camera, entry in newest.items()})
        self._counts[PublisherCount.CONFIRMED] += events
        self._counts[PublisherCount.MESSAGES] += messages
        return len(tokens)

    # What is looked at now and then

    def _look(self) -> None:
        """States, lag, and what has expired."""
        self._states = self._journals.states()
        self._changes = {camera: change_of(text) for camera, text in self._states.items()}
        newest = self._journals.newest()
        behind = (
            parse_entry_id(last)[0] - max(parse_entry_id(self._cursors[camera])[0], self._begun_nano(camera, last))
            for camera, last in newest.items()
        )
        self._counts[PublisherCount.LAG_NANO] = max(0, *behind, 0)
        self._expire()

    def _begun_nano(self, camera: str, last: str) -> int:
        """Where nothing was ever confirmed, the lag counts from the oldest entry at hand."""
        if parse_entry_id(self._cursors[camera])[0]:
            return 0
        return next((entry.unix_nano for name, entry in self._queue if name == camera), parse_entry_id(last)[0])

    def _expire(self) -> None:
        """Drop and count the events at hand whose frames are gone, until the oldest frame at hand still lives."""
        for _ in range(_EXPIRY_ROUNDS_MAX):
            if self._broker.in_flight:
                return
            deadline = time.time_ns() - self._ttl_nano
            late = [item for item in self._queue if item[1].unix_nano < deadline]
            alive = self._journals.alive(late)
            gone = {id(item) for item, lives in zip(late, alive, strict=True) if not lives}
            if not gone:
                return
            for item in late:
                if id(item) in gone:
                    self._cursors[item[0]] = cursor_of(item[1])
            self._queue = deque(item for item in self._queue if id(item) not in gone)
            self._counts[PublisherCount.EXPIRED] += len(gone)
            self._fill()

    def _save(self) -> None:
        changed = {camera: cursor for camera, cursor in self._cursors.items() if self._saved[camera] != cursor}
        if changed:
            self._journals.save_cursors(changed)
            self._saved.update(changed)

    # Outages

    def _rewind(self) -> None:
        """Forget what is not confirmed, and read it again."""
        self._queue.clear()
        self._read = dict(self._cursors)
        self._states_sent = dict(self._states_confirmed)

    def _broker_lost(self, error: Exception) -> None:
        self._take_confirmed()
        self._broker.close()
        self._counts[PublisherCount.CONNECTED] = 0
        self._rewind()
        self._failures += 1
        pause = min(_BACKOFF_SECONDS_MIN * 2.0 ** min(self._failures - 1, 10), _BACKOFF_SECONDS_MAX)
        self._retry_at = time.monotonic() + pause * random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret
        self._broker_outage.lost(error)

    def _redis_lost(self, error: RedisUnavailable | ServerRefused) -> None:
        self._journals.close()
        # The next round asks Redis for something, and does not take its silence for an answer.
        self._look_at = 0.0
        self._redis_outage.lost(error)
