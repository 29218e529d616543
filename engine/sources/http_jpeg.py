"""Cameras that send JPEG over HTTP: each picture a part of a ``multipart/x-mixed-replace`` body.

The engine reads them itself, because that takes less CPU than FFmpeg: a picture goes from the socket into the ring
without a copy, mostly in one call. Everything else over HTTP, and everything through a proxy, is FFmpeg's
(``video.py``). The answer's Content-Type decides; if it is not multipart, that connection is closed before FFmpeg opens
its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol

from engine.config import Camera
from engine.errors import CameraUnavailable, FrameTooLarge, WireError
from engine.sources.camera_request import shown
from engine.sources.http_parts import Body, Parts
from engine.sources.http_stream import HttpStream
from engine.sources.jpeg_gate import JpegGate
from engine.sources.source import CapturedFrame, FrameMemory, OnePicture
from engine.wire import jpeg
from engine.wire.multipart import is_mixed_replace
from engine.wire.state import Mode


def open_http_jpeg(camera: Camera, memory: FrameMemory) -> HttpJpegSource | None:
    """The stream at the camera's URL; None if FFmpeg must read it. Raises NotOpened, CameraUnavailable."""
    if os.environ.get("http_proxy"):
        return None
    stream = HttpStream.open(camera.url, camera.open_timeout_seconds)
    if not is_mixed_replace(stream.content_type):
        stream.close()
        return None
    if stream.content_encoding != "identity":
        stream.close()
        raise CameraUnavailable(
            f"compresses its stream (Content-Encoding: {shown(stream.content_encoding)}); turn that off in the camera, "
            "or in the proxy before it"
        )
    return HttpJpegSource(camera, stream, memory)


class Connection(Body, Protocol):
    """A body that can be closed."""

    def close(self) -> None:
        """Release the connection."""
        ...


class HttpJpegSource(OnePicture):
    """The pictures of one connection."""

    codec = "MJPG"

    def __init__(self, camera: Camera, connection: Connection, memory: FrameMemory) -> None:
        self._camera = camera
        self._connection = connection
        self._parts = Parts(connection, memory)
        self._size = (camera.width, camera.height) if camera.width and camera.height else None
        self._gate = JpegGate()
        self.mode: Mode = "passthrough" if camera.encoding == "auto" else "transcode"
        #: Needed where the camera's own JPEGs do not match the configuration.
        self._transcode = _transcoder(camera.quality, self._size) if self.mode == "transcode" else None
        self._part: memoryview | None = None
        #: Why the part that was grabbed is no picture.
        self._failure: WireError | FrameTooLarge | None = None
        #: False after a part that was no picture.
        self._sound = True
        #: When the last part was complete, or the stream opened.
        self._last = time.monotonic()

    def grab(self) -> bool:
        """See Source."""
        self._part = self._failure = None
        patience = self._camera.stall_seconds
        try:
            self._part = self._parts.next(self._last + patience, patience)
        except TimeoutError:
            waited = time.monotonic() - self._last
            if waited >= patience:
                raise CameraUnavailable(f"sent nothing for {waited:.1f} s") from None
            return False
        except FrameTooLarge as error:
            self._failure = error
        except WireError as error:
            # What follows a part that was no picture may be its rest, and is counted with it.
            self._failure = error if self._sound else None
        if self._part is None and self._failure is None:
            return False
        self._last = time.monotonic()
        if self._part and self._size and self._camera.encoding == "auto":
            self.mode = "passthrough" if jpeg.describe(self._part)[:2] == self._size else "transcode"
        return True

    def skip(self) -> None:
        """See Source."""
        self._part = None

    def retrieve(self, unix_nano: int, sequence: int) -> CapturedFrame:  # noqa: ARG002 - only test patterns carry them
        """See Source."""
        self._sound = False
        if self._failure:
            raise self._failure
        assert self._part
        body, claimed, self._part = self._part, self._parts.claimed, None
        frame = self._gate.check(body, claimed=claimed)
        if self.mode == "transcode":
            self._transcode = self._transcode or _transcoder(self._camera.quality, self._size)
            frame = self._transcode(body)
        elif claimed and not frame.claimed:
            # Tables were added between two parts of the claimed memory, which must be copied before it is written to.
            frame = CapturedFrame((b"".join(frame.parts),), frame.width, frame.height)
        self._sound = True
        return frame

    def close(self) -> None:
        """See Source."""
        self._part = None
        self._connection.close()


def _transcoder(quality: int, size: tuple[int, int] | None) -> Callable[[memoryview], CapturedFrame]:
    """Decodes a JPEG and encodes it again. The libraries for it are loaded here, because few cameras need them."""
    from engine.sources.decoder import JpegDecoder
    from engine.sources.jpeg_encoder import JpegEncoder, single_thread

    # One core serves many cameras.
    single_thread()
    decoder, encoder = JpegDecoder(), JpegEncoder(quality, size)
    return lambda data: encoder.encode(decoder.decode(data))
