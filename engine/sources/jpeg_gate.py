"""What may pass of a camera's own JPEGs: whole pictures that decode alone."""

from __future__ import annotations

from engine.sources.source import CapturedFrame
from engine.wire import jpeg


class JpegGate:
    """Passes whole, self-contained JPEGs; remembers a stream's headers, which seldom change."""

    def __init__(self) -> None:
        self._headers = b""
        self._info = jpeg.JpegInfo(0, 0, False, 0, 0)

    def check(self, data: memoryview) -> CapturedFrame:
        """The frame made of ``data``. Raises WireError if it is truncated or no JPEG."""
        info = self._info
        if self._headers and data[: len(self._headers)] == self._headers:
            info = info._replace(end=jpeg.find_end(data, info.scan))
        else:
            info = jpeg.inspect(data)
            # Includes the marker of the scan, so that every passed frame has one.
            self._headers = bytes(data[: info.scan + 2])
            self._info = info
        return CapturedFrame(jpeg.standalone(data, info), info.width, info.height)
