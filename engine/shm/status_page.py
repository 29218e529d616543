"""A process's status page: its identity, heartbeat, counts, and one short text. Any process of the site may read it.

    0     magic, version, pid, start (UTC ns), heartbeat (monotonic ns), restarts, text's version, text's length
    512   64 counts, named by the process's role
    1024  the text, at most 3072 bytes

The owner writes everything but ``restarts``, which the supervisor writes. The text's version (odd during a write)
guards it, so a reader never accepts half a text.
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
#: How often a reader tries again when the text changes during a read.
_READ_TRIES_MAX = 100
#: Seconds for which a claim is retried: ``owned`` also holds the lock for a moment.
_CLAIM_SECONDS = 0.5


#: What is added to numbers that may be negative, because words are not.
_SIGNED = 2**62


def signed_word(value: int) -> int:
    """The word of a count that may be negative or unknown; numbers too large to tell become the largest."""
    return max(min(value, _SIGNED - 1), 1 - _SIGNED) + _SIGNED


def signed_value(word: int) -> int | None:
    """Inverse of signed_word; None for 0, which is unknown."""
    return word - _SIGNED if word else None


class Count(IntEnum):
    """A word of a status page that a role counts in. ``kind`` says how to read it: a counter only rises while the
    status page exists, a gauge may fall, and an internal word is for the engine's own processes. ``unit`` and ``help``
    describe it to people and in metrics."""

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
    CONNECTS = 1, "counter", "connections", "Attempts to connect to the camera."
    SKIPPED = 2, "counter", "frames", "Frames that the fps limit passed over; they were never captured."
    PACKET_MILLI_FPS = 4, "gauge", "packets per 1000 seconds", "Rate at which the camera sends access units."
    KEY_INTERVAL_MS = 5, "gauge", "milliseconds", "Time between the last two key frames of an H.264 or H.265 stream."
    BEFORE_KEY = 6, "counter", "access units", "Access units before a stream's first key frame; not captured."
    DECODED = 7, "counter", "pictures", "Pictures decoded to make JPEGs of them."
    CAMERA_OFFSET_US = 8, "internal", "microseconds", "The camera's clock minus ours, as signed_word has it."
    CAMERA_DRIFT_PPB = 9, "internal", "parts per billion", "By how much that rises, as signed_word has it."
    FINISHED = 3, "gauge", "0 or 1", "1 once the source has ended for good: the process is not started again."
    RING = 16, "internal", "inode", "The ring that the process writes to."
    #: Both are written before the frame takes them: a recreated ring continues after them.
    LAST_SEQUENCE = 17, "internal", "sequence", "Sequence of the last frame."
    LAST_NANO = 18, "internal", "nanoseconds, UTC", "Time stamp of the last frame."
    VIDEO_RING = 19, "internal", "inode", "The video ring that the process writes to; 0 if it has none."
    VIDEO_LAST_SEQUENCE = 20, "internal", "sequence", "Sequence of the last access unit."
    VIDEO_LAST_NANO = 21, "internal", "nanoseconds, UTC", "Time stamp of the last access unit."


class WriterCount(Count):
    """What a writer process counts."""

    BATCHES = 0, "counter", "transactions", "Transactions that Redis has acknowledged."
    CONNECTS = 1, "counter", "connections", "Attempts to connect to Redis."
    WAITING = 2, "internal", "0 or 1", "1 while the writer waits on its doorbell; producers then ring it."
    RETRIES = 3, "counter", "batches", "Batches that Redis refused for now (out of memory, loading, read only)."
    CONTESTED = 32, "gauge", "cameras", "Cameras that another site stores under the same names."


class PublisherCount(Count):
    """What the publisher process counts. An event announces one frame, except where GOPs are named."""

    PUBLISHED = 0, "counter", "events", "Events sent to RabbitMQ."
    CONFIRMED = 1, "counter", "events", "Events that RabbitMQ has confirmed."
    EXPIRED = 2, "counter", "events", "Events whose frame or journal entry was gone before they could be sent."
    UNREADABLE = 3, "counter", "entries", "Journal entries that do not parse."
    NACKED = 4, "counter", "messages", "Messages that RabbitMQ refused (nack); their events are sent again."
    MESSAGES = 5, "counter", "messages", "Messages confirmed; one carries many events in batch format."
    STATUS_EVENTS = 6, "counter", "events", "Events of cameras' states, confirmed."
    CONNECTS = 7, "counter", "connections", "Attempts to connect to RabbitMQ."
    LAG_NANO = (
        8,
        "gauge",
        "nanoseconds",
        "Time from the newest confirmed journal entry to the newest entry, for the slowest camera.",
    )
    #: The word holds the broker's number in ``amqp.amqp_urls``, from 1; 0 while none is connected.
    CONNECTED = 9, "gauge", "0 or 1", "1 while RabbitMQ is connected and takes messages."
    #: The save of the cursors that is in progress, and the values that two counts have after it
    #: (``engine/stages/publisher/booking.py``).
    SAVE_SERIAL = 10, "internal", "serial", "The save of the cursors that is in progress."
    EXPIRED_NEXT = 11, "internal", "events", "The value of EXPIRED after that save."
    UNREADABLE_NEXT = 12, "internal", "entries", "The value of UNREADABLE after that save."
    GOPS = 13, "counter", "events", "Events of finished GOPs that RabbitMQ has confirmed."
    VIDEO_EXPIRED = (
        14,
        "counter",
        "access units",
        "Stored access units that no event announced: the key frame, or the journal entry, was gone before.",
    )
    VIDEO_UNREADABLE = 15, "counter", "entries", "Entries of video journals that do not parse."
    VIDEO_SAVE_SERIAL = 16, "internal", "serial", "The save of the cursors of video that is in progress."
    VIDEO_EXPIRED_NEXT = 17, "internal", "access units", "The value of VIDEO_EXPIRED after that save."
    VIDEO_UNREADABLE_NEXT = 18, "internal", "entries", "The value of VIDEO_UNREADABLE after that save."
    ALERT_EVENTS = 19, "counter", "events", "Events of alerts, confirmed."
    #: The histogram of ``engine/shm/publish_latency.py``; its buckets are the words from LATENCIES to the last.
    LATENCY_SUM_US = 20, "internal", "microseconds", "Sum of the times from stored to confirmed."
    LATENCIES = 21, "internal", "events", "Confirmed events of the shortest such times; the other buckets follow."


class MonitorCount(Count):
    """What the monitor process counts."""

    LOOKS = 0, "counter", "looks", "Looks at the site."
    ACTIVE = 1, "gauge", "alerts", "Alerts that are raised now."
    RAISED = 2, "counter", "alerts", "Alerts raised."
    CLEARED = 3, "counter", "alerts", "Alerts cleared."
    WEBHOOK_SENT = 4, "counter", "posts", "Alerts that the webhook took."
    WEBHOOK_FAILED = 5, "counter", "posts", "Tries to post an alert that failed."
    WEBHOOK_LOST = 6, "counter", "posts", "Alerts given up: refused, or too many waited."


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
        """Make an empty status page. An existing page is kept; an unusable one is replaced."""
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

        # Another process may have made the same page meanwhile.
        with contextlib.suppress(FileExistsError):
            segment.create(path, _BYTES, fill).close()

    @classmethod
    def claim(cls, path: Path) -> StatusPage:
        """Become the owner for the life of this process. Raises SiteInUse with the current owner's pid."""
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
        """Open another process's status page. Raises FileNotFoundError, RingMismatch."""
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
        """How often the supervisor has restarted the owner."""
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
        """Record that the owner is alive now."""
        self._words[_W_HEARTBEAT] = time.monotonic_ns()

    @property
    def heartbeat_nano(self) -> int:
        """Time of the last beat on this machine's monotonic clock, in nanoseconds."""
        return self._words[_W_HEARTBEAT]

    @property
    def text_version(self) -> int:
        """Grows by two with each change of the text."""
        return self._words[_W_TEXT_VERSION]

    @property
    def text(self) -> bytes:
        """The owner's complete text; empty before the first."""
        for _ in range(_READ_TRIES_MAX):
            before = self._words[_W_TEXT_VERSION]
            # SYNC POINT status-text: load the version before the text; load the text before the version again.
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
        # A predecessor killed during a write left an odd version; the next even one is still larger.
        version = self._words[_W_TEXT_VERSION] // 2 * 2
        self._words[_W_TEXT_VERSION] = version + 1
        # SYNC POINT status-text: store the odd version before the text, and the text before the even version.
        self._fence()
        self._segment.view[_TEXT : _TEXT + len(text)] = text
        self._words[_W_TEXT_LENGTH] = len(text)
        self._fence()
        self._words[_W_TEXT_VERSION] = version + 2

    @property
    def removed(self) -> bool:
        """True if the status page's file was removed: its path now leads to another file, or to none."""
        return self._segment.removed

    def close(self) -> None:
        """Unmap the page; this ends an owner's claim."""
        if hasattr(self, "counts"):
            self.counts.release()
        self._segment.close()
