"""Multipart bodies for tests of the HTTP source: built, and read from memory in pieces of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from engine.config import Camera, Url
from engine.errors import CameraUnavailable, FrameTooLarge, WireError
from engine.sources.http_jpeg import HttpJpegSource

NANO = 1_731_024_000_000_000_000


def part(body: bytes, boundary: str = "--frame", *, length: object = "", end: str = "\r\n", more: str = "") -> bytes:
    """A part with its boundary before it; ``length`` is what its Content-Length says, None for none."""
    lines = [boundary, "Content-Type: image/jpeg", *([more] if more else [])]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length == '' else length}")
    return end.join([*lines, "", ""]).encode() + body + end.encode()


class Pieces:
    """A connection whose reads end where ``sizes`` say, over and over."""

    def __init__(self, data: bytes, sizes: Iterable[int] = (), *, direct: bool = True) -> None:
        self.resumable = direct
        self.scatter: Callable[[Iterable[memoryview]], tuple[int, Any, int, Any]] | None = None
        if direct:
            self.scatter = self._scatter
        self._data = data
        self._at = 0
        self._sizes = self._forever(list(sizes) or [len(data) + 1])

    def _forever(self, sizes: list[int]) -> Iterator[int]:
        while True:
            yield from sizes

    def _scatter(self, buffers: Iterable[memoryview]) -> tuple[int, Any, int, Any]:
        left = total = next(self._sizes)
        for buffer in buffers:
            taken = self._take(buffer[:left])
            left -= taken
            if taken < len(buffer):
                break
        return total - left, [], 0, None

    def _take(self, memory: memoryview) -> int:
        data = self._data[self._at : self._at + len(memory)]
        memory[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readinto(self, memory: memoryview, deadline: float) -> int:
        count = self._take(memory[: next(self._sizes)])
        if not count:
            raise CameraUnavailable("the stream ended")
        return count

    def expect(self, count: int) -> None:
        assert count > 0

    def close(self) -> None:
        """Nothing is open."""


class Lender:
    """Lends memory for every ``every``-th frame, 0 for none; checks that only valid memory is used."""

    frame_bytes_max = 70_000

    def __init__(self, every: int = 1) -> None:
        self._every = every
        self._asked = 0
        self._lent: memoryview | None = None

    def claim(self, size: int) -> memoryview | None:
        assert 0 < size <= self.frame_bytes_max
        if self._lent is not None:
            self._lent.release()
            self._lent = None
        self._asked += 1
        if self._every and not self._asked % self._every:
            self._lent = memoryview(bytearray(size))
        return self._lent

    def too_large(self, size: int) -> FrameTooLarge:
        return FrameTooLarge("too large", size=str(size))


def camera(url: str = "http://127.0.0.1/x", **more: object) -> Camera:
    return Camera(id="cam1", url=Url(url), **{"open_timeout_seconds": 5.0, "stall_seconds": 5.0} | more)


def outcomes(connection: Pieces, memory: Lender | None = None, **more: object) -> tuple[list[bytes | str], str]:
    """What comes of a body: pictures, and the names of errors; and why it ended."""
    source = HttpJpegSource(camera(**more), connection, memory or Lender())
    found: list[bytes | str] = []
    while True:
        try:
            if not source.grab():
                continue
        except CameraUnavailable as error:
            return found, error.fact
        try:
            frame = source.retrieve(NANO, 1)
            found.append(b"".join(frame.parts))
        except (WireError, FrameTooLarge) as error:
            found.append(type(error).__name__)
