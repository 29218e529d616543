"""Paces the cameras of a site that connect at the same time, as all do at a start: a few at a time.

A file in the site's directory has a place for each camera that may connect: the time at which it began (monotonic
nanoseconds), 0 if the place is free. A lock on the file guards the choice of a place, and nothing else, so it is held
for microseconds. A place counts for two seconds at most. So a process that was killed in its place, or a camera that
does not answer, holds the others up no longer than that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

#: Cameras that connect at a time, and seconds after which a camera that still connects does not count any more.
PLACES = 8
_COUNTS_SECONDS = 2.0
_WORDS = struct.Struct(f"<{PLACES}Q")
_WORD = struct.Struct("<Q")


class Turnstile:
    """The turnstile whose file is at ``path``, which is made if it is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        #: The place that this process has, and its time there.
        self._mine: tuple[int, int] | None = None

    def enter(self) -> bool:
        """Take a place; False if there is none at this moment. Without a file that can be used, all may enter."""
        try:
            with self._file() as descriptor:
                now = time.monotonic_ns()
                begun = _WORDS.unpack(os.pread(descriptor, _WORDS.size, 0).ljust(_WORDS.size, b"\0"))
                for place, since in enumerate(begun):
                    if not 0 <= now - since < _COUNTS_SECONDS * 1e9:
                        os.pwrite(descriptor, _WORD.pack(now), place * _WORD.size)
                        self._mine = place, now
                        return True
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    def leave(self) -> None:
        """Give the place back, if it is not another's by now."""
        if self._mine is None:
            return
        (place, since), self._mine = self._mine, None
        with contextlib.suppress(OSError), self._file() as descriptor:
            if os.pread(descriptor, _WORD.size, place * _WORD.size) == _WORD.pack(since):
                os.pwrite(descriptor, bytes(_WORD.size), place * _WORD.size)

    @contextlib.contextmanager
    def _file(self) -> Iterator[int]:
        """The open file, locked. Raises BlockingIOError if another process has the lock, OSError."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield descriptor
        finally:
            os.close(descriptor)
