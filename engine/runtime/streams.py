"""Standard streams that are closed, or that vanish with their terminal. Neither may stop a site."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO

_STREAMS = ("stdin", "stdout", "stderr")
#: Descriptors that were closed when the process began.
_closed: set[int] = set()


def open_missing() -> None:
    """Open ``/dev/null`` for standard streams that are closed (``edge-video run >&-``). Call this before anything else:
    the next opened file would get the free descriptor, and prints would go into it."""
    for descriptor, name in enumerate(_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            _closed.add(descriptor)
            # The missing descriptor is the lowest free one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, _text(descriptor))


def _text(descriptor: int) -> IO[str]:
    mode = "r" if descriptor == 0 else "w"
    return open(descriptor, mode, encoding="utf-8", errors="backslashreplace", closefd=False)


def has_standard_error() -> bool:
    """False if standard error was closed when the process began."""
    return 2 not in _closed


def leave_terminal() -> None:
    """Call this when the terminal of standard output is gone: later and buffered output goes to ``/dev/null``."""
    gone = os.fstat(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), gone):
                os.dup2(null, descriptor)
    os.close(null)
