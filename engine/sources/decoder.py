"""Decodes packets to pictures, with FFmpeg through PyAV. One thread decodes, because one core serves many cameras."""

from __future__ import annotations

from typing import TypeAlias, cast

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.stream import VideoStream

from engine.errors import WireError
from engine.sources.jpeg_encoder import Plane, Planes

#: A packet of a stream, and a decoded picture.
VideoPacket: TypeAlias = "Packet[VideoStream]"
Frame = VideoFrame
#: Formats of three planes of 8 bits: brightness, and two of colour of any size. FFmpeg converts all others.
_PLANAR = frozenset(f"yuv{j}{kind}p" for j in ("", "j") for kind in (420, 422, 440, 444, 411))
#: The value of ``color_range`` of pictures that use all values.
_FULL_RANGE = 2


class Decoder:
    """The decoder of one stream."""

    def __init__(self, context: VideoCodecContext) -> None:
        self._context = context
        context.thread_count = 1

    def decode(self, packet: VideoPacket) -> list[Frame]:
        """The pictures that are ready after this packet, in the order in which they are shown. Raises WireError."""
        return self._decode(packet)

    def finish(self) -> list[Frame]:
        """The pictures that are left. The next packet must be a key frame. Raises WireError."""
        try:
            return self._decode(None)
        finally:
            self._context.flush_buffers()

    def alone(self, *packets: VideoPacket) -> Frame:
        """The picture of a key frame (of two packets if they are its fields). Raises WireError if there is none, or if
        parts of it are missing."""
        frames: list[Frame] = []
        try:
            for packet in packets:
                frames += self._decode(packet)
            frames += self._decode(None)
        finally:
            self._context.flush_buffers()
        if not frames:
            raise WireError("the key frame could not be decoded")
        if frames[0].is_corrupt:
            raise WireError("the key frame is damaged")
        return frames[0]

    def _decode(self, packet: VideoPacket | None) -> list[Frame]:
        try:
            return self._context.decode(packet)
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            raise WireError("the frame could not be decoded") from None


class JpegDecoder:
    """Decodes JPEGs, each by itself."""

    def __init__(self) -> None:
        self._decoder = Decoder(VideoCodecContext.create("mjpeg", "r"))

    def decode(self, data: memoryview) -> Planes:
        """The picture of a JPEG. Raises WireError."""
        frames = self._decoder.decode(cast("VideoPacket", Packet(bytes(data))))
        if not frames:
            raise WireError("the frame could not be decoded")
        return planes_of(frames[0])


def planes_of(frame: Frame) -> Planes:
    """The planes of a picture; valid as long as the arrays are."""
    rotation, pixels = frame.rotation, frame.format.name
    full = frame.color_range == _FULL_RANGE or pixels.startswith("yuvj")
    if pixels not in _PLANAR:
        frame = frame.reformat(format="yuvj420p", dst_color_range=_FULL_RANGE, threads=1)
        full = True
    return Planes([_view(plane) for plane in frame.planes], full, round(rotation / 90) * 90 if rotation else 0)


def _view(plane: VideoPlane) -> Plane:
    """(height, width) view of a plane, whose rows are padded in memory."""
    return np.ndarray((plane.height, plane.width), np.uint8, memoryview(plane), 0, (plane.line_size, 1))
