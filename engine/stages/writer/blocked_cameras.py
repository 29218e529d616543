"""Cameras whose next frame waits for a slot of the cluster, although they are settled: its node is away, or refuses.

A camera's frames are stored in order, so the frames behind a blocked one wait in the ring, too. If the ring is full,
the frames that wait for the slot are dropped, and the others are stored.
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

#: Seconds until frames that were not stored are tried again, and the same if their slot is blocked for long: each try
#: sends the frames, once for each redirection.
_RETRY_SECONDS = 0.02
_RETRY_SECONDS_BLOCKED = 0.5


class _Block(NamedTuple):
    """What a camera waits for: ``slot``, which is tried again at ``retry_at`` (monotonic seconds) at the earliest."""

    slot: int
    retry_at: float


class BlockedCameras:
    """The cameras that wait for a slot. With ``drop_oldest`` their rings are kept from running full."""

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
        slot = delivery.blocked_slot
        if slot is not None:
            delivery.writer.held_back = True
            pause = _RETRY_SECONDS_BLOCKED if self._nodes.blocked_slots.is_blocked(slot) else _RETRY_SECONDS
            self._blocks[delivery.writer] = _Block(slot, time.monotonic() + pause)

    def keep(self, writers: Container[CameraWriter]) -> None:
        """Only ``writers`` are left."""
        self._blocks = {writer: block for writer, block in self._blocks.items() if writer in writers}

    def step(self, is_settled: Callable[[CameraWriter], bool]) -> None:
        """Let cameras go on whose slot can be tried again, or whose ring was full and has lost the frames that wait."""
        now = time.monotonic()
        for writer, block in list(self._blocks.items()):
            if writer.in_flight:
                continue
            if self._make_room(writer, block.slot) or (now >= block.retry_at and self._nodes.link_of(block.slot)):
                del self._blocks[writer]
                writer.held_back = not is_settled(writer)

    def _make_room(self, writer: CameraWriter, slot: int) -> bool:
        """If the ring is full and the site is configured so, drop the frames that wait; True if others may follow."""
        if not self._drop_oldest:
            return False
        if slot != writer.slots.journal:
            return writer.relieve_of(partial(self._is_blocked, writer.slots))
        if self._nodes.blocked_slots.is_blocked(slot):
            # No frame of this camera can be listed: the oldest make room.
            writer.relieve()
        return False

    def _is_blocked(self, slots: FrameSlots, record: Record) -> bool:
        """True if a frame cannot be stored now."""
        slot = slots.of(record.unix_nano, record.sequence)
        return self._nodes.link_of(slot) is None or self._nodes.blocked_slots.is_blocked(slot)
