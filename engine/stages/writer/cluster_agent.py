"""The writer process's agent for a Redis Cluster: moves frames from its cameras' rings to many nodes.

``do_work`` is the whole path, as in ``agent.py``: poll the rings, send, wait for answers, commit. Here each camera's
frames are sent independently (``delivery.py``), so that a node that is away delays only what hashes to it. Frames of
such a node wait in their rings, and the frames behind them, too. If such a ring is full, the frames that wait for the
node are dropped, and the others are stored.

Before anything of a camera is stored, it is *settled*: the node of its journal is asked which frames it has. That is
repeated whenever this node, or the link to it, becomes another one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import RedisUnavailable
from engine.shm.ring import Record
from engine.shm.status_page import StatusPage, WriterCount
from engine.stages.writer.base import AWAY_SECONDS, LAST_LOOK_SECONDS, BaseAgent
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.cluster_link import Link
from engine.stages.writer.cluster_store import ClusterStore
from engine.stages.writer.delivery import Delivery, Fate
from engine.stages.writer.missing_frames import MissingFrames
from engine.stages.writer.node_outages import NodeOutages
from engine.wire.cluster import FrameSlots
from engine.wire.lease import Lease

#: Rounds that may be in flight: frames of one are sent while entries of the other are stored.
_ROUNDS_IN_FLIGHT = 2
#: Seconds until frames that were not stored, and cameras that could not be settled, are tried again.
_RETRY_SECONDS = 0.02
_SETTLE_SECONDS = 0.1


class _Hold(NamedTuple):
    """Why a camera waits: for the node of ``slot``, and at least until ``until`` (monotonic seconds)."""

    slot: int | None
    until: float


class _Home(NamedTuple):
    """Where a camera was settled: the link of its journal, and its epoch."""

    link: Link
    epoch: int


class ClusterWriterAgent(BaseAgent):
    """See BaseAgent."""

    def __init__(
        self, config: Config, number: int, page: StatusPage, log: FilteringBoundLogger, own: Lease | None = None
    ) -> None:
        self._store = ClusterStore(config.redis_address, config.redis.timeout_seconds, page.beat, self._count_try)
        super().__init__(config, number, page, log, own, self._store)
        self._nodes = self._store.nodes
        self._missing = MissingFrames(self._store, log, self._warn_once)
        self._settled: dict[CameraWriter, _Home] = {}
        self._settled_version = -1
        self._settle_at = 0.0
        #: Cameras that wait, though they are settled.
        self._holds: dict[CameraWriter, _Hold] = {}
        self._outages = NodeOutages(log, page)

    def on_start(self) -> None:
        """Open the existing rings."""
        self._follow_rings()

    def do_work(self) -> int:
        """Do one round; returns the number of frames stored."""
        self._store.advance()
        if time.monotonic() >= self._look_at:
            self._look_around()
        self._settle()
        self._look_for_missing()
        self._relieve()
        self._send()
        if self._store.in_flight:
            self._store.wait()
        return self._commit()

    def idle(self) -> None:
        """Sleep until a producer wakes the writer, unless answers are awaited."""
        if self._store.in_flight:
            return
        settled = self._settled_version == self._nodes.version
        if self._nodes.usable and settled and not self._holds and not self._missing.pending:
            self._rest()
        else:
            time.sleep(AWAY_SECONDS)

    def drained(self) -> bool:
        """True if every ring is empty and no capture process is left that could fill one."""
        if self._store.in_flight or not self._may_be_drained():
            return False
        # A ring may have appeared since the last look around.
        if self._follow_rings() or self._streams.behind:
            return False
        return self._looked_last()

    def _looked_last(self) -> bool:
        """True after Redis was asked a last time which frames it still has, or if it cannot be asked in time."""
        now = time.monotonic()
        self._last_look_until = self._last_look_until or now + LAST_LOOK_SECONDS
        try:
            self._reconciler.count_lost(self._rotation.writers)
        except RedisUnavailable:
            return now > self._last_look_until
        return not self._missing.pending or now > self._last_look_until

    def on_close(self) -> None:
        """Write the cameras' last states, and release all resources."""
        if not self._store.in_flight:
            pages, settled = self._streams.pages, self._at_home(self._rotation.writers)
            self._try_each(
                lambda: self._reconciler.count_lost(settled),
                self._streams.write_marks,
                lambda: self._states.publish(pages),
                lambda: self._leases.release(self._streams.cameras) if self._leases else None,
            )
        self._store.close()
        self._streams.close()
        self._doorbell.close()

    # Rings to Redis

    def _send(self) -> None:
        while self._store.rounds < _ROUNDS_IN_FLIGHT:
            writers, _, all_taken = self._rotation.poll(*self._batch_max)
            if writers:
                self._store.send(writers)
            if all_taken:
                return

    def _commit(self) -> int:
        """Apply what became of deliveries; returns the number of frames stored."""
        stored, refused = 0, []
        now_nano = time.monotonic_ns()
        for delivery in self._store.take_finished():
            writer = delivery.writer
            if delivery.fate is Fate.STORED:
                stored += writer.stored(delivery.errors, now_nano)
                self._page.counts[WriterCount.BATCHES] += 1
                if delivery.errors:
                    refused.append(writer)
            elif delivery.fate is Fate.NOT_STORED:
                writer.hand_back()
                self._page.counts[WriterCount.RETRIES] += 1
            else:
                writer.connection_broke()
                self._unsettle(writer)
            self._hold(delivery)
        for writer in refused:
            self._settle_refused(writer)
        if stored:
            self._stored += stored
            self._lingered = False
        return stored

    def _hold(self, delivery: Delivery) -> None:
        """Wait for the node that did not take frames of a delivery."""
        if delivery.blocked_slot is not None:
            delivery.writer.held_back = True
            self._holds[delivery.writer] = _Hold(delivery.blocked_slot, time.monotonic() + _RETRY_SECONDS)

    def _settle_refused(self, writer: CameraWriter) -> None:
        try:
            obstacle = self._reconciler.settle_refused(writer)
        except RedisUnavailable:
            writer.rewind()
            self._unsettle(writer)
            return
        if obstacle:
            self._bar(writer, obstacle)

    # While a node is away

    def _home(self, writer: CameraWriter) -> _Home | None:
        """Where a camera's journal is; None if its node cannot be asked."""
        link = self._nodes.link_of(writer.slots.journal)
        return _Home(link, link.epoch) if link else None

    def _at_home(self, writers: Iterable[CameraWriter]) -> list[CameraWriter]:
        """The settled ones of ``writers``."""
        return [writer for writer in writers if writer in self._settled]

    def _unsettle(self, writer: CameraWriter) -> None:
        self._settled.pop(writer, None)
        writer.held_back = True
        self._settled_version, self._settle_at = -1, 0.0

    def _settle(self) -> None:
        """Settle the cameras whose journal has come to another node, or whose node is back."""
        if self._settled_version == self._nodes.version or time.monotonic() < self._settle_at:
            return
        self._settled_version = self._nodes.version
        self._settle_at = 0.0
        groups: dict[Link, list[CameraWriter]] = {}
        for writer in self._rotation.writers:
            home = self._home(writer)
            if home and self._settled.get(writer) == home:
                continue
            if writer in self._settled:
                self._unsettle(writer)
            writer.held_back = True
            if home and not writer.in_flight:
                groups.setdefault(home.link, []).append(writer)
            else:
                self._settle_later(_RETRY_SECONDS)
        for link, writers in groups.items():
            self._settle_at_node(_Home(link, link.epoch), writers)

    def _settle_at_node(self, home: _Home, writers: list[CameraWriter]) -> None:
        try:
            self._reconciler.reconnected(writers)
        except RedisUnavailable:
            self._settle_later(_SETTLE_SECONDS)
            return
        try:
            self._streams.begin_marks(writers)
        except RedisUnavailable:
            self._settle_later(_SETTLE_SECONDS)
        for writer in writers:
            # A new ring stores nothing before it knows where its numbers continue. Another node may have to say that.
            if writer.consumer.entries_before is not None:
                self._settled[writer] = home
                writer.held_back = writer in self._holds

    def _settle_later(self, seconds: float) -> None:
        self._settled_version = -1
        self._settle_at = time.monotonic() + seconds

    def _relieve(self) -> None:
        """Look after the cameras that wait: let them go on if their node is back. If a ring is full, drop the frames
        that wait for the node, if the site is configured so."""
        now = time.monotonic()
        for writer, hold in list(self._holds.items()):
            if writer.in_flight:
                continue
            here = hold.slot is None or self._nodes.link_of(hold.slot)
            if now >= hold.until and (
                here or (self._drop_oldest and writer.relieve_of(partial(self._blocked, writer.slots)))
            ):
                del self._holds[writer]
                writer.held_back = writer not in self._settled
        if self._drop_oldest and self._settled_version != self._nodes.version:
            for writer in self._rotation.writers:
                if writer not in self._settled and not writer.in_flight:
                    writer.relieve()

    def _blocked(self, slots: FrameSlots, record: Record) -> bool:
        """True if the node of a frame cannot be asked now."""
        return self._nodes.link_of(slots.of(record.unix_nano, record.sequence)) is None

    def _look_for_missing(self) -> None:
        """After a node was away, find the frames that it has lost."""
        if self._nodes.suspects:
            since_nano = time.time_ns() - round(1e9 * (time.monotonic() - self._nodes.suspects_since))
            self._missing.suspect(self._nodes.suspects, self._rotation.writers, since_nano)
            self._nodes.suspects.clear()
            # A frame of theirs may be lost already and have no entry yet: they are looked at when they have landed.
            for writer in self._rotation.writers:
                if writer.in_flight:
                    self._unsettle(writer)
        self._missing.step(self._settled.__contains__)

    # Changes of rings and states

    def _look_around(self) -> None:
        """Open new rings, write changed states, and report which nodes are away. What one node cannot answer now is
        asked again at the next look."""
        self._begin_look()
        self._try_each(
            # First, because this may be the last state of a camera whose ring is gone.
            lambda: self._states.publish(self._streams.pages),
            self._follow_rings,
            lambda: self._reconciler.look(self._at_home(self._rotation.writers)),
            lambda: self._streams.look_at_marks(self._at_home(self._rotation.writers)),
            self._look_at_leases,
            *(partial(self._look_at_barred, writer) for writer in self._writers if writer.barred),
        )
        self._report()

    def _try_each(self, *steps: Callable[[], object]) -> None:
        """Take all ``steps``. What a node that is away does not answer is left out: its link knows why."""
        for step in steps:
            with contextlib.suppress(RedisUnavailable):
                step()

    def _look_at_barred(self, writer: CameraWriter) -> None:
        super()._look_at_barred(writer)
        # Its journal may have come to another node meanwhile.
        self._settled_version = -1

    def _look_at_leases(self) -> None:
        if self._leases:
            self._leases.look(self._streams.cameras)
            self._page.counts[WriterCount.CONTESTED] = self._leases.contested

    def _follow_rings(self) -> bool:
        """Open new rings, and release removed ones; True if there were any."""
        if not self._streams.look():
            return False
        self._rotation.arrange(self._writers)
        writers = set(self._writers)
        self._holds = {writer: hold for writer, hold in self._holds.items() if writer in writers}
        self._missing.keep(writers)
        # A ring that was made again has its own frames in doubt.
        self._settled.clear()
        for writer in writers:
            self._unsettle(writer)
        return True

    def _report(self) -> None:
        """Say which nodes are away, and which are back."""
        waiting = any(writer.consumer.held_bytes for writer in self._rotation.writers)
        for link in self._nodes.links.values():
            # If frames wait, only storing them shows that a node is back.
            if link.usable and not waiting:
                link.stored()
        self._outages.report({link.node: link.trouble for link in self._nodes.links.values()}, self._nodes.trouble)
