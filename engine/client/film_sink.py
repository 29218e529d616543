"""A file for FFmpeg's muxer that gives what was written, for films that are sent on as they grow."""

from __future__ import annotations

from engine.client.hvc1 import tag_hvc1


class FilmSink:
    """A file that cannot seek. ``take`` gives what was written since the last call."""

    def __init__(self) -> None:
        self.closed = False
        self._pieces: list[bytes] = []
        self._begun = False

    def write(self, data: bytes) -> int:
        """Called by FFmpeg."""
        self._pieces.append(bytes(data))
        return len(data)

    def close(self) -> None:
        """Nothing is written any more."""
        self.closed = True

    def take(self) -> bytes:
        """What was written; empty if nothing was. H.265 is tagged as ``hvc1`` in the header, which comes first."""
        if not self._pieces:
            return b""
        data = b"".join(self._pieces)
        self._pieces.clear()
        if not self._begun:
            data = tag_hvc1(data)
        self._begun = True
        return data
