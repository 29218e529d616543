"""The writer process's agent: moves frames from its cameras' rings to Redis.

``do_work`` is the whole path: poll the rings, frame a batch, send it, wait for the oldest batch's answer, commit.
This module only schedules. ``CameraWriter`` tracks each frame, ``Batch`` builds and parses bytes, and ``Connection``
tracks the state of the connection.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import RedisUnavailable
from engine.servers.outage import Outage
from engine.shm.status_page import StatusPage, WriterCount
from engine.stages.writer.base import AWAY_SECONDS, BaseAgent
from engine.stages.writer.batch import Batch
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.connection import Connection
from engine.stages.writer.connection_state import State
from engine.stages.writer.store import Refused, Store
from engine.wire.lease import Lease

#: Batches that may be in flight: one is sent while Redis stores the previous one.
_BATCHES_IN_FLIGHT = 2


class WriterAgent(BaseAgent):
    """Writer ``number`` of the site: stores the frames of its cameras, which may come and go.

    ``own`` is the content of its leases; with None it takes no leases.
    """

    def __init__(
        self, config: Config, number: int, page: StatusPage, log: FilteringBoundLogger, own: Lease | None = None
    ) -> None:
        self._store = Store(config.redis_address, config.redis.timeout_seconds, page.beat)
        super().__init__(config, number, page, log, own, self._store)
        self._connection = Connection(self._store, self._count_try)
        #: For each batch in flight, the cameras that have frames in it; oldest batch first.
        self._in_flight: deque[list[CameraWriter]] = deque()
        #: Cameras whose journal refused entries of the last batch, until Redis was asked why.
        self._refused: list[CameraWriter] = []
        self._outage = Outage(log, "redis", "takes no frames; rings hold them, retrying", page)

    def on_start(self) -> None:
        """Open the existing rings."""
        self._look_around()

    def do_work(self) -> int:
        """Do one round; returns the number of frames stored."""
        # Looks happen between batches. While one is due, no new batch delays it.
        due = time.monotonic() >= self._look_at
        if due and not self._in_flight:
            self._look_around()
            due = False
        try:
            if not self._ready():
                self._relieve()
                return 0
            all_taken = due
            while not all_taken and len(self._in_flight) < _BATCHES_IN_FLIGHT:
                writers, parts, all_taken = self._rotation.poll(*self._batch_max)
                if parts:
                    self._in_flight.append(writers)
                    self._store.send(Batch(parts))
            stored = self._commit_oldest() if self._in_flight else 0
            if self._refused:
                self._settle_refused()
            return stored
        except RedisUnavailable as error:
            self._lost(error)
            return 0

    def idle(self) -> None:
        """Sleep until a producer wakes the writer."""
        if self._connection.usable:
            self._rest()
        else:
            time.sleep(AWAY_SECONDS)

    def _looked_last(self) -> bool:
        if not self._connection.usable:
            return False
        try:
            self._reconciler.count_lost(self._rotation.writers)
        except RedisUnavailable as error:
            self._lost(error)
            return False
        return True

    def on_close(self) -> None:
        """Write the cameras' last states, and release all resources."""
        try:
            if self._store.connected and not self._in_flight:
                self._reconciler.count_lost(self._rotation.writers)
                self._streams.write_marks()
                self._states.publish(self._streams.pages)
                if self._leases:
                    self._leases.release(self._streams.cameras)
        except RedisUnavailable as error:
            self._log.warning("last camera states not written", error=error)
        self._store.close()
        self._streams.close()
        self._doorbell.close()

    # Rings to Redis

    def _commit_oldest(self) -> int:
        """Wait for the oldest batch, and free the ring space of stored frames; returns the number of its frames."""
        writers = self._in_flight[0]
        try:
            answers = self._store.receive()
        except Refused:
            del self._in_flight[0]
            for writer in writers:
                writer.rewind()
            raise
        del self._in_flight[0]
        now_nano = time.monotonic_ns()
        stored = 0
        for writer, errors in zip(writers, answers, strict=True):
            stored += writer.stored(errors, now_nano)
            if errors:
                self._refused.append(writer)
        self._page.counts[WriterCount.BATCHES] += 1
        self._stored += stored
        self._lingered = False
        self._connection.stored()
        self._outage.over()
        return stored

    def _settle_refused(self) -> None:
        while self._in_flight:
            self._commit_oldest()
        refused, self._refused = self._refused, []
        for writer in refused:
            obstacle = self._reconciler.settle_refused(writer)
            if obstacle:
                self._bar(writer, obstacle)

    # While Redis is away

    def _ready(self) -> bool:
        """True if the connection may store frames now; otherwise take one more step towards that."""
        if self._connection.advance() is State.SETTLING:
            self._reconciler.reconnected(self._rotation.writers)
            self._streams.begin_marks(self._rotation.writers)
            self._connection.settled()
        return self._connection.state is State.STORING

    def _lost(self, error: RedisUnavailable) -> None:
        """Start again at every tail, after a pause. Logged once per outage."""
        if isinstance(error, Refused):
            self._page.counts[WriterCount.RETRIES] += 1
            while self._store.connected and self._in_flight:
                with contextlib.suppress(RedisUnavailable):
                    self._commit_oldest()
        broke = not self._store.connected
        for writer in self._writers:
            if broke:
                writer.connection_broke()
            else:
                writer.rewind()
        if broke:
            self._states.forget()
        self._in_flight.clear()
        self._refused.clear()
        self._connection.lost()
        self._outage.lost(error)

    def _relieve(self) -> None:
        """Redis is away: drop the oldest frames in favour of the newest, if the site is configured so."""
        if self._drop_oldest:
            for writer in self._writers:
                writer.relieve()

    # Changes of rings and states

    def _look_around(self) -> None:
        """Open new rings, and write changed states."""
        self._begin_look()
        usable = self._connection.usable
        try:
            if usable:
                # First, because this may be the last state of a camera whose ring is gone.
                self._states.publish(self._streams.pages)
            self._follow_rings()
            if usable:
                self._reconciler.look(self._rotation.writers)
                for writer in [writer for writer in self._writers if writer.barred]:
                    self._look_at_barred(writer)
                self._streams.look_at_marks(self._rotation.writers)
                self._look_at_leases()
                # If frames wait, only storing them shows that Redis is back.
                if not any(writer.consumer.held_bytes for writer in self._rotation.writers):
                    self._outage.over()
        except RedisUnavailable as error:
            self._lost(error)

    def _follow_rings(self) -> bool:
        if not self._streams.look():
            return False
        self._rotation.arrange(self._writers)
        self._connection.rings_changed()
        return True
