"""Wakes a sleeping writer when a frame arrives, with a flag in its status page and a FIFO.

The writer sets the flag, checks its rings once more, and sleeps in ``poll`` on the FIFO. A producer that has
published a frame checks the flag and, if it is set, writes one byte to the FIFO. Each side writes, then fences, then
reads (the two ``SYNC POINT doorbell``), so at least one sees the other. An extra byte causes one spurious wake-up.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections.abc import Callable
from pathlib import Path

from engine.errors import RingMismatch
from engine.shm.fence import new_fence
from engine.shm.status_page import StatusPage, WriterCount

#: Bytes read at a wake-up: one for each frame that was published during the wake-up.
_DRAIN_BYTES = 4096
#: A plain number, because it is used for each frame and an enum's members are slow to look up.
_WAITING = WriterCount.WAITING.value


def _open(path: Path) -> int:
    """Open the FIFO, made if it is missing. Both sides open it for read and write, so neither waits for the other."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise RingMismatch(f"{path} is not this site's doorbell: {error.strerror}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISFIFO(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        os.close(descriptor)
        raise RingMismatch(
            f"{path} is not this site's doorbell: it belongs to uid {status.st_uid} "
            f"with mode {stat.filemode(status.st_mode)}"
        )
    return descriptor


class Doorbell:
    """The writer's side."""

    def __init__(self, path: Path, page: StatusPage) -> None:
        self._descriptor = _open(path)
        # Unlike select, it takes descriptors of any number.
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        self._counts = page.counts
        self._fence = new_fence()

    def wait(self, timeout: float, pending: Callable[[], bool]) -> None:
        """Sleep until a producer wakes the writer, at most ``timeout`` seconds; return at once if ``pending()``."""
        self._counts[WriterCount.WAITING] = 1
        # SYNC POINT doorbell: set the flag before the last check of the rings.
        self._fence()
        try:
            if not pending() and self._poll.poll(timeout * 1000):
                os.read(self._descriptor, _DRAIN_BYTES)
        finally:
            self._counts[WriterCount.WAITING] = 0

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


class Bell:
    """A producer's side."""

    def __init__(self, path: Path, writer_page: StatusPage) -> None:
        self._descriptor = _open(path)
        self._page = writer_page
        self._counts = writer_page.counts
        self._fence = new_fence()

    def wake(self) -> None:
        """Wake the writer if it sleeps; call this after each published frame."""
        # SYNC POINT doorbell: publish the frame before checking the flag.
        self._fence()
        if self._counts[_WAITING]:
            # A full FIFO wakes the writer just as well.
            with contextlib.suppress(BlockingIOError):
                os.write(self._descriptor, b"!")

    def close(self) -> None:
        """Close the descriptor and the view of the writer's status page."""
        os.close(self._descriptor)
        self._page.close()
