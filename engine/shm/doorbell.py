"""How a sleeping writer learns of a frame: a flag in its status page, and a FIFO that only a sleeper is woken through.

The writer sets the flag, looks at its rings once more, and sleeps in ``select`` on the FIFO. A producer that has
published looks at the flag and writes one byte where it is set. Both look after they wrote, with a full fence between
(the two ``SYNC POINT doorbell``), so one of them always sees the other. An extra byte causes one
spurious wake-up.
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

#: Bytes read at a wake-up: one for each frame that was published while the writer was waking.
_DRAIN_BYTES = 4096
#: As a plain number: an enum's members are slow to look up, and this is done for each frame.
_WAITING = WriterCount.WAITING.value


def _open(path: Path) -> int:
    """The FIFO's descriptor, made if need be; read and write, so that neither side waits for or misses the other."""
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
        self._counts = page.counts
        self._fence = new_fence()

    def wait(self, timeout: float, pending: Callable[[], bool]) -> None:
        """Sleep until a producer wakes the writer, at most ``timeout`` seconds; not where ``pending()`` is true."""
        self._counts[WriterCount.WAITING] = 1
        # SYNC POINT doorbell: the flag is up, before the last look at the rings.
        self._fence()
        try:
            if not pending() and select.select([self._descriptor], [], [], timeout)[0]:
                os.read(self._descriptor, _DRAIN_BYTES)
        finally:
            self._counts[WriterCount.WAITING] = 0

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


class Bell:
    """A producer's side."""

    def __init__(self, path: Path, writer_page: StatusPage) -> None:
        self._descriptor = _open(path)
        self._page = writer_page
        self._counts = writer_page.counts
        self._fence = new_fence()

    def wake(self) -> None:
        """Wake the writer if it sleeps; to be called behind each published frame."""
        # SYNC POINT doorbell: the frame is published, before the look at the flag.
        self._fence()
        if self._counts[_WAITING]:
            # A full FIFO wakes the writer just as well.
            with contextlib.suppress(BlockingIOError):
                os.write(self._descriptor, b"!")

    def close(self) -> None:
        """Give the descriptor and the view of the writer's status page back."""
        os.close(self._descriptor)
        self._page.close()
