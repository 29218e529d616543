"""Which cameras of a cluster are settled, and at which node.

A camera is *settled* when the node of its journal was asked which of its frames it has. Nothing of a camera is stored
before that. It is settled again whenever this node, the link to it, or the camera's ring becomes another one, and
after a transaction in doubt.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Container, Iterable
from typing import NamedTuple

from engine.errors import RedisUnavailable
from engine.shm.ring import Consumer
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.cluster_link import Link
from engine.stages.writer.cluster_nodes import ClusterNodes
from engine.stages.writer.reconcile import Reconciler
from engine.stages.writer.streams import Streams

#: Seconds until a camera is looked at again whose frames are in flight or whose node is away, and until a node is asked
#: again that did not answer.
_LATER_SECONDS = 0.02
_ASK_AGAIN_SECONDS = 0.1


class _Home(NamedTuple):
    """Where a camera was settled, and of which ring: the link of its journal, and its epoch."""

    link: Link
    epoch: int
    ring: Consumer


class Settling:
    """Settles cameras through ``reconciler`` and ``streams``. Cameras in ``blocked`` wait although they are settled."""

    def __init__(
        self, nodes: ClusterNodes, reconciler: Reconciler, streams: Streams, blocked: Container[CameraWriter]
    ) -> None:
        self._nodes = nodes
        self._reconciler = reconciler
        self._streams = streams
        self._blocked = blocked
        self._homes: dict[CameraWriter, _Home] = {}
        #: The version of the nodes for which all cameras are settled; -1 if some are not. And the version for which
        #: cameras whose journal has come to another node are held back.
        self._version = self._followed = -1
        self._retry_at = 0.0

    @property
    def finished(self) -> bool:
        """True if every camera is settled at the node that has its journal now."""
        return self._version == self._nodes.version

    def is_settled(self, writer: CameraWriter) -> bool:
        """True if a camera was settled, and its node has not answered anything else since."""
        return writer in self._homes

    def settled(self, writers: Iterable[CameraWriter]) -> list[CameraWriter]:
        """The settled ones of ``writers``."""
        return [writer for writer in writers if writer in self._homes]

    def unsettle(self, writer: CameraWriter) -> None:
        """A camera must be settled before anything more of it is stored."""
        self._homes.pop(writer, None)
        writer.held_back = True
        self._version, self._retry_at = -1, 0.0

    def keep(self, writers: Collection[CameraWriter]) -> None:
        """Only ``writers`` are left. A ring that was made again has its own frames in doubt."""
        homes = {writer: self._homes.get(writer) for writer in writers}
        self._homes = {writer: home for writer, home in homes.items() if home and home.ring is writer.consumer}
        for writer in writers:
            if writer not in self._homes:
                self.unsettle(writer)

    def look_again(self) -> None:
        """The journal of any camera may have come to another node."""
        self._version = self._followed = -1

    def follow(self, writers: Iterable[CameraWriter]) -> None:
        """Hold back those of ``writers`` whose journal has come to another node since they were settled; called before
        anything is sent."""
        if self._followed == self._nodes.version:
            return
        self._followed = self._nodes.version
        for writer in writers:
            home = self._homes.get(writer)
            if home and home != self._home(writer):
                self.unsettle(writer)

    def step(self, writers: Iterable[CameraWriter]) -> None:
        """Settle those of ``writers`` whose journal has come to another node, or whose node is back."""
        if self.finished or time.monotonic() < self._retry_at:
            return
        self._version = self._nodes.version
        self._retry_at = 0.0
        groups: dict[tuple[Link, CameraWriter | None], list[CameraWriter]] = {}
        for writer in writers:
            home = self._home(writer)
            if home and self._homes.get(writer) == home:
                continue
            if writer in self._homes:
                self.unsettle(writer)
            writer.held_back = True
            if home and not writer.in_flight:
                # The cameras of one node are settled together, except those whose journal the node has refused.
                alone = writer if self._nodes.blocked_slots.has_refused(writer.slots.journal) else None
                groups.setdefault((home.link, alone), []).append(writer)
            else:
                self._try_later(_LATER_SECONDS)
        for (link, _), waiting in groups.items():
            self._settle(link, waiting)

    def _home(self, writer: CameraWriter) -> _Home | None:
        """Where a camera's journal is; None if its node cannot be asked."""
        link = self._nodes.link_of(writer.slots.journal)
        return _Home(link, link.epoch, writer.consumer) if link else None

    def _settle(self, link: Link, writers: list[CameraWriter]) -> None:
        """Settle some cameras of one node."""
        epoch = link.epoch
        try:
            self._reconciler.reconnected(writers)
        except RedisUnavailable:
            self._try_later(_ASK_AGAIN_SECONDS)
            return
        try:
            self._streams.begin_marks(writers)
        except RedisUnavailable:
            self._try_later(_ASK_AGAIN_SECONDS)
        for writer in writers:
            # A new ring stores nothing before it knows where its numbers continue. Another node may have to say that.
            if writer.consumer.entries_before is not None:
                self._homes[writer] = _Home(link, epoch, writer.consumer)
                writer.held_back = writer in self._blocked

    def _try_later(self, seconds: float) -> None:
        self._version = -1
        self._retry_at = time.monotonic() + seconds
