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


class CaptureCount(IntEnum):
    """Counts of a capture process: frames per 1000 seconds measured over the last second, and connections tried."""

    MILLI_FPS = 0
    CONNECTS = 1
    #: Frames that the fps limit passed over; they were never captured.
    SKIPPED = 2
    #: 1 once the source has ended for good: the process is not to be started again.
    FINISHED = 3
    #: Inode number of the ring that the process writes to.
    RING = 16
    #: Number and stamp (UTC nanoseconds) of the last frame, written before the frame takes them: a ring that is made
    #: anew goes on behind them.
    LAST_SEQUENCE = 17
    LAST_NANO = 18


class WriterCount(IntEnum):
    """Counts of a writer process."""

    BATCHES = 0
    CONNECTS = 1
    #: 1 while the writer waits on its doorbell: a producer that sees it rings.
    WAITING = 2
    #: Batches that Redis answered with "try again" (out of memory, loading, read only).
    RETRIES = 3
    #: Cameras that another site stores under the same names.
    CONTESTED = 32


class PublisherCount(IntEnum):
    """Counts of a publisher process; frames' events unless said otherwise."""

    PUBLISHED = 0
    CONFIRMED = 1
    #: Events whose frame or journal entry was gone before they could be sent.
    EXPIRED = 2
    #: Journal entries that do not parse.
    UNREADABLE = 3
    #: Negative confirms; those events are sent again.
    NACKED = 4
    #: Messages, confirmed; one carries many events in batch format.
    MESSAGES = 5
    STATUS_EVENTS = 6
    CONNECTS = 7
    #: Nanoseconds between the newest journal entry and the newest confirmed one, over all cameras the largest.
    LAG_NANO = 8
    #: 1 while the broker is connected.
    CONNECTED = 9
    #: A save of the cursors that is under way, and what it will make of two counts
    #: (``engine/stages/publisher/booking.py``).
    SAVE_SERIAL = 10
    EXPIRED_NEXT = 11
    UNREADABLE_NEXT = 12


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
