"""Cameras whose next frame waits for a node of the cluster, although they are settled.

A camera's frames are stored in order, so the frames behind a blocked one wait in the ring, too. If the ring is full,
the frames that wait for the node are dropped, and the others are stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from functools import partial
from typing import NamedTuple

from engine.shm.ring import Record
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.cluster_nodes import ClusterNodes
from engine.stages.writer.delivery import Delivery
from engine.wire.cluster import FrameSlots

#: Seconds until frames that were not stored are tried again.
_RETRY_SECONDS = 0.02


class _Block(NamedTuple):
    """What a camera waits for: the node of ``slot``, and at least until ``until`` (monotonic seconds)."""

    slot: int
    until: float


class BlockedCameras:
    """The cameras that wait for a node. With ``drop_oldest`` their rings are kept from running full."""

    def __init__(self, nodes: ClusterNodes, *, drop_oldest: bool) -> None:
        self._nodes = nodes
        self._drop_oldest = drop_oldest
        self._blocks: dict[CameraWriter, _Block] = {}

    def __contains__(self, writer: object) -> bool:
        return writer in self._blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def finished(self, delivery: Delivery) -> None:
        """A delivery has met its fate: wait if a node did not take all of it."""
        if delivery.blocked_slot is not None:
            delivery.writer.held_back = True
            self._blocks[delivery.writer] = _Block(delivery.blocked_slot, time.monotonic() + _RETRY_SECONDS)

    def keep(self, writers: Container[CameraWriter]) -> None:
        """Only ``writers`` are left."""
        self._blocks = {writer: block for writer, block in self._blocks.items() if writer in writers}

    def step(self, is_settled: Callable[[CameraWriter], bool]) -> None:
        """Let cameras go on whose node is back, or whose ring was full and has lost the frames that wait."""
        now = time.monotonic()
        for writer, block in list(self._blocks.items()):
            if writer.in_flight or now < block.until:
                continue
            if self._nodes.link_of(block.slot) or self._make_room(writer):
                del self._blocks[writer]
                writer.held_back = not is_settled(writer)

    def _make_room(self, writer: CameraWriter) -> bool:
        """Drop the frames that wait, if the ring is full and the site is configured so; True if there were any."""
        return self._drop_oldest and writer.relieve_of(partial(self._is_blocked, writer.slots))

    def _is_blocked(self, slots: FrameSlots, record: Record) -> bool:
        """True if the node of a frame cannot be asked now."""
        return self._nodes.link_of(slots.of(record.unix_nano, record.sequence)) is None
