"""One question to Redis about many streams, which waits for entries: ``XREAD COUNT n BLOCK ms STREAMS …``.

A publisher asks it hundreds of times a second about the same streams. So their names are framed once, and a position
only when it has changed.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.wire.journal import EntryId
from engine.wire.resp import bulk


class StreamRead:
    """Frames the question. What it framed before is used again."""

    def __init__(self) -> None:
        self._streams: list[bytes] = []
        self._names = b""
        self._framed: dict[bytes, tuple[EntryId, bytes]] = {}

    def frame(self, positions: Mapping[bytes, EntryId], count: int, block_ms: int) -> bytes:
        """The bytes that ask for up to ``count`` entries of each stream behind its position. Redis answers when there
        is any, or after ``block_ms``. ``positions`` must not be empty."""
        streams = list(positions)
        if streams != self._streams:
            self._streams, self._names = streams, b"".join(map(bulk, streams))
            self._framed.clear()
        identifiers = []
        for stream, at in positions.items():
            framed = self._framed.get(stream)
            if framed is None or framed[0] != at:
                framed = self._framed[stream] = at, bulk(b"%d-%d" % at)
            identifiers.append(framed[1])
        head = b"*%d\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n" % (6 + 2 * len(streams))
        limits = bulk(b"%d" % count) + b"$5\r\nBLOCK\r\n" + bulk(b"%d" % block_ms) + b"$7\r\nSTREAMS\r\n"
        return b"".join((head, limits, self._names, *identifiers))
