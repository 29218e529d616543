"""A process's status page: who it is, that it lives, what it counts, and one short text. Anyone of the site may read
it.

    0     magic, version, pid, start (UTC ns), heartbeat (monotonic ns), restarts, text's version, text's length
    512   64 counts, named by the process's role
    1024  the text, at most 3072 bytes

The owner writes everything but ``restarts``, which is the supervisor's. The text is guarded by its version (odd while
it is being written), so that a reader never takes half of one for whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from enum import IntEnum
from pathlib import Path
from typing import Literal, Self

from engine.errors import RingMismatch, SiteInUse
from engine.shm import segment
from engine.shm.fence import new_fence

_BYTES = 4096
_MAGIC = int.from_bytes(b"EVSTATUS", "little")
_VERSION = 1
_TEXT = 1024
TEXT_BYTES_MAX = _BYTES - _TEXT
_W_MAGIC, _W_VERSION, _W_PID, _W_STARTED, _W_HEARTBEAT, _W_RESTARTS, _W_TEXT_VERSION, _W_TEXT_LENGTH = range(8)
_COUNTS = 512 // 8
#: Times that a reader looks again when the text changes under its eyes.
_READ_TRIES_MAX = 100
#: Seconds that a claim is tried for: ``owned`` holds the lock for a moment too.
_CLAIM_SECONDS = 0.5


class Count(IntEnum):
    """A word of a status page that a role counts in. ``kind`` says how to read it: a counter only rises while the
    status page exists, a gauge may fall, and an internal word is for the engine's own processes. ``unit`` and ``help``
    are for people and for metrics."""

    kind: Literal["counter", "gauge", "internal"]
    unit: str
    help: str

    def __new__(cls, place: int, kind: Literal["counter", "gauge", "internal"], unit: str, text: str) -> Self:
        """``place`` is the word's index among the page's 64."""
        count = int.__new__(cls, place)
        count._value_, count.kind, count.unit, count.help = place, kind, unit, text
        return count


class CaptureCount(Count):
    """What a capture process counts."""

    MILLI_FPS = 0, "gauge", "frames per 1000 seconds", "Frame rate, measured over the last second."
    CONNECTS = 1, "counter", "connections", "Connections to the camera that were tried."
    SKIPPED = 2, "counter", "frames", "Frames that the fps limit passed over; they were never captured."
    FINISHED = 3, "gauge", "0 or 1", "1 once the source has ended for good: the process is not started again."
    RING = 16, "internal", "inode", "The ring that the process writes to."
    #: Both are written before the frame takes them: a ring that is made anew goes on behind them.
    LAST_SEQUENCE = 17, "internal", "sequence", "Sequence of the last frame."
    LAST_NANO = 18, "internal", "nanoseconds, UTC", "Time stamp of the last frame."


class WriterCount(Count):
    """What a writer process counts."""

    BATCHES = 0, "counter", "transactions", "Transactions that Redis has acknowledged."
    CONNECTS = 1, "counter", "connections", "Connections to Redis that were tried."
    WAITING = 2, "internal", "0 or 1", "1 while the writer waits on its doorbell: a producer that sees it rings."
    RETRIES = 3, "counter", "batches", "Batches that Redis refused for now (out of memory, loading, read only)."
    CONTESTED = 32, "gauge", "cameras", "Cameras that another site stores under the same names."


class PublisherCount(Count):
    """What the publisher process counts. An event announces one frame."""

    PUBLISHED = 0, "counter", "events", "Events sent to RabbitMQ."
    CONFIRMED = 1, "counter", "events", "Events that RabbitMQ has confirmed."
    EXPIRED = 2, "counter", "events", "Events whose frame or journal entry was gone before they could be sent."
    UNREADABLE = 3, "counter", "entries", "Journal entries that do not parse."
    NACKED = 4, "counter", "messages", "Messages that RabbitMQ refused (nack); their events are sent again."
    MESSAGES = 5, "counter", "messages", "Messages confirmed; one carries many events in batch format."
    STATUS_EVENTS = 6, "counter", "events", "Events of cameras' states, confirmed."
    CONNECTS = 7, "counter", "connections", "Connections to RabbitMQ that were tried."
    LAG_NANO = (
        8,
        "gauge",
        "nanoseconds",
        "From the newest journal entry to the newest confirmed; of the slowest camera.",
    )
    CONNECTED = 9, "gauge", "0 or 1", "1 while RabbitMQ is connected and takes messages."
    #: A save of the cursors that is under way, and what it will make of two counts
    #: (``engine/stages/publisher/booking.py``).
    SAVE_SERIAL = 10, "internal", "serial", "The save of the cursors that is under way."
    EXPIRED_NEXT = 11, "internal", "events", "What that save makes of EXPIRED."
    UNREADABLE_NEXT = 12, "internal", "entries", "What that save makes of UNREADABLE."


class StatusPage:
    """A status page, opened. Use ``claim`` in the process that owns it, ``watch`` elsewhere."""

    def __init__(self, shared: segment.Segment) -> None:
        self._segment = shared
        self._words = shared.words
        self._fence = new_fence()
        self._claimed = False
        if shared.size != _BYTES or self._words[_W_MAGIC] != _MAGIC or self._words[_W_VERSION] != _VERSION:
            path = shared.path
            shared.close()
            raise RingMismatch(f"{path} is not a status page of this version")
        self.counts = self._words[_COUNTS : _COUNTS + 64]

    @classmethod
    def create(cls, path: Path) -> None:
        """Make an empty status page; one that stands is kept, one that cannot be used is replaced."""
        try:
            cls.watch(path).close()
            return
        except FileNotFoundError:
            pass
        except RingMismatch:
            path.unlink()

        def fill(shared: segment.Segment) -> None:
            shared.words[_W_VERSION] = _VERSION
            shared.words[_W_MAGIC] = _MAGIC

        # Whoever was quicker has made the same.
        with contextlib.suppress(FileExistsError):
            segment.create(path, _BYTES, fill).close()

    @classmethod
    def claim(cls, path: Path) -> StatusPage:
        """Become the owner, for as long as this process lives. Raises SiteInUse with the pid of the one before."""
        cls.create(path)
        page = cls(segment.open_existing(path))
        if not page._lock():
            pid = page.pid
            page.close()
            raise SiteInUse(f"{path.stem} runs already as pid {pid}; stop it first")
        page._words[_W_PID] = os.getpid()
        page._words[_W_STARTED] = time.time_ns()
        page.beat()
        return page

    def _lock(self) -> bool:
        deadline = time.monotonic() + _CLAIM_SECONDS
        while True:
            try:
                fcntl.flock(self._segment.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._claimed = True
                return True
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.01)

    @classmethod
    def watch(cls, path: Path) -> StatusPage:
        """Look at another process's status page. Raises FileNotFoundError, RingMismatch."""
        return cls(segment.open_existing(path))

    @property
    def pid(self) -> int:
        """The owner's process id; 0 before the first."""
        return self._words[_W_PID]

    @property
    def started_nano(self) -> int:
        """When the owner started, nanoseconds UTC."""
        return self._words[_W_STARTED]

    @property
    def restarts(self) -> int:
        """How often the supervisor has started the owner again."""
        return self._words[_W_RESTARTS]

    @restarts.setter
    def restarts(self, count: int) -> None:
        self._words[_W_RESTARTS] = count

    @property
    def owned(self) -> bool:
        """True while a live process holds the status page."""
        if self._claimed:
            return True
        try:
            fcntl.flock(self._segment.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._segment.descriptor, fcntl.LOCK_UN)
        return False

    def beat(self) -> None:
        """Say that the owner lives, now."""
        self._words[_W_HEARTBEAT] = time.monotonic_ns()

    @property
    def heartbeat_nano(self) -> int:
        """The last beat, on this machine's monotonic clock, in nanoseconds."""
        return self._words[_W_HEARTBEAT]

    @property
    def text_version(self) -> int:
        """Changes with the text; two steps a change."""
        return self._words[_W_TEXT_VERSION]

    @property
    def text(self) -> bytes:
        """The owner's text, whole; empty before the first."""
        for _ in range(_READ_TRIES_MAX):
            before = self._words[_W_TEXT_VERSION]
            # SYNC POINT status-text: the version, before the text it guards; then the text, before the version again.
            self._fence()
            length = min(self._words[_W_TEXT_LENGTH], TEXT_BYTES_MAX)
            text = bytes(self._segment.view[_TEXT : _TEXT + length])
            self._fence()
            if before % 2 == 0 and self._words[_W_TEXT_VERSION] == before:
                return text
        return b""

    @text.setter
    def text(self, text: bytes) -> None:
        if len(text) > TEXT_BYTES_MAX:
            raise ValueError(f"text of {len(text)} bytes; at most {TEXT_BYTES_MAX}")
        # A predecessor killed while writing left an odd version: the next even one is still ahead of it.
        version = self._words[_W_TEXT_VERSION] // 2 * 2
        self._words[_W_TEXT_VERSION] = version + 1
        # SYNC POINT status-text: an odd version, before the text changes; the text, before the even version.
        self._fence()
        self._segment.view[_TEXT : _TEXT + len(text)] = text
        self._words[_W_TEXT_LENGTH] = len(text)
        self._fence()
        self._words[_W_TEXT_VERSION] = version + 2

    @property
    def removed(self) -> bool:
        """True where the status page has no name any more; who looks for it finds another, or none."""
        return self._segment.removed

    def close(self) -> None:
        """Unmap; an owner's claim ends."""
        if hasattr(self, "counts"):
            self.counts.release()
        self._segment.close()
