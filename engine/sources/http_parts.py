"""The parts of a ``multipart/x-mixed-replace`` body: one picture each, as cameras send JPEG over HTTP.

A part begins with a line ``--boundary`` and headers. If they tell its length, the part is received straight into the
memory that ``FrameMemory`` lends, mostly the camera's ring. Otherwise it ends where the next part begins, so it is
complete one frame interval late.

Cameras state boundaries that they do not send. So the boundary is learned from the first line that looks like one.
Lengths may be wrong, too. If no boundary follows a part of the stated length, lengths are not used from then on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, Protocol

from engine.errors import CameraUnavailable, WireError
from engine.sources.source import FrameMemory
from engine.wire.multipart import CLOSING, HEAD, HEAD_BYTES_MAX, HEAD_WITH_LENGTH, part_size, skip_newlines

#: The longest wait for a part to begin, in seconds; after it, the caller may do something else.
_WAIT_SECONDS = 0.4
#: Size of the buffer for heads, in bytes. It grows for parts that are not received in memory that is lent.
_BUFFER_BYTES = 16_384
#: A part that is expected whole gets memory for a quarter more than the last, and for so many bytes behind it.
_SPARE = 1024
#: Room for the bytes that are received next, at least.
_ROOM_BYTES_MIN = 4096
#: Most bytes before the first boundary.
_PREAMBLE_BYTES_MAX = 65_536


class Body(Protocol):
    """Where the bytes come from."""

    resumable: bool
    #: ``socket.recvmsg_into`` where bytes come from a socket as they are; it waits a short time.
    scatter: Callable[[Iterable[memoryview]], tuple[int, Any, int, Any]] | None

    def readinto(self, memory: memoryview, deadline: float) -> int:
        """Wait for bytes until ``deadline``; returns how many. Raises TimeoutError, and CameraUnavailable at the
        end."""
        ...

    def expect(self, count: int) -> None:
        """So many bytes are awaited."""
        ...


class Parts:
    """Reads the parts of ``body``; ``memory`` lends room for them. Times are monotonic seconds."""

    def __init__(self, body: Body, memory: FrameMemory) -> None:
        self._body = body
        self._memory = memory
        self._bytes_max = memory.frame_bytes_max
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        #: What was received and not used yet.
        self._begin = self._end = 0
        #: The line that begins each part; empty before the first.
        self._boundary = b""
        #: True while bytes are passed over up to the next boundary.
        self._lost = False
        self._passed_over = 0
        self._uses_lengths = True
        #: Length of the part whose head was read; 0 if only the next boundary tells.
        self._size = 0
        #: Lengths of the last head and its part; 0 if the next part cannot be expected to be like it.
        self._head = self._last_size = 0
        #: True if the last part lies in memory that was lent.
        self.claimed = False

    def next(self, deadline: float, patience: float) -> memoryview | None:
        """The next part's body, valid until the next call; None if it is empty. ``claimed`` says where it is.

        Raises TimeoutError if its head is not complete by ``deadline``, or, if the call can be repeated, after some
        time without it. Raises FrameTooLarge if the body was passed over. Raises WireError, once, if a part does not
        begin where it should. Raises CameraUnavailable at the end, and if the body is not complete after ``patience``
        seconds."""
        while self._begin == self._end and self._head and self._body.scatter:
            part = self._receive_whole()
            if part is not None:
                self.claimed = True
                return part
            if time.monotonic() > deadline:
                raise TimeoutError
        while not self._read_head():
            self._fill(min(deadline, time.monotonic() + _WAIT_SECONDS) if self._body.resumable else deadline)
        try:
            return self._read_body(self._size, time.monotonic() + patience)
        except TimeoutError:
            raise CameraUnavailable(f"sent a picture that was not complete after {patience:g} s") from None

    def _receive_whole(self) -> memoryview | None:
        """Receive a part whose head is as long as the last one, and which is there as a whole: its body comes into
        claimed memory with the same call. None if something else came; then the buffer has it."""
        head = self._head
        likely = self._last_size + self._last_size // 4 + _SPARE
        room = self._memory.claim(likely) if likely <= self._bytes_max else None
        if room is None:
            self._head = 0
            return None
        assert self._body.scatter
        try:
            count = self._body.scatter([self._view[:head], room])[0]
        except BlockingIOError:
            raise TimeoutError from None
        except OSError:
            count = 0
        if not count:
            raise CameraUnavailable("the stream ended")
        match = HEAD_WITH_LENGTH.fullmatch(self._buffer, 0, head) if count > head else None
        body = count - head
        size = int(match[2]) if match and match[1] == self._boundary else 0
        if 0 < size <= body:
            self._last_size = size
            # What follows is mostly a line end alone.
            self._begin = self._end = 0
            if rest := bytes(room[size:body]).lstrip(b"\r\n"):
                self._append(rest)
            return room[:size]
        self._begin, self._end = 0, min(head, count)
        if body > 0:
            self._append(room[:body])
        self._begin = skip_newlines(self._buffer, 0, self._end)
        return None

    def _read_body(self, size: int, deadline: float) -> memoryview | None:
        """The body of a part of ``size`` bytes, 0 if only the next boundary tells."""
        self.claimed = False
        if not size:
            return self._until_boundary(deadline) or None
        if size > self._bytes_max:
            self._pass_over(size, deadline)
        room = self._memory.claim(size)
        if room is None:
            while self._end - self._begin < size:
                self._fill(deadline, size)
            body = self._view[self._begin : self._begin + size]
            self._begin += size
            return body
        if len(self._buffer) > _BUFFER_BYTES and self._begin == self._end:
            self._resize(_BUFFER_BYTES)
        have = min(size, self._end - self._begin)
        room[:have] = self._view[self._begin : self._begin + have]
        self._begin += have
        if have < size:
            self._body.expect(size - have)
            while have < size:
                have += self._body.readinto(room[have:], deadline)
            self._body.expect(1)
        self.claimed = True
        return room

    def _read_head(self) -> bool:
        """Read the next head in the buffer; False if it is not complete yet."""
        while (at := self._next_boundary()) >= 0:
            match = HEAD.match(self._buffer, at, self._end)
            if (match.end() if match else self._end) - at > HEAD_BYTES_MAX:
                raise CameraUnavailable(f"sends more than {HEAD_BYTES_MAX:,} bytes of headers with a picture")
            if match is None:
                return False
            boundary = match[1].rstrip()
            if boundary == (self._boundary or boundary):
                self._boundary, self._begin = boundary, match.end()
                self._lost, self._passed_over = False, 0
                self._size = size = part_size(match[2]) if self._uses_lengths else 0
                self._head = match.end() - at if 0 < size <= self._bytes_max else 0
                self._last_size = size
                return True
            if boundary == self._boundary + CLOSING:
                raise CameraUnavailable("the stream ended")
            # Another line that begins like the boundary.
            self._begin = at + 1
            self._lose()
        return False

    def _next_boundary(self) -> int:
        """The offset of the next boundary in the buffer, -1 if it is not there yet. Passes over what is no part."""
        buffer, boundary = self._buffer, self._boundary or b"--"
        if not self._lost:
            self._begin = begin = skip_newlines(buffer, self._begin, self._end)
            seen = buffer[begin : min(begin + len(boundary), self._end)]
            if boundary.startswith(seen):
                return begin if len(seen) == len(boundary) else -1
            self._lose()
        found = buffer.find(b"\n" + boundary, self._begin, self._end)
        kept = found if found >= 0 else max(self._begin, self._end - len(boundary))
        self._passed_over += kept - self._begin
        self._begin = kept
        if self._passed_over > _PREAMBLE_BYTES_MAX + (self._bytes_max if self._boundary else 0):
            raise CameraUnavailable("sends no boundary between its pictures; look at the camera's firmware")
        return found + 1 if found >= 0 else -1

    def _lose(self) -> None:
        """What follows is no part. Raises WireError where one should begin."""
        if self._boundary and not self._lost:
            self._lost, self._uses_lengths, self._head = True, False, 0
            raise WireError("no boundary where a part should end: its Content-Length is wrong, or it is damaged")
        self._lost = True

    def _until_boundary(self, deadline: float) -> memoryview:
        """The part up to the next boundary. Raises FrameTooLarge if it was passed over."""
        mark = b"\n" + self._boundary
        scanned = 0
        while (found := self._buffer.find(mark, self._begin + scanned, self._end)) < 0:
            size = self._end - self._begin
            scanned = max(size - len(mark) + 1, 0)
            if size > self._bytes_max + len(mark):
                self._pass_over_to(mark, deadline)
            self._fill(deadline)
        last = found - 1 if found > self._begin and self._buffer[found - 1] == ord("\r") else found
        body = self._view[self._begin : last]
        self._begin = found + 1
        if len(body) > self._bytes_max:
            raise self._memory.too_large(len(body))
        return body

    def _pass_over(self, size: int, deadline: float) -> NoReturn:
        """Receive a part of ``size`` bytes, too many to be stored. Raises FrameTooLarge."""
        left = size - (self._end - self._begin)
        while left > 0:
            self._begin = self._end = 0
            self._fill(deadline)
            left -= self._end
        self._begin = self._end + left
        raise self._memory.too_large(size)

    def _pass_over_to(self, mark: bytes, deadline: float) -> NoReturn:
        """Receive the rest of a part that is too large to be stored. Raises FrameTooLarge."""
        size = 0
        while (found := self._buffer.find(mark, self._begin, self._end)) < 0:
            passed = max(self._end - self._begin - len(mark) + 1, 0)
            size += passed
            self._begin += passed
            self._fill(deadline)
        size += found - self._begin
        self._begin = found + 1
        raise self._memory.too_large(size)

    def _fill(self, deadline: float, size: int = 0) -> None:
        """Receive more. The buffer gets room for ``size`` bytes from its beginning, and for some more."""
        held = self._end - self._begin
        if not held:
            self._begin = self._end = 0
        room = max(size, held + _ROOM_BYTES_MIN)
        if self._begin + room > len(self._buffer):
            self._resize(max(len(self._buffer), 1 << (room - 1).bit_length()))
        self._end += self._body.readinto(self._view[self._end :], deadline)

    def _append(self, data: bytes | memoryview) -> None:
        """Put ``data`` behind what is in the buffer."""
        end = self._end + len(data)
        if end > len(self._buffer):
            self._resize(1 << (end - 1).bit_length())
            end = self._end + len(data)
        self._view[self._end : end] = data
        self._end = end

    def _resize(self, size: int) -> None:
        """Move what is in the buffer to the beginning of one of ``size`` bytes."""
        held = self._view[self._begin : self._end]
        buffer = bytearray(size) if size != len(self._buffer) else self._buffer
        view = memoryview(buffer)
        view[: len(held)] = held
        self._begin, self._end = 0, len(held)
        self._buffer, self._view = buffer, view
