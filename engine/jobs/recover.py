"""Sends stored frames with their payloads to an AMQP exchange, oldest first, after an outage of the uplink. If wanted,
it sends the access units of stored video, too.

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
from engine.client.video import VideoEntry, VideoUnit, unit_with_data
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


#: A frame, or an access unit, with its payload.
Payload = Frame | VideoUnit


class RecoveryReport(msgspec.Struct):
    """Counts: frames that the broker confirmed, how many ``units`` of them were access units, their bytes, frames
    deleted, frames that expired before they were sent, and connections lost."""

    confirmed: int = 0
    units: int = 0
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
    """One run over a tenant's frames. Access units get a routing key of their own: ``.video`` behind ``routing_key``.

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
        self._unconfirmed: deque[Payload] = deque()
        self._unconfirmed_bytes = 0
        self._begin = (0, 0)
        #: What was sent of each camera's frames, and of its video.
        self._sent: dict[tuple[str, bool], Spans] = {}
        self._backoff = Backoff(_BACKOFF_SECONDS_MIN, _BACKOFF_SECONDS_MAX)
        self._retry_at = 0.0
        self.report = RecoveryReport()

    def pending(
        self, cameras: Sequence[str], start: When | None, end: When | None, *, again: bool = False, video: bool = False
    ) -> Iterator[FrameEntry]:
        """The entries to send, oldest first over all cameras; with ``video`` also those of access units. Sent ones are
        left out unless ``again``."""
        # Resolved once: a relative start that moved between cameras would skip frames and record them as sent.
        first, last = window(start, end, time.time_ns())
        self._begin = (first, 0)
        kinds = [(camera, kind) for camera in cameras for kind in ((False, True) if video else (False,))]
        sent = self._session.call(*(("HGET", self._sent_key(video=kind), camera) for camera, kind in kinds))
        self._sent = {kind: Spans.parse(text or b"") for kind, text in zip(kinds, sent, strict=True)}
        walks = [self._unsent(camera, first, last, again=again, video=kind) for camera, kind in kinds]
        return heapq.merge(*walks, key=lambda entry: (entry.unix_nano, entry.camera, entry.sequence))

    def run(self, entries: Iterator[FrameEntry]) -> RecoveryReport:
        """Send all entries, and wait for the last confirm.

        Waits while the broker is away. Raises ServerRefused if no queue takes the frames, RedisUnavailable if Redis is
        away.
        """
        for part in _parts(entries):
            for frame in self._fetch(part):
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

    def _sent_key(self, *, video: bool) -> str:
        name = keys.video_recovery_key if video else keys.recovery_key
        return name(self._store.vhost, self._store.prefix)

    def _unsent(self, camera: str, first: int, last: int, *, again: bool, video: bool) -> Iterator[FrameEntry]:
        before = Spans() if again else Spans.parse(self._sent[camera, video].text.encode())
        entries = self._store.video_entries if video else self._store.entries
        for entry in entries(camera, first, last):
            if (entry.unix_nano, entry.sequence) not in before:
                yield entry

    def _fetch(self, entries: Sequence[FrameEntry]) -> Iterator[Payload | None]:
        """The payloads of some entries, in their order; None for each that is gone."""
        frames = iter(self._store.get_many(entry.key for entry in entries if not isinstance(entry, VideoEntry)))
        units = [entry for entry in entries if isinstance(entry, VideoEntry)]
        data = iter(self._session.call(("MGET", *(unit.key for unit in units)))[0] if units else ())
        for entry in entries:
            if not isinstance(entry, VideoEntry):
                yield next(frames)
            else:
                payload = next(data)
                yield None if payload is None else unit_with_data(entry, payload)

    def _has_room(self, frame: Payload) -> bool:
        if not self._broker.ready:
            return False
        full = self._unconfirmed_bytes + frame.size > _WINDOW_BYTES or len(self._unconfirmed) >= _WINDOW_FRAMES
        return not self._unconfirmed or not full

    def _send(self, frame: Payload) -> None:
        self._unconfirmed.append(frame)
        self._unconfirmed_bytes += frame.size
        self._publish(frame)

    def _publish(self, frame: Payload) -> None:
        routing_key = video_routing_key(self._routing_key) if isinstance(frame, VideoUnit) else self._routing_key
        self._broker.publish(frame.data, routing_key, frame, properties_of(frame))

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
        pause = self._backoff.next_seconds() if self._broker.hosts.round_over else 0.0
        self._retry_at = time.monotonic() + pause
        self._on_away(error.fact)

    def _take(self) -> None:
        """Record confirmed frames in Redis."""
        confirmed: list[Payload] = self._broker.take_confirmed()
        if not confirmed:
            return
        for _ in confirmed:
            self._unconfirmed_bytes -= self._unconfirmed.popleft().size
        for frame in confirmed:
            # A camera's frames are sent in order: all from the start of the run up to this one were sent, or are gone.
            self._sent[_kind(frame)].add(self._begin, (frame.unix_nano, frame.sequence))
        records: list[Command] = [
            ("HSET", self._sent_key(video=video), camera, self._sent[camera, video].text)
            for camera, video in dict.fromkeys(map(_kind, confirmed))
        ]
        self.report.deleted += self._record(records, _deletion(confirmed) if self._delete else [])
        self.report.confirmed += len(confirmed)
        self.report.units += sum(isinstance(frame, VideoUnit) for frame in confirmed)
        self.report.bytes += sum(frame.size for frame in confirmed)
        for frame in confirmed:
            self._on_confirmed(frame)

    def _record(self, records: list[Command], deletion: list[Command]) -> int:
        """Record what was sent, and delete it in the same step; returns the number of deleted frames.

        In a cluster the keys lie on several nodes, so deletion and record are two steps. After a kill in between, what
        is gone is not sent again, and what is left of it is sent again and deleted.
        """
        if self._session.address.cluster:
            replies = self._session.call(*deletion) if deletion else []
            self._session.call(*records)
        else:
            replies = self._session.call(("MULTI",), *deletion, *records, ("EXEC",))[-1]
        return replies[0] if deletion else 0


def _deletion(frames: Sequence[Payload]) -> list[Command]:
    """Removes frames, and then their entries."""
    commands: list[Command] = [("UNLINK", *(frame.key for frame in frames))]
    for frame in frames:
        journal = keys.video_journal_key if isinstance(frame, VideoUnit) else keys.journal_key
        commands.append(("XDEL", journal(frame.vhost, frame.prefix, frame.camera), frame.entry_id))
    return commands


def video_routing_key(routing_key: str) -> str:
    """The routing key of access units."""
    return f"{routing_key}.video"


def _kind(frame: Payload) -> tuple[str, bool]:
    """A camera, and whether this is of its video."""
    return frame.camera, isinstance(frame, VideoUnit)


def properties_of(frame: Payload) -> Any:
    """A frame's metadata as AMQP headers. Its key is the message id, which identifies repeats."""
    video = {"keyframe": frame.keyframe, "offset_us": frame.offset_us} if isinstance(frame, VideoUnit) else {}
    timed = {} if frame.camera_time_nano is None else {"camera_time_nano": frame.camera_time_nano}
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
            **video,
            **timed,
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
