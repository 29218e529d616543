"""Selects the frames to send next: the rings take turns, so that a busy camera does not starve the others."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from engine.shm.ring import Consumer
from engine.stages.writer.batch import Part
from engine.stages.writer.camera_writer import CameraWriter


class Rotation:
    """The cameras whose frames are batched. They may change only while nothing is in flight."""

    def __init__(self) -> None:
        self.writers: list[CameraWriter] = []
        #: The head word and the consumer of each ring, to see if it has frames; in the order of ``writers``.
        self._heads: list[tuple[memoryview, Consumer]] = []
        self._next = 0

    def arrange(self, writers: Iterable[CameraWriter]) -> None:
        """Take frames from these writers, except barred ones."""
        self.writers = [writer for writer in writers if not writer.barred]
        self._heads = [(writer.consumer.head_word, writer.consumer) for writer in self.writers]
        self._next = 0

    def poll(self, bytes_max: int, frames_max: int) -> tuple[list[CameraWriter], list[Part], bool]:
        """Take frames of as many rings as the bounds allow, starting where the last batch ended.

        Returns the writers whose frames are now in flight, these frames, and True if no frames are left.
        """
        waiting = [place for place, (head, ring) in enumerate(self._heads) if head[0] != ring.cursor]
        first = bisect_left(waiting, self._next)
        writers: list[CameraWriter] = []
        parts: list[Part] = []
        for place in waiting[first:] + waiting[:first]:
            writer = self.writers[place]
            if writer.in_flight or writer.held_back:
                continue
            part = writer.poll(bytes_max, frames_max)
            if not part:
                continue
            writers.append(writer)
            parts.append(part)
            frames_max -= len(part.records)
            bytes_max -= sum(len(record.payload) for record in part.records)
            if frames_max <= 0 or bytes_max <= 0:
                self._next = (place + 1) % len(self.writers)
                return writers, parts, False
        return writers, parts, True

    def any_pending(self) -> bool:
        """True if a ring has frames that were not polled yet."""
        return any(head[0] != ring.cursor for head, ring in self._heads)
