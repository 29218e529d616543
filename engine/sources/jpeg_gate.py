"""What may pass of a camera's own JPEGs: whole pictures that decode alone."""

from __future__ import annotations

from engine.sources.source import CapturedFrame
from engine.wire import jpeg


class JpegGate:
    """Passes whole, self-contained JPEGs; remembers a stream's headers, which seldom change."""

    def __init__(self) -> None:
        self._headers = b""
        self._info = jpeg.JpegInfo(0, 0, False, 0, 0)

    def check(self, data: memoryview, *, claimed: bool = False) -> CapturedFrame:
        """The frame made of ``data``, which FrameMemory lent if ``claimed``. Raises WireError if it is truncated or no
        JPEG."""
        headers, info = self._headers, self._info
        if headers and data[: len(headers)] == headers:
            end = jpeg.find_end(data, info.scan)
        else:
            self._info = info = jpeg.inspect(data)
            end = info.end
            # Includes the marker of the scan, so that every passed frame has one.
            self._headers = bytes(data[: info.scan + 2])
        if info.has_huffman_tables:
            return CapturedFrame((data[:end],), info.width, info.height, claimed)
        return CapturedFrame(jpeg.standalone(data, info._replace(end=end)), info.width, info.height)
