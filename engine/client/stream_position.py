"""Where a consumer stands in a stream queue.

A stream keeps its messages; each has an offset, which rises. The broker does not keep the position of a consumer, so
the consumer keeps it. After a lost connection it reads on at the first message that is not settled; if all are, at the
last one, because a message that is known tells whether the stream is the same. Messages behind that one may be settled
already, because a message that failed waits while others go on. They come again, and are passed over.

The dispatcher's thread admits and settles; the connection's thread asks where to read on.
"""

from __future__ import annotations

import hashlib
import threading
from datetime import UTC, datetime
from typing import Literal

from engine.errors import InputError

#: Where to begin: the oldest message, the newest chunk, what comes from now on, an offset, or a time.
StreamOffset = Literal["first", "last", "next"] | int | datetime
_WORDS = ("first", "last", "next")
#: An offset is a signed number of 64 bits in AMQP.
_OFFSET_MAX = 2**63 - 1


class StreamPosition:
    """The position of one consumer, which begins at ``start``."""

    def __init__(self, start: StreamOffset) -> None:
        self._start = start
        self._lock = threading.Lock()
        #: When it began to read.
        self._begun: datetime | None = None
        self._generation = -1
        #: The highest offset that was admitted, and the admitted offsets that are not settled.
        self._last: int | None = None
        self._open: set[int] = set()
        #: The digests of these messages.
        self._digests: dict[int, bytes] = {}

    @property
    def next_offset(self) -> int | None:
        """The lowest offset that is not settled; None before the first message."""
        with self._lock:
            if self._last is None:
                return None
            return min(self._open, default=self._last + 1)

    def argument(self) -> StreamOffset:
        """Where the next connection begins to read: at a message that was met, if there is one."""
        with self._lock:
            if self._last is not None:
                return min(self._open, default=self._last)
        if self._begun is None:
            self._begun = datetime.now(UTC)
            return self._start
        # No message came on the first connection. Those that came meanwhile must not be passed over.
        return self._begun if self._start in ("last", "next") else self._start

    def restart(self, generation: int) -> bool:
        """The stream was made for the connection ``generation``, so its offsets begin at 0. True if a stream was read
        before: it is gone, and all of this one is read."""
        with self._lock:
            if self._begun is None:
                return False
            self._start, self._last = "first", None
            self._open.clear()
            self._digests.clear()
            self._generation = generation
            return True

    def seen(self, offset: int) -> bool:
        """True if a message of this offset was admitted before."""
        with self._lock:
            return self._last is not None and offset <= self._last

    def differs(self, offset: int, body: bytes) -> bool:
        """True if another message than this was admitted at its offset."""
        with self._lock:
            known = self._digests.get(offset)
        return known is not None and known != _digest(body)

    def admit(self, offset: int, generation: int, body: bytes = b"") -> bool:
        """Take in a message of the connection ``generation``. False if it is settled already."""
        with self._lock:
            if generation < self._generation:
                # It is of a stream that is gone.
                return False
            if generation != self._generation:
                # The stream may have dropped its oldest messages meanwhile.
                self._generation = generation
                self._open = {one for one in self._open if one >= offset}
                self._digests = {one: known for one, known in self._digests.items() if one >= offset}
            if self._last is not None:
                if offset <= self._last:
                    return offset in self._open
                if self._last not in self._open:
                    self._digests.pop(self._last, None)
            self._last = offset
            self._open.add(offset)
            self._digests[offset] = _digest(body)
            return True

    def settle(self, offset: int) -> None:
        """A message is done: accepted, or given up."""
        with self._lock:
            self._open.discard(offset)
            if offset != self._last:
                self._digests.pop(offset, None)


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()


def check_offset(offset: object) -> None:
    """Raises InputError for anything that is no StreamOffset."""
    if isinstance(offset, datetime):
        if offset.tzinfo is None:
            raise InputError(f"offset {offset.isoformat()} has no time zone; give one, such as datetime.now(UTC)")
        if offset.timestamp() < 0:
            raise InputError(f"offset {offset.isoformat()} is before 1970; give a later time, or 'first'")
    elif isinstance(offset, int) and not isinstance(offset, bool):
        if not 0 <= offset <= _OFFSET_MAX:
            raise InputError(f"offset {offset} is not in 0..{_OFFSET_MAX}")
    elif offset not in _WORDS:
        raise InputError(f"offset {offset!r} must be 'first', 'last', 'next', a number, or a datetime")
