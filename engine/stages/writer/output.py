"""Bytes on their way to Redis. ``sendmsg`` sends small byte strings around views of the rings (the scatter-gather
method of writev(2)). TLS has no such call, so each piece is sent separately."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

#: Buffers that one sendmsg takes (IOV_MAX of Linux).
_BUFFERS_MAX = 1024
#: Bytes per receive call of the replies; they are short.
RECEIVE_BYTES = 65_536
#: Longest replies to one batch or question, in bytes; those of the largest batch are a fiftieth of it.
REPLIES_BYTES_MAX = 4 * 2**20


class Output:
    """Buffers that wait for a socket. Payloads are views of the rings and are not copied."""

    def __init__(self) -> None:
        self._buffers: deque[bytes | memoryview] = deque()

    def __bool__(self) -> bool:
        return bool(self._buffers)

    def extend(self, buffers: Iterable[bytes | memoryview]) -> None:
        """Send ``buffers`` behind the others."""
        self._buffers.extend(buffers)

    def clear(self) -> None:
        """Forget all buffers."""
        self._buffers.clear()

    def send(self, socket: Any) -> None:
        """Send what ``socket`` takes in one call; only while there are buffers. Raises OSError. A socket that takes
        nothing now raises BlockingIOError, or with TLS ssl.SSLWantReadError or ssl.SSLWantWriteError."""
        buffers = self._buffers
        if isinstance(socket, ssl.SSLSocket):
            sent = socket.send(buffers[0])
        else:
            sent = socket.sendmsg(list(islice(buffers, _BUFFERS_MAX)))
        while buffers and sent >= len(buffers[0]):
            sent -= len(buffers.popleft())
        if sent:
            buffers[0] = memoryview(buffers[0])[sent:]
