"""What a camera sends over HTTP after its answer's head, read without FFmpeg.

``camera_request.py`` asks for it: with the login that the camera wants, and over redirects, which lead to no other
protocol and give the login to no other host. The standard library reads the head, and bodies that come in chunks.
Other bodies come from the socket straight into the caller's memory.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from http.client import HTTPException
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from engine.errors import CameraUnavailable, WireError
from engine.sources.camera_request import REDIRECTS_MAX, Opened, Request
from engine.sources.source import NotOpened
from engine.wire import urls

_OK = range(200, 300)


class HttpStream:
    """The body of an answer, with the head's ``content_type`` and ``content_encoding``."""

    def __init__(self, opened: Opened) -> None:
        assert opened.response
        self._connection = opened.connection
        self._reader = opened.reader
        self._response = response = opened.response
        self.content_type = opened.answer.headers.get("content-type", "")
        self.content_encoding = opened.answer.headers.get("content-encoding", "identity").lower()
        #: True if a read that found nothing may be repeated.
        self.resumable = not response.chunked and response.length is None
        self.scatter: Callable[[Iterable[memoryview]], tuple[int, Any, int, Any]] | None = (
            opened.connection.recvmsg_into if self.resumable and self._reader.receiver.plain else None
        )
        #: What came with the head.
        self._rest = b""
        if self.resumable:
            # Past its deadline, the file gives what it has and asks for no more.
            self._reader.deadline = 0.0
            with contextlib.suppress(TimeoutError):
                self._rest = response.fp.peek()

    @classmethod
    def open(cls, url: str, seconds: float) -> Self:
        """Ask for ``url``; the answer is one of success. Raises NotOpened if there is none within ``seconds``; the host
        lookup may take longer."""
        try:
            opened = _open(url, time.monotonic() + seconds)
        except (OSError, WireError, ValueError):
            opened = None
        if opened is None:
            raise NotOpened(f"{urls.mask(url)} sent no video")
        return cls(opened)

    def readinto(self, memory: memoryview, deadline: float) -> int:
        """Wait for bytes until ``deadline``, monotonic; returns how many came. Raises TimeoutError, and
        CameraUnavailable at the end."""
        count = 0
        try:
            if not self.resumable:
                self._reader.deadline = deadline
                data = self._response.read1(len(memory))
                count = len(data)
                memory[:count] = data
            elif self._rest:
                count = min(len(self._rest), len(memory))
                memory[:count] = self._rest[:count]
                self._rest = self._rest[count:]
            else:
                count = self._reader.receiver.readinto(memory, deadline)
        except TimeoutError:
            raise
        except (OSError, HTTPException):
            pass
        if not count:
            raise CameraUnavailable("the stream ended")
        return count

    def expect(self, count: int) -> None:
        """So many bytes are awaited: sleep until they are there."""
        if self.resumable:
            self._reader.receiver.expect(count)

    def close(self) -> None:
        """Release the connection."""
        self._connection.close()


def _open(url: str, deadline: float) -> Opened | None:
    """The answer to the last of the redirects; None if the camera refused. Raises OSError, WireError, ValueError."""
    parts = urlsplit(url)
    home, login = parts.hostname, (unquote(parts.username or ""), unquote(parts.password or ""))
    for _ in range(REDIRECTS_MAX):
        opened = Request(parts, deadline).open(*(login if parts.hostname == home else ("", "")))
        if opened.answer.status in _OK:
            return opened
        opened.connection.close()
        target = opened.answer.redirect(parts)
        if target is None or target.scheme not in ("http", "https"):
            return None
        parts = target
    return None
