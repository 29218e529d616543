"""The writer process's agent: drains its cameras' rings into Redis.

``do_work`` is the whole of it: poll the rings, send a batch, wait for the oldest batch's answer, commit. All else in
this file is what happens while Redis is away, and the cameras' states, which take the same way.
"""

from __future__ import annotations

import contextlib
import random
import time
from bisect import bisect_left

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import RedisUnavailable
from engine.servers.outage import Outage
from engine.shm.doorbell import Doorbell
from engine.shm.ring import Consumer, Record
from engine.shm.ring_file import Drop
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage, WriterCount
from engine.stages.writer.attempt import Attempt
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.leases import Leases
from engine.stages.writer.marks import WrittenMarks
from engine.stages.writer.open_rings import OpenRings
from engine.stages.writer.reconcile import Reconciler
from engine.stages.writer.states import CameraStates
from engine.stages.writer.store import Refused, RingBatch, Store
from engine.wire import keys
from engine.wire.lease import Lease

#: Batches that may be in flight: one is sent while the one before is being stored.
_BATCHES_IN_FLIGHT = 2
#: Pauses between tries to connect, in seconds: doubling, with jitter. The longest bounds what an outage costs on top.
_BACKOFF_SECONDS_MIN = 0.05
_BACKOFF_SECONDS_MAX = 1.0
#: Seconds that an idle writer sleeps at most, and one without Redis.
_IDLE_SECONDS = 0.25
_AWAY_SECONDS = 0.02
#: Seconds that a busy writer sleeps before it listens for the next frame: one look, one transaction and one wake-up
#: then serve the frames of several cameras. Busy is who stores so many frames a second that a nap brings in two.
_NAP_SECONDS = 0.0015
_NAP_FRAMES_PER_SECOND = 2 / _NAP_SECONDS
#: Seconds between looks at the cameras' states and at rings that may have come.
_STATES_SECONDS = 0.25
#: Seconds that a stop with empty rings waits for a Redis that is away, to ask it what it still has.
_LAST_LOOK_SECONDS = 2.0
#: Share of a ring that is kept free while Redis is away, so that its producer always finds room for the next frames.
_RESERVE_SHARE = 8


#: Frames of several rings that go to Redis in one transaction.
Batch = list[tuple[CameraWriter, list[Record]]]


class WriterAgent:
    """Writer ``number`` of the site; drains the rings of its cameras as they come and go. ``own`` is what its leases
    say; with None it takes none."""

    def __init__(
        self, config: Config, number: int, page: StatusPage, log: FilteringBoundLogger, own: Lease | None = None
    ) -> None:
        self.role_name = f"writer {number}" if config.writer.writers > 1 else "writer"
        self.finished = False
        self._config = config
        self._page = page
        self._log = log
        self._doorbell = Doorbell(SitePaths.of(config).doorbell(number), page)
        self._store = Store(config.redis_address, config.redis.timeout_seconds, page.beat)
        self._reconciler = Reconciler(self._store, log, self._warn_once)
        self._rings = OpenRings(config, number, log, self._warn_once)
        self._drains, self._pages = self._rings.drains, self._rings.pages
        self._marks = WrittenMarks(self._store, config.vhost, config.prefix, self._warn_once)
        self._leases = Leases(config, own, self._store, log) if own else None
        self._states = CameraStates(self._store, keys.cameras_key(config.vhost, config.prefix), log)
        self._in_flight: list[Batch] = []
        self._troubled: list[tuple[CameraWriter, list[Record], dict[int, str]]] = []
        #: Cameras whose journals take no frames, until they do.
        self._barred: set[str] = set()
        #: The drains by place, and what is looked at to see whether their rings have frames.
        self._order: list[CameraWriter] = []
        self._heads: list[tuple[memoryview, Consumer]] = []
        self._next_ring = 0
        self._states_at = 0.0
        self._attempt: Attempt | None = None
        #: True once what was in doubt has been asked for: what an outage left, what Redis has still of what adopted
        #: rings stored.
        self._settled = False
        #: Until when (monotonic seconds) a stop waits for its last look at Redis; 0 before it is due.
        self._last_look_until = 0.0
        self._retry_at = 0.0
        self._failures = 0
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
        # States go out between batches; while a look is due, no new batch delays it.
        due = time.monotonic() >= self._states_at
        if due and not self._in_flight:
            self._look_around()
            due = False
        try:
            if not self._ready():
                self._relieve()
                return 0
            while not due and len(self._in_flight) < _BATCHES_IN_FLIGHT:
                batch, all_taken = self._poll()
                if batch:
                    self._in_flight.append(batch)
                    self._store.send([self._ring_batch(drain, records) for drain, records in batch])
                if all_taken:
                    break
            stored = self._commit_oldest() if self._in_flight else 0
            if self._troubled:
                self._settle_refused()
            return stored
        except RedisUnavailable as error:
            self._lost(error)
            return 0

    def idle(self) -> None:
        """Nothing to do: sleep until a producer rings."""
        if self._store.connected and time.monotonic() >= self._retry_at:
            if self._busy and not self._napped:
                self._napped = True
                time.sleep(_NAP_SECONDS)
                return
            self._doorbell.wait(_IDLE_SECONDS, self._any_pending)
        else:
            time.sleep(_AWAY_SECONDS)

    def drained(self) -> bool:
        """True when every ring is empty and no capture process is left that could fill one."""
        if self._in_flight or any(drain.consumer.held_bytes for drain in self._drains.values()):
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
        if not self._store.connected or now < self._retry_at:
            return now > self._last_look_until
        try:
            self._reconciler.count_lost(self._order)
        except RedisUnavailable as error:
            self._lost(error)
            return False
        return True

    def on_close(self) -> None:
        """Announce the cameras' last states, and give all back."""
        try:
            if self._store.connected and not self._in_flight:
                self._reconciler.count_lost(self._order)
                self._marks.write(list(self._drains.values()))
                self._states.publish(self._pages)
                if self._leases:
                    self._leases.release(list(self._drains))
        except RedisUnavailable as error:
            self._log.warning("last camera states not written", error=error)
        self._store.close()
        self._rings.close()
        self._doorbell.close()

    # Rings to Redis

    def _poll(self) -> tuple[Batch, bool]:
        """The next batch: frames of as many rings as its bounds allow, beginning where the last batch ended; and True
        where it takes all there is.

        A ring is in one batch at a time, so that a batch that is refused cannot be overtaken by its successor.
        """
        bytes_left, frames_left = self._config.writer.batch_kb * 1024, self._config.writer.batch_frames
        busy = {drain.camera for batch in self._in_flight for drain, _ in batch}
        drains = self._order
        waiting = self._waiting()
        first = bisect_left(waiting, self._next_ring)
        batch: Batch = []
        for place in waiting[first:] + waiting[:first]:
            drain = drains[place]
            if drain.camera in busy:
                continue
            records = drain.consumer.poll(bytes_left, frames_left)
            if not records:
                continue
            batch.append((drain, records))
            frames_left -= len(records)
            bytes_left -= sum(len(record.payload) for record in records)
            if frames_left <= 0 or bytes_left <= 0:
                self._next_ring = (place + 1) % len(drains)
                return batch, False
        return batch, True

    def _ring_batch(self, drain: CameraWriter, records: list[Record]) -> RingBatch:
        trim_nano = drain.upkeep.trim_nano(time.monotonic())
        return RingBatch(drain.framing, records, trim_nano, drain.next_number())

    def _commit_oldest(self) -> int:
        """Wait for the oldest batch and give back the space of what Redis has; returns the number of its frames."""
        batch = self._in_flight[0]
        try:
            refused = self._store.receive()
        except Refused:
            del self._in_flight[0]
            for drain, _ in batch:
                drain.consumer.rewind()
            raise
        del self._in_flight[0]
        now_nano = time.monotonic_ns()
        for (drain, records), entry_errors in zip(batch, refused, strict=True):
            drain.refused = bool(entry_errors)
            if entry_errors:
                self._troubled.append((drain, records, entry_errors))
            else:
                drain.consumer.commit(records, now_nano)
            drain.upkeep.stored(records[-1].unix_nano, now_nano / 1e9)
        self._page.counts[WriterCount.BATCHES] += 1
        stored = sum(len(records) for _, records in batch)
        self._stored += stored
        self._napped = False
        self._failures = 0
        self._outage.over()
        return stored

    def _settle_refused(self) -> None:
        while self._in_flight:
            self._commit_oldest()
        troubled, self._troubled = self._troubled, []
        for drain, records, errors in troubled:
            obstacle = self._reconciler.settle_refused(drain, records, errors)
            if obstacle:
                self._barred.add(drain.camera)
                self._arrange()
                self._log.error(
                    "the journal takes no frames; they are counted as refused", camera=drain.camera, error=obstacle
                )

    def _look_at_barred(self) -> None:
        """Frames of a journal that takes none go one way or the other: nothing is sent before it can be listed, which
        would also keep the journal from its expiry."""
        for camera in sorted(self._barred):
            drain = self._drains[camera]
            if self._reconciler.obstacle(drain):
                drain.consumer.release_oldest(drain.consumer.area, Drop.REFUSED)
                continue
            self._barred.remove(camera)
            self._arrange()
            self._log.info("the journal takes frames again", camera=camera)

    def _arrange(self) -> None:
        """The rings have changed that batches are taken from."""
        self._order = [drain for camera, drain in self._drains.items() if camera not in self._barred]
        self._heads = [(drain.consumer.head_word, drain.consumer) for drain in self._order]
        self._next_ring = 0

    def _waiting(self) -> list[int]:
        """The places of the rings that have frames which were not polled yet."""
        return [place for place, (head, ring) in enumerate(self._heads) if head[0] != ring.cursor]

    def _any_pending(self) -> bool:
        return any(head[0] != ring.cursor for head, ring in self._heads)

    # While Redis is away

    def _ready(self) -> bool:
        """True with a connection that may be used now; otherwise one more step towards it."""
        if time.monotonic() < self._retry_at:
            return False
        if self._store.connected and self._settled:
            return True
        if not self._store.connected:
            if self._attempt is None:
                self._page.counts[WriterCount.CONNECTS] += 1
                self._attempt = Attempt(self._store.open)
            if not self._attempt.done():
                return False
            attempt, self._attempt = self._attempt, None
            self._settled = False
            self._store.attach(attempt.result())
            self._states.forget()
        self._reconciler.reconnected(self._order)
        self._marks.begin(self._order)
        self._settled = True
        return True

    def _lost(self, error: RedisUnavailable) -> None:
        """Begin again at every tail, after a pause. Said once an outage."""
        if isinstance(error, Refused):
            self._page.counts[WriterCount.RETRIES] += 1
            while self._store.connected and self._in_flight:
                with contextlib.suppress(RedisUnavailable):
                    self._commit_oldest()
        if not self._store.connected:
            for batch in self._in_flight:
                for drain, records in batch:
                    drain.uncertain += records
        self._in_flight.clear()
        self._troubled.clear()
        # A server that refuses may be one that becomes another's replica, and loses what that one never had.
        self._settled = False
        for drain in self._drains.values():
            drain.consumer.rewind()
        self._failures += 1
        pause = min(_BACKOFF_SECONDS_MIN * 2.0 ** min(self._failures, 10), _BACKOFF_SECONDS_MAX)
        self._retry_at = time.monotonic() + pause * random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret
        self._outage.lost(error)

    def _relieve(self) -> None:
        """Redis is away: keep room for the newest frames by giving up the oldest, if the site wants it so."""
        if self._config.ring.overflow != "drop-oldest":
            return
        for drain in self._drains.values():
            reserve = max(drain.consumer.capacity // _RESERVE_SHARE, 3 * drain.consumer.largest_frame)
            reserve = min(reserve, drain.consumer.capacity // 2)
            if drain.consumer.free_bytes < reserve:
                drain.consumer.release_oldest(reserve, Drop.OUTAGE)

    # Rings and states that come and change

    def _look_around(self) -> None:
        """Open rings that have appeared, and pass on states that have changed."""
        now = time.monotonic()
        self._busy = self._stored > _NAP_FRAMES_PER_SECOND * (_STATES_SECONDS + now - self._states_at)
        self._stored = 0
        self._states_at = now + _STATES_SECONDS
        usable = self._store.connected and now >= self._retry_at
        try:
            if usable:
                # Before a camera is let go, whose last state this is.
                self._states.publish(self._pages)
            self._follow_rings()
            if usable:
                self._reconciler.look(self._order)
                self._look_at_barred()
                self._marks.look(self._order)
                if self._leases:
                    self._leases.look(self._drains)
                    self._page.counts[WriterCount.CONTESTED] = len(self._leases.rivals)
                # With frames at hand it is their storing that tells.
                if not any(drain.consumer.held_bytes for drain in self._order):
                    self._outage.over()
        except RedisUnavailable as error:
            self._lost(error)

    def _follow_rings(self) -> bool:
        """Open the rings that have come, let go those that went; True where there were any."""
        if not self._rings.look():
            return False
        self._barred &= self._drains.keys()
        self._arrange()
        self._settled = False
        return True

    def _warn_once(self, camera: str, event: str, error: str) -> None:
        if camera + event not in self._warned:
            self._warned.add(camera + event)
            self._log.warning(event, camera=camera, error=error)
