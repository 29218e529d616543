"""The writer process's agent: moves frames from its cameras' rings to Redis.

``do_work`` is the whole of it: poll the rings, frame a batch, send it, wait for the oldest batch's answer, commit. Here
is only scheduled: what became of each frame is known by its ``CameraWriter``, what bytes say by a ``Batch``, what the
connection is good for by its ``Connection``.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import RedisUnavailable
from engine.servers.outage import Outage
from engine.shm.doorbell import Doorbell
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage, WriterCount
from engine.stages.writer.batch import Batch
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.connection import Connection
from engine.stages.writer.connection_state import State
from engine.stages.writer.leases import Leases
from engine.stages.writer.marks import WrittenMarks
from engine.stages.writer.open_rings import OpenRings
from engine.stages.writer.reconcile import Reconciler
from engine.stages.writer.rotation import Rotation
from engine.stages.writer.states import CameraStates
from engine.stages.writer.store import Refused, Store
from engine.wire import keys
from engine.wire.lease import Lease

#: Batches that may be in flight: one is sent while the one before is being stored.
_BATCHES_IN_FLIGHT = 2
#: Seconds that an idle writer sleeps at most, and one without Redis.
_IDLE_SECONDS = 0.25
_AWAY_SECONDS = 0.02
#: Seconds that a busy writer sleeps before it listens for the next frame: one look, one transaction and one wake-up
#: then serve the frames of several cameras. Busy: at least two frames arrive per nap.
_NAP_SECONDS = 0.0015
_NAP_FRAMES_PER_SECOND = 2 / _NAP_SECONDS
#: Seconds between looks at the cameras' states and at rings that may have come.
_LOOK_SECONDS = 0.25
#: Seconds that a stop with empty rings waits for a Redis that is away, to ask it what it still has.
_LAST_LOOK_SECONDS = 2.0


class WriterAgent:
    """Writer ``number`` of the site; stores the frames of its cameras as they come and go. ``own`` is what its leases
    say; with None it takes none."""

    def __init__(
        self, config: Config, number: int, page: StatusPage, log: FilteringBoundLogger, own: Lease | None = None
    ) -> None:
        self.finished = False
        self._drop_oldest = config.ring.overflow == "drop-oldest"
        #: Bytes and frames of one batch.
        self._batch_max = (config.writer.batch_kb * 1024, config.writer.batch_frames)
        self._page = page
        self._log = log
        self._doorbell = Doorbell(SitePaths.of(config).doorbell(number), page)
        self._store = Store(config.redis_address, config.redis.timeout_seconds, page.beat)
        self._connection = Connection(self._store, self._count_try)
        self._reconciler = Reconciler(self._store, log, self._warn_once)
        self._rings = OpenRings(config, number, log, self._warn_once)
        self._writers, self._pages = self._rings.writers, self._rings.pages
        self._rotation = Rotation()
        self._marks = WrittenMarks(self._store, config.vhost, config.prefix, self._warn_once)
        self._leases = Leases(config, own, self._store, log) if own else None
        self._states = CameraStates(self._store, keys.cameras_key(config.vhost, config.prefix), log)
        #: Of each batch in flight, the cameras that have frames in it; oldest first.
        self._in_flight: deque[list[CameraWriter]] = deque()
        #: Cameras of whose last batch the journal refused entries, until Redis was asked why.
        self._refused: list[CameraWriter] = []
        self._look_at = 0.0
        #: Until when (monotonic seconds) a stop waits for its last look at Redis; 0 before it is due.
        self._last_look_until = 0.0
        self._outage = Outage(log, "redis", "takes no frames; rings hold them, retrying", page)
        #: Frames stored since the last look around; whether they were many; whether it napped since the last of them.
        self._stored = 0
        self._busy = self._napped = False
        self._warned: set[str] = set()

    def on_start(self) -> None:
        """Open what rings there are."""
        self._look_around()

    def do_work(self) -> int:
        """One round: frames stored."""
        # Looks go out between batches; while one is due, no new batch delays it.
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
        """Nothing to do: sleep until a producer wakes the writer."""
        if self._connection.usable:
            if self._busy and not self._napped:
                self._napped = True
                time.sleep(_NAP_SECONDS)
                return
            self._doorbell.wait(_IDLE_SECONDS, self._rotation.any_pending)
        else:
            time.sleep(_AWAY_SECONDS)

    def drained(self) -> bool:
        """True when every ring is empty and no capture process is left that could fill one."""
        if self._in_flight or any(writer.consumer.held_bytes for writer in self._writers.values()):
            return False
        if any(page.owned for page in self._pages.values()):
            return False
        # A ring may have come since the last look around.
        if self._follow_rings() or self._rings.behind:
            return False
        return self._looked_last()

    def _looked_last(self) -> bool:
        """True when Redis was asked a last time what it still has, or cannot be asked in time."""
        now = time.monotonic()
        self._last_look_until = self._last_look_until or now + _LAST_LOOK_SECONDS
        if not self._connection.usable:
            return now > self._last_look_until
        try:
            self._reconciler.count_lost(self._rotation.writers)
        except RedisUnavailable as error:
            self._lost(error)
            return False
        return True

    def on_close(self) -> None:
        """Announce the cameras' last states, and give all back."""
        try:
            if self._store.connected and not self._in_flight:
                self._reconciler.count_lost(self._rotation.writers)
                self._marks.write(list(self._writers.values()))
                self._states.publish(self._pages)
                if self._leases:
                    self._leases.release(list(self._writers))
        except RedisUnavailable as error:
            self._log.warning("last camera states not written", error=error)
        self._store.close()
        self._rings.close()
        self._doorbell.close()

    # Rings to Redis

    def _commit_oldest(self) -> int:
        """Wait for the oldest batch and give back the space of what Redis has; returns the number of its frames."""
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
        self._napped = False
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
                writer.barred = True
                self._rotation.arrange(self._writers.values())
                self._log.error(
                    "the journal takes no frames; they are counted as refused", camera=writer.camera, error=obstacle
                )

    def _look_at_barred(self) -> None:
        """Frames of a journal that takes none are counted as refused, until it takes them again."""
        for writer in [writer for writer in self._writers.values() if writer.barred]:
            if self._reconciler.obstacle(writer):
                writer.refuse_all()
                continue
            writer.barred = False
            self._rotation.arrange(self._writers.values())
            self._log.info("the journal takes frames again", camera=writer.camera)

    # While Redis is away

    def _ready(self) -> bool:
        """True with a connection over which frames may be stored now; otherwise one more step towards it."""
        if self._connection.advance() is State.SETTLING:
            self._reconciler.reconnected(self._rotation.writers)
            self._marks.begin(self._rotation.writers)
            self._connection.settled()
        return self._connection.state is State.STORING

    def _lost(self, error: RedisUnavailable) -> None:
        """Begin again at every tail, after a pause. Said once an outage."""
        if isinstance(error, Refused):
            self._page.counts[WriterCount.RETRIES] += 1
            while self._store.connected and self._in_flight:
                with contextlib.suppress(RedisUnavailable):
                    self._commit_oldest()
        broke = not self._store.connected
        for writer in self._writers.values():
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
        """Redis is away: give up the oldest frames for the newest, if the site wants it so."""
        if self._drop_oldest:
            for writer in self._writers.values():
                writer.relieve()

    # Rings and states that come and change

    def _look_around(self) -> None:
        """Open rings that have appeared, and pass on states that have changed."""
        now = time.monotonic()
        self._busy = self._stored > _NAP_FRAMES_PER_SECOND * (_LOOK_SECONDS + now - self._look_at)
        self._stored = 0
        self._look_at = now + _LOOK_SECONDS
        usable = self._connection.usable
        try:
            if usable:
                # Before a camera is let go, whose last state this is.
                self._states.publish(self._pages)
            self._follow_rings()
            if usable:
                self._reconciler.look(self._rotation.writers)
                self._look_at_barred()
                self._marks.look(self._rotation.writers)
                if self._leases:
                    self._leases.look(self._writers)
                    self._page.counts[WriterCount.CONTESTED] = len(self._leases.rivals)
                # With frames at hand it is their storing that tells.
                if not any(writer.consumer.held_bytes for writer in self._rotation.writers):
                    self._outage.over()
        except RedisUnavailable as error:
            self._lost(error)

    def _follow_rings(self) -> bool:
        """Open the rings that have come, let go those that went; True where there were any."""
        if not self._rings.look():
            return False
        self._rotation.arrange(self._writers.values())
        self._connection.rings_changed()
        return True

    def _count_try(self) -> None:
        self._page.counts[WriterCount.CONNECTS] += 1

    def _warn_once(self, camera: str, event: str, error: str) -> None:
        if camera + event not in self._warned:
            self._warned.add(camera + event)
            self._log.warning(event, camera=camera, error=error)
