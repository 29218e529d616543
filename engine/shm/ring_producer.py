"""The producer's end of a ring. The essay in ``engine/shm/ring.py`` explains it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.errors import FrameTooLarge
from engine.shm.ring_file import PRODUCER_DROPS, Drop, RingEnd
from engine.wire import ring_layout as layout
from engine.wire.keys import SEQUENCE_MAX, next_sequence, sequence_after


class Producer(RingEnd):
    """The capture process's end."""

    def __init__(self, path: Path, camera: str) -> None:
        super().__init__(path, camera)
        words = self._words
        self._head = words[layout.W_HEAD]
        words[layout.W_RECORDS] = self._records = self._published()[1]
        # A frame that a former producer was writing when it was killed has its sequence but is in no count yet.
        accounted = words[layout.W_RECORDS] + sum(words[drop] for drop in PRODUCER_DROPS)
        words[Drop.INTERRUPTED] += max(words[layout.W_CAPTURED] - accounted, 0)
        # Copies of the words that only this side writes: they are stored for each frame, and loaded only here.
        self._last_nano = words[layout.W_LAST_NANO]
        self._captured = words[layout.W_CAPTURED]
        self._captured_bytes = words[layout.W_CAPTURED_BYTES]
        self._largest = words[layout.W_LARGEST]
        #: The sequence of the last frame; 0 before the first.
        self.last_sequence = sequence_after(words[layout.W_FIRST_SEQUENCE], self._captured)
        #: The largest frame that the ring takes, in bytes.
        self.frame_bytes_max = layout.payload_max(self.capacity)
        #: The memory that the caller fills, and the position of its record.
        self._claimed: memoryview | None = None
        self._claimed_at = 0

    def go_on_from(self, unix_nano: int, sequence: int) -> None:
        """Continue sequences and time stamps after those of a frame that this ring does not know."""
        words = self._words
        words[layout.W_LAST_NANO] = self._last_nano = max(self._last_nano, unix_nano)
        words[layout.W_FIRST_SEQUENCE] = (sequence - self._captured) % SEQUENCE_MAX
        self.last_sequence = sequence

    @property
    def floor_nano(self) -> int:
        """The next frame's time stamp must exceed this, in nanoseconds UTC."""
        return max(self._words[layout.W_FLOOR_NANO], self._last_nano)

    def claim(self, size: int) -> memoryview | None:
        """Memory of the ring for the next frame, of ``size`` bytes; None if the ring is full.

        The caller fills it and calls ``commit``. Until then nothing is counted or visible. The memory is valid until
        the next ``claim``, ``write`` or ``close``. Raises FrameTooLarge, ValueError for an empty frame.
        """
        if self._claimed is not None:
            self.forget()
        if not size:
            raise ValueError(f"camera {self.camera}: an empty frame")
        if size > self.frame_bytes_max:
            raise self.too_large(size)
        position = self._place(size)
        if position < 0:
            return None
        start = position + layout.RECORD_HEADER_BYTES
        self._claimed, self._claimed_at = self._data[start : start + size], position
        return self._claimed

    def forget(self) -> None:
        """Take back the memory that was claimed; its memoryview is invalid from now on."""
        if self._claimed is not None:
            self._claimed.release()
            self._claimed = None

    def commit(self, size: int, unix_nano: int, monotonic: int, width: int, height: int) -> int:
        """Publish the first ``size`` bytes of the claimed memory, a JPEG, as a frame; returns its sequence.

        ``unix_nano`` must exceed floor_nano. Raises ValueError if less was claimed.
        """
        claimed = self._claimed
        if claimed is None or not 0 < size <= len(claimed):
            raise ValueError(f"camera {self.camera}: {size} bytes were not claimed")
        sequence = self._take_sequence(unix_nano, size)
        self._publish(self._claimed_at, size, unix_nano, sequence, monotonic, width, height, 0, layout.FLAG_KEYFRAME, 0)
        claimed.release()
        self._claimed = None
        return sequence

    def write(
        self,
        parts: Sequence[bytes | memoryview],
        unix_nano: int,
        monotonic: int,
        width: int,
        height: int,
        *,
        encoding: int = 0,
        keyframe: bool = True,
        offset_us: int = 0,
    ) -> int | None:
        """Copy a frame (its ``parts`` joined) into the ring; never waits.

        Returns its sequence, or None if the ring is full: the frame is dropped and counted, and its sequence is used
        up. ``unix_nano`` must exceed floor_nano. Raises FrameTooLarge (counted) for a frame of more than half the
        capacity, ValueError for an empty one. What was claimed is forgotten; the parts must not lie in it.
        """
        if self._claimed is not None:
            self.forget()
        size = sum(map(len, parts))
        if not size:
            raise ValueError(f"camera {self.camera}: an empty frame")
        sequence = self._take_sequence(unix_nano, size)
        if size > self.frame_bytes_max:
            self._words[Drop.TOO_LARGE] += 1
            raise self.too_large(size)
        position = self._place(size)
        if position < 0:
            self._words[Drop.RING_FULL] += 1
            return None
        start = position + layout.RECORD_HEADER_BYTES
        data = self._data
        for part in parts:
            end = start + len(part)
            data[start:end] = part
            start = end
        flags = layout.FLAG_KEYFRAME if keyframe else 0
        self._publish(position, size, unix_nano, sequence, monotonic, width, height, encoding, flags, offset_us)
        return sequence

    def _place(self, size: int) -> int:
        """The position of a record for a payload of ``size`` bytes; -1 if the ring is full."""
        need = layout.record_bytes(size)
        head, area = self._head, self._area
        position = head % area
        if position + need > area:
            # It goes to the beginning; padding fills the end.
            need += area - position
            position = 0
        # SYNC POINT ring-space: load the tail before any store into the space that it gives back.
        free = area - (head - self._words[layout.W_TAIL])
        self._fence()
        return position if need <= free else -1

    def _publish(
        self,
        position: int,
        size: int,
        unix_nano: int,
        sequence: int,
        monotonic: int,
        width: int,
        height: int,
        encoding: int,
        flags: int,
        offset_us: int,
    ) -> None:
        """Make the payload that lies in the record at ``position`` visible as a frame."""
        words, data, fence = self._words, self._data, self._fence
        head, index = self._head, self._records
        if head % self._area != position:
            padding = self._area - head % self._area
            filler = padding - layout.RECORD_HEADER_BYTES
            layout.pack_record(data, head % self._area, layout.KIND_PADDING, filler, 0, 0, 0, 0, 0, 0, index, 0)
            head += padding
        layout.pack_record(
            data, position,
            layout.KIND_FRAME, size, unix_nano, sequence, width, height, encoding, flags, index, monotonic,
        )  # fmt: skip
        if self.video:
            layout.pack_offset(data, position, offset_us)
        self._head = head = head + layout.record_bytes(size)
        self._records = index = index + 1
        # Until head reaches NEXT_HEAD, readers use the old count.
        words[layout.W_NEXT_HEAD] = head
        # SYNC POINT ring-count
        fence()
        words[layout.W_NEXT_RECORDS] = index
        # SYNC POINT ring-publish: store all of the frame before the head that shows it.
        fence()
        words[layout.W_HEAD] = head
        words[layout.W_RECORDS] = index

    def discard(self, unix_nano: int, size: int, reason: Drop) -> int:
        """Count a frame that is not worth storing; returns the sequence that it used up."""
        sequence = self._take_sequence(unix_nano, size)
        self._words[reason] += 1
        return sequence

    def _take_sequence(self, unix_nano: int, size: int) -> int:
        words = self._words
        words[layout.W_LAST_NANO] = self._last_nano = unix_nano
        # One store counts the frame and uses up its sequence: the sequence follows from the count.
        words[layout.W_CAPTURED] = self._captured = self._captured + 1
        words[layout.W_CAPTURED_BYTES] = self._captured_bytes = self._captured_bytes + size
        if size > self._largest:
            words[layout.W_LARGEST] = self._largest = size
        self.last_sequence = sequence = next_sequence(self.last_sequence)
        return sequence

    def too_large(self, size: int) -> FrameTooLarge:
        """The error about a frame of ``size`` bytes, which is its detail ``size``."""
        return FrameTooLarge(
            f"camera {self.camera}: a frame of {size:,} bytes exceeds half its ring of {self.capacity:,} bytes; "
            f"raise {'video' if self.video else 'ring'}.capacity_mb to {-(-2 * size // 2**20)} or more",
            size=str(size),
        )

    def close(self) -> None:
        """Unmap. Memory that was claimed must not be used any more."""
        self.forget()
        super().close()
