"""The pictures of a stream on their way from packets to JPEGs, each with its time stamp.

Where all pictures are wanted, each packet is decoded as it comes, and pictures leave in the order in which they are
shown. Where only key frames are wanted, a key frame is decoded by itself, and not before its JPEG is asked for: one
that the fps limit passes over costs nothing.
"""

from __future__ import annotations

import contextlib
from collections import deque

from engine.errors import WireError
from engine.sources.decoder import Decoder, Frame, VideoPacket, planes_of
from engine.sources.jpeg_encoder import Planes
from engine.wire.presentation import PictureStamps
from engine.wire.state import Decode


class Pictures:
    """Turns the packets of one stream into pictures."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._decode: Decode = ""
        #: True once the decoder had a key frame, so that it knows what later packets refer to.
        self._begun = False
        self._stamps = PictureStamps()
        #: Pictures that are ready, with their stamps: decoded, or the packets of a key frame.
        self._ready: deque[tuple[int, Frame | tuple[VideoPacket, ...]]] = deque()
        #: The first field of a key frame, and its stamp.
        self._half: tuple[int, VideoPacket] | None = None
        #: When the picture that was taken last is shown, in the stream's own time; None if unknown.
        self.taken_pts: int | None = None

    def feed(self, packet: VideoPacket, stamp: int, decode: Decode, *, keyframe: bool, field: bool) -> list[int]:
        """Take a packet that arrived at ``stamp``; returns the stamps of the pictures that are ready. ``decode`` says
        which pictures are wanted from this packet on; it changes at key frames only. Raises WireError."""
        self._ready.clear()
        if decode != self._decode:
            self.finish()
            self._decode = decode
        if decode == "key":
            self._feed_key(packet, stamp, keyframe=keyframe, field=field)
        elif decode != "none" and (keyframe or self._begun):
            self._begun = True
            self._stamps.sent(packet.pts, stamp)
            self._shown(self._decoder.decode(packet))
        return [moment for moment, _ in self._ready]

    def _feed_key(self, packet: VideoPacket, stamp: int, *, keyframe: bool, field: bool) -> None:
        if self._half:
            begun, first = self._half
            self._half = None
            self._ready.append((begun, (first,) if keyframe else (first, packet)))
        if keyframe and field:
            self._half = stamp, packet
        elif keyframe:
            self._ready.append((stamp, (packet,)))

    def finish(self) -> list[int]:
        """The stream ends, or begins anew: returns the stamps of the pictures that the decoder still had."""
        if self._begun:
            self._begun = False
            # Nothing that follows needs what is lost here.
            with contextlib.suppress(WireError):
                self._shown(self._decoder.finish())
            self._stamps.clear()
        self._half = None
        return [moment for moment, _ in self._ready]

    def _shown(self, frames: list[Frame]) -> None:
        self._ready.extend((self._stamps.take(frame.pts), frame) for frame in frames)

    def take(self) -> Planes:
        """The next picture that is ready. Raises WireError if it cannot be decoded."""
        _, picture = self._ready.popleft()
        if not isinstance(picture, tuple):
            self.taken_pts = picture.pts
            return planes_of(picture)
        self.taken_pts = picture[0].pts
        return planes_of(self._decoder.alone(*picture))

    def skip(self) -> None:
        """Pass over the next picture that is ready."""
        self._ready.popleft()
