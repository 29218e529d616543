"""Sends stored frames with their payloads to an AMQP exchange, oldest first, after an outage of the uplink.

A frame counts as sent when the broker has confirmed it and a queue took it. After each confirm the job records that in
Redis (``sent_ranges.py``), and with ``delete`` removes the frame in the same transaction. So a killed job continues at
the exact frame: a frame that was confirmed but not recorded is sent twice, with the same message id, and no frame is
left out. The job holds at most one window of frames. After a broken connection it sends the unconfirmed frames again.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from engine.backoff import Backoff
from engine.client.frame import Frame, FrameEntry
from engine.client.store import FrameStore
from engine.client.times import When, window
from engine.errors import BrokerUnavailable, ServerRefused
from engine.jobs.sent_ranges import Spans
from engine.servers.amqp.broker import Broker
from engine.servers.amqp.parameters import payload_properties
from engine.servers.redis.errors import Command
from engine.servers.redis.session import Session
from engine.wire import keys
from engine.wire.rfc3339 import NANO, rfc3339

#: Exchange and routing key of the product's recovery service, and the properties of its messages.
EXCHANGE = "cameras"
ROUTING_KEY = "camera.backup"
CONTENT_TYPE = "application/octet-stream"
#: Frames and bytes that may be unconfirmed at a time.
_WINDOW_FRAMES = 64
_WINDOW_BYTES = 16 * 2**20
#: Frames and bytes fetched ahead of the window.
_AHEAD_FRAMES = 32
_AHEAD_BYTES = 4 * 2**20
#: The longest single wait for the broker, in seconds.
_PUMP_SECONDS = 0.2
#: Pauses between tries to connect, in seconds.
_BACKOFF_SECONDS_MIN = 0.5
_BACKOFF_SECONDS_MAX = 30.0


class RecoveryReport(msgspec.Struct):
    """Counts: frames that the broker confirmed, their bytes, frames deleted, frames that expired before they were sent,
    and connections lost."""

    confirmed: int = 0
    bytes: int = 0
    deleted: int = 0
    gone: int = 0
    reconnects: int = 0


class Rate:
    """Limits frames per second and bytes per second; None means no limit."""

    def __init__(self, frames_per_second: float | None, bytes_per_second: float | None) -> None:
        self._frame_seconds = 1 / frames_per_second if frames_per_second else 0.0
        self._byte_seconds = 1 / bytes_per_second if bytes_per_second else 0.0
        self._due = time.monotonic()

    def wait_seconds(self) -> float:
        """Seconds until the next frame may be sent; 0 if it may be sent now."""
        return max(self._due - time.monotonic(), 0.0)

    def sent(self, size: int) -> None:
        """A frame of ``size`` bytes was sent."""
        self._due = max(self._due, time.monotonic()) + max(self._frame_seconds, size * self._byte_seconds)


class Recovery:
    """One run over a tenant's frames.

    ``delete`` removes confirmed frames. ``on_confirmed`` is called for each confirmed frame, ``on_away`` for each lost
    connection, with the reason.
    """

    def __init__(
        self,
        store: FrameStore,
        session: Session,
        broker: Broker,
        routing_key: str,
        rate: Rate,
        *,
        delete: bool = False,
        on_confirmed: Callable[[FrameEntry], None] = lambda _: None,
        on_away: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._session = session
        self._broker = broker
        self._routing_key = routing_key
        self._rate = rate
        self._delete = delete
        self._on_confirmed = on_confirmed
        self._on_away = on_away
        self._sent_key = keys.recovery_key(store.vhost, store.prefix)
        self._unconfirmed: deque[Frame] = deque()
        self._unconfirmed_bytes = 0
        self._begin = (0, 0)
        self._sent: dict[str, Spans] = {}
        self._backoff = Backoff(_BACKOFF_SECONDS_MIN, _BACKOFF_SECONDS_MAX)
        self._retry_at = 0.0
        self.report = RecoveryReport()

    def pending(
        self, cameras: Sequence[str], start: When | None, end: When | None, *, again: bool = False
    ) -> Iterator[FrameEntry]:
        """The entries to send, oldest first over all cameras. Sent ones are left out unless ``again``."""
        # Resolved once: a relative start that moved between cameras would skip frames and record them as sent.
        first, last = window(start, end, time.time_ns())
        self._begin = (first, 0)
        sent = self._session.call(*(("HGET", self._sent_key, camera) for camera in cameras))
        self._sent = {camera: Spans.parse(text or b"") for camera, text in zip(cameras, sent, strict=True)}
        walks = [self._unsent(camera, first, last, again=again) for camera in cameras]
        return heapq.merge(*walks, key=lambda entry: (entry.unix_nano, entry.camera, entry.sequence))

    def run(self, entries: Iterator[FrameEntry]) -> RecoveryReport:
        """Send all entries, and wait for the last confirm.

        Waits while the broker is away. Raises ServerRefused if no queue takes the frames, RedisUnavailable if Redis is
        away.
        """
        for part in _parts(entries):
            for frame in self._store.get_many(entry.key for entry in part):
                if frame is None:
                    self.report.gone += 1
                    continue
                while (wait := self._rate.wait_seconds()) or not self._has_room(frame):
                    self._turn(min(wait or _PUMP_SECONDS, _PUMP_SECONDS))
                self._rate.sent(frame.size)
                self._send(frame)
        while self._unconfirmed:
            self._turn(_PUMP_SECONDS)
        return self.report

    def _unsent(self, camera: str, first: int, last: int, *, again: bool) -> Iterator[FrameEntry]:
        before = Spans() if again else Spans.parse(self._sent[camera].text.encode())
        for entry in self._store.entries(camera, first, last):
            if (entry.unix_nano, entry.sequence) not in before:
                yield entry

    def _has_room(self, frame: Frame) -> bool:
        if not self._broker.ready:
            return False
        full = self._unconfirmed_bytes + frame.size > _WINDOW_BYTES or len(self._unconfirmed) >= _WINDOW_FRAMES
        return not self._unconfirmed or not full

    def _send(self, frame: Frame) -> None:
        self._unconfirmed.append(frame)
        self._unconfirmed_bytes += frame.size
        self._publish(frame)

    def _publish(self, frame: Frame) -> None:
        self._broker.publish(frame.data, self._routing_key, frame, properties_of(frame))

    def _turn(self, seconds: float) -> None:
        """Serve the connection and record confirms."""
        try:
            if not self._broker.opened:
                if (pause := self._retry_at - time.monotonic()) > 0:
                    time.sleep(min(pause, seconds))
                    return
                self._broker.open()
                while not self._broker.ready:
                    self._broker.pump(seconds)
                self._backoff.reset()
                for frame in self._unconfirmed:
                    self._publish(frame)
            self._broker.pump(seconds)
        except BrokerUnavailable as error:
            self._take()
            self._lost(error)
            return
        self._take()
        if self._broker.nacked:
            self._lost(BrokerUnavailable(f"RabbitMQ refused {self._broker.nacked} frames (nack)"))

    def _lost(self, error: BrokerUnavailable) -> None:
        unroutable = self._broker.unroutable
        self._broker.close()
        if unroutable:
            raise ServerRefused.of(error)
        self.report.reconnects += 1
        self._retry_at = time.monotonic() + self._backoff.next_seconds()
        self._on_away(error.fact)

    def _take(self) -> None:
        """Record confirmed frames in Redis."""
        confirmed: list[Frame] = self._broker.take_confirmed()
        if not confirmed:
            return
        for _ in confirmed:
            self._unconfirmed_bytes -= self._unconfirmed.popleft().size
        for frame in confirmed:
            # A camera's frames are sent in order: all from the start of the run up to this one were sent, or are gone.
            self._sent[frame.camera].add(self._begin, (frame.unix_nano, frame.sequence))
        changed = dict.fromkeys(frame.camera for frame in confirmed)
        pairs = [part for camera in changed for part in (camera, self._sent[camera].text)]
        commands: list[Command] = [("MULTI",), ("HSET", self._sent_key, *pairs)]
        if self._delete:
            commands.append(("UNLINK", *(frame.key for frame in confirmed)))
            for frame in confirmed:
                journal = keys.journal_key(frame.vhost, frame.prefix, frame.camera)
                commands.append(("XDEL", journal, frame.entry_id))
        replies = self._session.call(*commands, ("EXEC",))
        if self._delete:
            self.report.deleted += replies[-1][1]
        self.report.confirmed += len(confirmed)
        self.report.bytes += sum(frame.size for frame in confirmed)
        for frame in confirmed:
            self._on_confirmed(frame)


def properties_of(frame: Frame) -> Any:
    """A frame's metadata as AMQP headers. Its key is the message id, which identifies repeats."""
    return payload_properties(
        CONTENT_TYPE,
        frame.key,
        frame.unix_nano // NANO,
        {
            "camera_id": frame.camera,
            "timestamp": rfc3339(frame.unix_nano),
            "timestamp_nano": frame.unix_nano,
            "sequence": f"{frame.sequence:05d}",
            "redis_key": frame.key,
            "vhost": frame.vhost,
            "width": frame.width,
            "height": frame.height,
            "encoding": frame.encoding,
            "size_bytes": frame.size,
        },
    )


def _parts(entries: Iterator[FrameEntry]) -> Iterator[list[FrameEntry]]:
    """Split entries into parts whose payloads may be held together."""
    part: list[FrameEntry] = []
    size = 0
    for entry in entries:
        if part and (len(part) >= _AHEAD_FRAMES or size + entry.size > _AHEAD_BYTES):
            yield part
            part, size = [], 0
        part.append(entry)
        size += entry.size
    if part:
        yield part
