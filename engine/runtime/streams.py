"""Standard streams that are closed, or that go away with their terminal: neither may stop a site."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO

_STREAMS = ("stdin", "stdout", "stderr")
#: Descriptors that were closed when the process began.
_closed: set[int] = set()


def open_missing() -> None:
    """Open ``/dev/null`` in place of standard streams that are closed (``edge-video run >&-``). First of all: a file
    opened later would get the free descriptor, and what is printed would go into it."""
    for descriptor, name in enumerate(_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            _closed.add(descriptor)
            # The lowest free descriptor is the one that is missing.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, _text(descriptor))


def _text(descriptor: int) -> IO[str]:
    mode = "r" if descriptor == 0 else "w"
    return open(descriptor, mode, encoding="utf-8", errors="backslashreplace", closefd=False)


def has_standard_error() -> bool:
    """False where log lines would go to nobody."""
    return 2 not in _closed


def leave_terminal() -> None:
    """The terminal of standard output has gone: what is written from now on, and what is still buffered, is lost."""
    gone = os.fstat(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), gone):
                os.dup2(null, descriptor)
    os.close(null)
