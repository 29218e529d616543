"""What the writer's agents for one server and for a cluster have in common: the rings and all that is kept of them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.shm.doorbell import Doorbell
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage, WriterCount
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.reconcile import Reconciler
from engine.stages.writer.rotation import Rotation
from engine.stages.writer.site_name import WriterLeases
from engine.stages.writer.states import CameraStates
from engine.stages.writer.store import Caller
from engine.stages.writer.streams import Streams
from engine.wire import keys
from engine.wire.lease import Lease

#: Longest sleep of an idle writer, and of one without Redis, in seconds.
IDLE_SECONDS = 0.25
AWAY_SECONDS = 0.02
#: Seconds between looks at the cameras' states and for new rings.
LOOK_SECONDS = 0.25
#: Seconds that a stop with empty rings waits while Redis is away, to ask which frames it still has.
_LAST_LOOK_SECONDS = 2.0


class FrameStorage(Caller, Protocol):
    """Where an agent stores frames: one server or a cluster."""

    @property
    def in_flight(self) -> int:
        """Batches or deliveries that were sent and whose fate the agent has not learnt."""
        ...


class BaseAgent(ABC):
    """Writer ``number`` of the site: stores the frames of its cameras, which may come and go, through ``store``.

    ``own`` is the content of its leases; with None it takes no leases.
    """

    def __init__(
        self,
        config: Config,
        number: int,
        page: StatusPage,
        log: FilteringBoundLogger,
        own: Lease | None,
        store: FrameStorage,
    ) -> None:
        self.finished = False
        self._storage = store
        self._drop_oldest = config.ring.overflow == "drop-oldest"
        #: Bytes and frames of one batch.
        self._batch_max = (config.writer.batch_kb * 1024, config.writer.batch_frames)
        #: Seconds that a busy writer lingers before it listens for the next frame. One look, one transaction and one
        #: wake-up then serve the frames of several cameras.
        self._linger_seconds = config.writer.linger_ms / 1000
        self._page = page
        self._log = log
        self._doorbell = Doorbell(SitePaths.of(config).doorbell(number), page)
        self._reconciler = Reconciler(store, log, self._warn_once)
        self._streams = Streams(config, number, store, log, self._warn_once)
        self._rotation = Rotation()
        self._leases = WriterLeases(config, number, own, store, log) if own else None
        self._states = CameraStates(store, keys.cameras_key(config.vhost, config.prefix), log)
        self._look_at = 0.0
        #: Until when (monotonic seconds) a stop waits for its last look at Redis; 0 before it is due.
        self._last_look_until = 0.0
        #: Frames stored since the last look around; if at least one arrives per linger; if it lingered since the last
        #: stored frame.
        self._stored = 0
        self._busy = self._lingered = False
        self._warned: set[str] = set()

    @property
    def _writers(self) -> list[CameraWriter]:
        return self._streams.writers

    def _begin_look(self) -> None:
        """A look around begins: find out whether the writer is busy."""
        now = time.monotonic()
        elapsed = LOOK_SECONDS + now - self._look_at
        self._busy = self._stored * self._linger_seconds > elapsed
        self._stored = 0
        self._look_at = now + LOOK_SECONDS

    def _rest(self) -> None:
        """Sleep until a producer wakes the writer; a busy writer lingers first."""
        if self._busy and not self._lingered:
            self._lingered = True
            time.sleep(self._linger_seconds)
            return
        self._doorbell.wait(IDLE_SECONDS, self._rotation.any_pending)

    def _bar(self, writer: CameraWriter, obstacle: str) -> None:
        """The journal of a camera takes no frames."""
        writer.barred = True
        self._rotation.arrange(self._writers)
        self._log.error(
            "the journal takes no frames; they are counted as refused", camera=writer.camera, error=obstacle
        )

    def _look_at_barred(self, writer: CameraWriter) -> None:
        """While a journal accepts no frames, count its camera's frames as refused. Raises RedisUnavailable."""
        if self._reconciler.obstacle(writer):
            writer.refuse_all()
            return
        writer.barred = False
        self._rotation.arrange(self._writers)
        self._log.info("the journal takes frames again", camera=writer.camera)

    def _look_at_leases(self) -> None:
        """Renew the leases if it is time. Raises RedisUnavailable."""
        if self._leases:
            self._leases.look(self._streams.cameras)
            self._page.counts[WriterCount.CONTESTED] = self._leases.contested

    @abstractmethod
    def _follow_rings(self) -> bool:
        """Open new rings, and release removed ones; True if there were any."""

    # The end

    def drained(self) -> bool:
        """True if every ring is empty, no capture process is left that could fill one, and Redis was asked a last time
        which frames it still has. If it cannot be asked in time, that is left out."""
        if self._storage.in_flight or any(writer.consumer.held_bytes for writer in self._writers):
            return False
        if any(page.owned for page in self._streams.pages.values()):
            return False
        # A ring may have appeared since the last look around.
        if self._follow_rings() or self._streams.behind:
            return False
        now = time.monotonic()
        self._last_look_until = self._last_look_until or now + _LAST_LOOK_SECONDS
        return self._looked_last() or now > self._last_look_until

    @abstractmethod
    def _looked_last(self) -> bool:
        """Ask Redis which frames it still has; True if it has answered."""

    def _count_try(self) -> None:
        self._page.counts[WriterCount.CONNECTS] += 1

    def _warn_once(self, camera: str, event: str, error: str) -> None:
        if camera + event not in self._warned:
            self._warned.add(camera + event)
            self._log.warning(event, camera=camera, error=error)
