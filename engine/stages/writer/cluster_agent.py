"""The writer process's agent for a Redis Cluster: moves frames from its cameras' rings to many nodes.

``do_work`` is the whole path, as in ``agent.py``: poll the rings, send, wait for answers, commit. Here each camera's
frames are sent independently (``delivery.py``), so that a node that is away delays only what hashes to it.

A camera's frames are sent when it is settled (``settling.py``) and not blocked (``blocked_cameras.py``).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import RedisUnavailable
from engine.shm.status_page import StatusPage, WriterCount
from engine.stages.writer.base import AWAY_SECONDS, BaseAgent
from engine.stages.writer.blocked_cameras import BlockedCameras
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.cluster_store import ClusterStore
from engine.stages.writer.delivery import Fate
from engine.stages.writer.missing_frames import MissingFrames
from engine.stages.writer.node_outages import NodeOutages
from engine.stages.writer.settling import Settling
from engine.wire.lease import Lease

#: Rounds that may be in flight: frames of one are sent while entries of the other are stored.
_ROUNDS_IN_FLIGHT = 2


class ClusterWriterAgent(BaseAgent):
    """See BaseAgent."""

    def __init__(
        self, config: Config, number: int, page: StatusPage, log: FilteringBoundLogger, own: Lease | None = None
    ) -> None:
        self._store = ClusterStore(config.redis_address, config.redis.timeout_seconds, page.beat, self._count_try)
        super().__init__(config, number, page, log, own, self._store)
        self._nodes = self._store.nodes
        self._missing = MissingFrames(self._store, log, self._warn_once)
        self._blocked = BlockedCameras(self._nodes, drop_oldest=self._drop_oldest)
        self._settling = Settling(self._nodes, self._reconciler, self._streams, self._blocked)
        self._outages = NodeOutages(log, page)

    def on_start(self) -> None:
        """Open the existing rings."""
        self._follow_rings()

    def do_work(self) -> int:
        """Do one round; returns the number of frames stored."""
        self._store.advance()
        if time.monotonic() >= self._look_at:
            self._look_around()
        self._settling.step(self._rotation.writers)
        self._look_for_missing()
        self._make_room()
        self._send()
        if self._store.in_flight:
            self._store.wait()
        return self._commit()

    def idle(self) -> None:
        """Sleep until a producer wakes the writer, unless answers are awaited."""
        if self._store.in_flight:
            return
        waiting = self._blocked or self._missing.pending or not self._settling.finished
        if self._nodes.usable and not waiting:
            self._rest()
        else:
            time.sleep(AWAY_SECONDS)

    def _looked_last(self) -> bool:
        try:
            self._reconciler.count_lost(self._rotation.writers)
        except RedisUnavailable:
            return False
        return not self._missing.pending

    def on_close(self) -> None:
        """Write the cameras' last states, and release all resources."""
        if not self._store.in_flight:
            pages, settled = self._streams.pages, self._settling.settled(self._rotation.writers)
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
        # Nodes may have given other answers since the last step, and that step may wait for another node.
        self._settling.follow(self._rotation.writers)
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
                self._settling.unsettle(writer)
            self._blocked.finished(delivery)
        for writer in refused:
            self._settle_refused(writer)
        if stored:
            self._stored += stored
            self._lingered = False
        return stored

    def _settle_refused(self, writer: CameraWriter) -> None:
        try:
            obstacle = self._reconciler.settle_refused(writer)
        except RedisUnavailable:
            writer.rewind()
            self._settling.unsettle(writer)
            return
        if obstacle:
            self._bar(writer, obstacle)

    # While a node is away

    def _make_room(self) -> None:
        """Let blocked cameras go on if they can. If the ring of a camera that waits to be settled is full, drop its
        oldest frames, if the site is configured so."""
        self._blocked.step(self._settling.is_settled)
        if self._drop_oldest and not self._settling.finished:
            for writer in self._rotation.writers:
                if not self._settling.is_settled(writer) and not writer.in_flight:
                    writer.relieve()

    def _look_for_missing(self) -> None:
        """After a node was away, find the frames that it has lost."""
        if self._nodes.suspects:
            since_nano = time.time_ns() - round(1e9 * (time.monotonic() - self._nodes.suspects_since))
            self._missing.suspect(self._nodes.suspects, self._rotation.writers, since_nano)
            self._nodes.suspects.clear()
            # A frame of theirs may be lost already and have no entry yet: they are looked at when they have landed.
            for writer in self._rotation.writers:
                if writer.in_flight:
                    self._settling.unsettle(writer)
        self._missing.step(self._settling.is_settled)

    # Changes of rings and states

    def _look_around(self) -> None:
        """Open new rings, write changed states, and report which nodes are away. What one node cannot answer now is
        asked again at the next look."""
        self._begin_look()
        self._try_each(
            # First, because this may be the last state of a camera whose ring is gone.
            lambda: self._states.publish(self._streams.pages),
            self._follow_rings,
            lambda: self._reconciler.look(self._settling.settled(self._rotation.writers)),
            lambda: self._streams.look_at_marks(self._settling.settled(self._rotation.writers)),
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
        self._settling.look_again()

    def _follow_rings(self) -> bool:
        if not self._streams.look():
            return False
        self._rotation.arrange(self._writers)
        writers = set(self._writers)
        self._blocked.keep(writers)
        self._missing.keep(writers)
        self._settling.keep(writers)
        return True

    def _report(self) -> None:
        """Say which nodes are away, and which are back."""
        waiting = any(writer.consumer.held_bytes for writer in self._rotation.writers)
        for link in self._nodes.links.values():
            # If frames wait, only storing them shows that a node is back.
            if link.usable and not waiting:
                link.stored()
        self._outages.report(self._nodes.troubles(), self._nodes.trouble)
