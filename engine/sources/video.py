"""Streams and files that FFmpeg opens: ``rtsp://``, ``http://``, and paths.

One connection serves everything: access units of H.264 and H.265 as they came, the JPEGs of cameras that send JPEG
(passthrough), and JPEGs of decoded pictures (transcode). ``stream.py`` opens it and reads packets, ``decoder.py``
decodes them. A file is read at the pace of its own times.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from engine.config import Camera
from engine.errors import CameraUnavailable, WireError
from engine.sources.arrival import Arrivals
from engine.sources.camera_time import CameraTimes
from engine.sources.decode_mode import DecodeMode
from engine.sources.decoder import Decoder, VideoPacket
from engine.sources.jpeg_encoder import JpegEncoder
from engine.sources.jpeg_gate import JpegGate
from engine.sources.pace import Pacer
from engine.sources.pictures import Pictures
from engine.sources.source import CapturedFrame, SourceEnded
from engine.sources.stream import Stream, camera_time, new_description
from engine.wire import urls
from engine.wire.access_unit import AccessUnit, AccessUnits
from engine.wire.presentation import PresentationClock
from engine.wire.state import Decode, Mode

#: Damaged packets in a row after which a stream is given up: its codec has changed, or it is no video.
_DAMAGED_MAX = 64


class VideoSource:
    """The stream or file of ``camera``. Raises CameraUnavailable if it does not open."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._size = (camera.width, camera.height) if camera.width and camera.height else None
        self._gate = JpegGate()
        self._encoder = JpegEncoder(camera.quality, self._size)
        self.unit: AccessUnit | None = None
        self.arrived_nano = self.camera_time_nano = 0
        self._packet: VideoPacket | None = None
        #: A packet of a file that is not due yet.
        self._early: VideoPacket | None = None
        self._damaged = 0
        self._begin(Stream(camera))
        self._pacer = Pacer(self._stream.fps) if camera.kind == "file" else None

    def _begin(self, stream: Stream) -> None:
        """Take a stream that was opened."""
        self._stream = stream
        self.codec = stream.codec
        encoding = stream.encoding
        self._units = AccessUnits(encoding, stream.description) if encoding else None
        self._choice = DecodeMode(self._camera.decode, self._camera.fps) if encoding else None
        self._clock = PresentationClock()
        self._arrivals = Arrivals() if stream.waits else None
        self._times = CameraTimes(camera_time) if self._camera.kind == "rtsp" else None
        #: True after the first packet, and after the last one.
        self._flowed = self._ended = False
        self._pictures = Pictures(Decoder(stream.context))
        self.mode: Mode = "passthrough" if self._passes() else "" if self.decode == "none" else "transcode"

    def _passes(self) -> bool:
        """True if the camera's own JPEGs match the configuration."""
        if self._camera.encoding != "auto" or self.codec != "MJPG":
            return False
        return self._size is None or self._stream.size == self._size

    @property
    def decode(self) -> Decode:
        """See Source."""
        return self._choice.decode if self._choice else ""

    def grab(self) -> bool:
        """See Source."""
        self.unit = self._packet = None
        if self._damaged >= _DAMAGED_MAX:
            raise CameraUnavailable(f"sent {self._damaged} damaged packets in a row")
        packet = self._early or self._stream.read()
        self._early = None
        if packet is None:
            return self._end()
        if self._pacer and not self._pacer.wait(self._stream.nano(packet.dts)):
            self._early = packet
            return False
        self._packet, self._flowed = packet, True
        if self._arrivals:
            self.arrived_nano = self._arrivals.arrived(time.monotonic_ns(), packet.size)
        if self._times:
            self.camera_time_nano = self._times.take(self._stream.nano(packet.pts), packet)
        return self._take_unit(packet) if self._units else True

    def _end(self) -> bool:
        """The file is at its end: True if the decoder still has pictures. Otherwise begin again if it loops. Raises
        SourceEnded if it does not."""
        if not self._ended:
            self._ended = True
            return self.mode != "passthrough"
        if not self._camera.loop:
            raise SourceEnded("the file has ended")
        if not self._flowed:
            raise CameraUnavailable(f"{urls.mask(self._camera.url)} has no frames")
        self._stream.close()
        self._begin(Stream(self._camera))
        return False

    def _take_unit(self, packet: VideoPacket) -> bool:
        """Read the packet's access unit; False if it has no picture."""
        assert self._units
        assert self._choice
        if self._units.has_lengths and (description := new_description(packet)):
            self._units.describe(description)
        unit = self._units.read(memoryview(packet), flagged=packet.is_keyframe, pts=packet.pts)
        if unit is None:
            return False
        if packet.is_corrupt:
            unit = unit._replace(sound=False, keyframe=False)
        self._damaged = 0 if unit.sound else self._damaged + 1
        self.unit = unit
        return True

    def offset_us(self, unix_nano: int) -> int:
        """See Source."""
        packet = self._packet
        if packet is None:
            return 0
        return self._clock.offset(unix_nano, self._stream.nano(packet.pts), self._stream.nano(packet.dts)) // 1000

    def pictures(self, unix_nano: int) -> Sequence[int]:
        """See Source."""
        if self.mode == "passthrough":
            return (unix_nano,)
        packet, unit = self._packet, self.unit
        if packet is None:
            return self._pictures.finish()
        if unit is None or self._choice is None:
            return self._feed_other(packet, unix_nano)
        if unit.early:
            return ()
        if unit.keyframe:
            nano = self._stream.nano(packet.pts)
            self._choice.key_frame(unix_nano if nano is None else nano)
        return self._pictures.feed(packet, unix_nano, self.decode, keyframe=unit.keyframe, field=unit.field)

    def _feed_other(self, packet: VideoPacket, unix_nano: int) -> list[int]:
        """The pictures of a packet that is neither H.264 nor H.265."""
        try:
            stamps = self._pictures.feed(packet, unix_nano, "all", keyframe=True, field=False)
        except WireError:
            self._damaged += 1
            raise
        self._damaged = 0
        return stamps

    def retrieve(self, unix_nano: int, sequence: int) -> CapturedFrame:  # noqa: ARG002 - only test patterns carry them
        """See Source."""
        if self.mode == "passthrough":
            assert self._packet
            frame, nano = self._gate.check(memoryview(self._packet)), self.camera_time_nano
        else:
            frame = self._encoder.encode(self._pictures.take())
            nano = self._times.of(self._stream.nano(self._pictures.taken_pts)) if self._times else 0
        return frame._replace(camera_time_nano=nano) if nano else frame

    def skip(self) -> None:
        """See Source."""
        if self.mode != "passthrough":
            self._pictures.skip()

    def close(self) -> None:
        """See Source."""
        self.unit = self._packet = self._early = None
        self._stream.close()
