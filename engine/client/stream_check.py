"""Whether a stream is still the one that its consumer has read.

A stream that is deleted and made again counts its offsets from 0. A consumer that goes on at its old offset would miss
what comes before, and would get nothing until the stream has grown to that offset. The broker tells neither. Two signs
tell it:

* The consumer begins at a message that it has met before, and gets another one.
* Nothing comes, and the stream ends before the offset. Its end is read beside the consumer, from the last chunk on. A
  replica of the broker may be behind for a moment, so this counts only after some seconds.
"""

from __future__ import annotations

import time
from typing import Any

from engine.client.stream_position import StreamOffset, StreamPosition

#: Seconds without a message until the end of the stream is read.
_QUIET_SECONDS = 2.0
#: Seconds for which a replica's stream may end before the offset.
_BEHIND_SECONDS = 10.0
#: Messages of the last chunk that are under way at a time.
_PREFETCH = 1000


class StreamCheck:
    """The check of one connection, which begins to read ``queue`` at ``start``. For the connection's thread."""

    def __init__(self, position: StreamPosition, connection: Any, queue: str, start: StreamOffset) -> None:
        #: True if this is another stream.
        self.other = False
        self._position = position
        self._connection = connection
        self._queue = queue
        self._start = start
        self._begun = time.monotonic()
        #: True if nothing more is to be found out.
        self._done = False
        self._channel: Any = None
        #: The highest offset that was met at the end of the stream, and when the first was.
        self._end = -1
        self._end_at = 0.0

    def met(self, offset: int, body: bytes) -> None:
        """The consumer has got a message. Only the first tells something."""
        if not self._done:
            self._done = True
            self.other = self._position.differs(offset, body)

    def look(self) -> None:
        """Take a step; called in each turn of the I/O loop. Raises as pika."""
        if not self._done and isinstance(self._start, int):
            self._look_at_end(self._start, time.monotonic())
        if self._done and self._channel is not None:
            self._channel.close()
            self._channel = None

    def _look_at_end(self, start: int, now: float) -> None:
        if self._channel is None:
            if now - self._begun >= _QUIET_SECONDS:
                self._channel = self._connection.channel()
                self._channel.basic_qos(prefetch_count=_PREFETCH)
                self._channel.basic_consume(self._queue, self._on_message, arguments={"x-stream-offset": "last"})
        elif self._end + 1 >= start:
            # What comes next is the message at ``start``.
            self._done = True
        elif self._end >= 0 and now - self._end_at >= _BEHIND_SECONDS:
            self._done = self.other = True

    def _on_message(self, channel: Any, method: Any, properties: Any, _: bytes) -> None:
        offset = (properties.headers or {}).get("x-stream-offset")
        if isinstance(offset, int):
            self._end_at = self._end_at or time.monotonic()
            self._end = max(self._end, offset)
        channel.basic_ack(method.delivery_tag)
