"""Writes log lines to a descriptor. A full disk or a closed pipe must not stop the process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, Any

#: Makes a line, without its end, that reports how many lines were lost.
Notice = Callable[[int], str]


class Lines:
    """A structlog logger that writes whole lines to a file's descriptor, with one system call each.

    A line that cannot be written is lost and counted. Once writing works again, ``notice`` comes first.
    """

    def __init__(self, file: IO[Any], notice: Notice) -> None:
        # Keep a reference, or the file would be closed.
        self._file = file
        self._descriptor = file.fileno()
        self._notice = notice
        self._lost = 0
        #: True if the last write ended in the middle of a line.
        self._torn = False

    def msg(self, message: str) -> None:
        """Write one line."""
        if self._lost and self._write(self._notice(self._lost)):
            self._lost = 0
        if self._lost or not self._write(message):
            self._lost += 1

    log = debug = info = warning = error = critical = exception = msg

    def _write(self, line: str) -> bool:
        data = f"{line}\n".encode(errors="backslashreplace")
        if self._torn:
            data = b"\n" + data
        try:
            written = os.write(self._descriptor, data)
        except OSError:
            return False
        self._torn = written < len(data)
        return not self._torn
