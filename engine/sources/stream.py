"""The video stream of a file or of a network camera, opened with FFmpeg through PyAV.

One connection gives packets, their times, and pictures where they are wanted (``decoder.py``).

FFmpeg notes. ``timeout`` bounds each blocking call by FFmpeg's interrupt callback; the host lookup cannot be bounded.
Without ``fpsprobesize=0`` FFmpeg holds back a stream's first twenty frames to guess its rate (2 s at 10 fps, measured).
An RTSP stream is described by its SDP, so one packet is enough to probe (``probesize=32``): 0.13 s until the first
packet at 10 fps, against 0.4 s with the shortest ``analyzeduration``. ``allowed_media_types`` keeps a camera from
sending audio at all. In other containers, FFmpeg discards the packets of other streams before anyone sees them. Of a
stream over HTTP about a second is probed: where no key frame comes, FFmpeg would look for one for 7 s and longer.
A packet of RTSP H.264 or H.265 is handed out when the next one begins (``arrival.py``). ``fflags=noparse`` would hand
out the network's pieces at once, without the mark that tells which is a unit's last. FFmpeg's log may have URLs with
their credentials: PyAV leaves it off.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from engine.config import Camera
from engine.errors import CameraUnavailable
from engine.sources.paths import unreadable
from engine.sources.source import NotOpened
from engine.wire import urls
from engine.wire.access_unit import Encoding

#: FFmpeg protocols that each kind of source may use. They also apply to the camera's answers (a playlist, a session
#: description, a redirect): only a file source reads files.
_PROTOCOLS = {
    "rtsp": "rtp,srtp,udp,tcp,tls",
    "http": "http,https,httpproxy,tcp,tls,crypto",
    "file": "file,crypto",
}
#: The longest stretch of a stream over HTTP that is probed, in microseconds.
_ANALYZE_US = 1_000_000
#: FFmpeg's names of codecs that have other names here.
_CODECS = {"hevc": "h265", "mjpeg": "MJPG"}
#: Of side data ``prft``: the time by the camera's clock, in microseconds since the epoch.
_unpack_prft = struct.Struct("<q").unpack_from
_ENCODINGS: dict[str, Encoding] = {"h264": "h264", "h265": "h265"}


class Stream:
    """The video stream at a camera's URL. Raises NotOpened, CameraUnavailable."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._container = _open(camera)
        try:
            self._stream = _video(self._container, camera)
        except BaseException:
            self._container.close()
            raise
        _release_memory()
        #: The decoder of its packets.
        self.context: VideoCodecContext = self._stream.codec_context
        self._packets = self._container.demux(self._stream)
        name = self.context.name
        self.codec: str = _CODECS.get(name, name)
        self.encoding: Encoding | None = _ENCODINGS.get(self.codec)
        #: True if a packet is handed out when the next one begins to arrive.
        self.waits = camera.kind == "rtsp" and self.encoding is not None
        #: The stream's description (``extradata``): parameter sets, or empty.
        self.description: bytes = self.context.extradata or b""
        #: Width and height in pixels; 0 if the stream did not tell.
        self.size: tuple[int, int] = (self.context.width, self.context.height)
        base = self._stream.time_base or Fraction(1)
        self._nano, self._per_nano = base.numerator * 1_000_000_000, base.denominator
        #: Frames per second, 0 if unknown.
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or 0)

    def read(self) -> Packet[VideoStream] | None:
        """Wait for the next packet; None at the end of a file. Raises CameraUnavailable."""
        begun = time.monotonic()
        try:
            for packet in self._packets:
                # At the end comes an empty one, for decoders.
                if packet.size:
                    return packet
        except (av.error.FFmpegError, RuntimeError, IndexError):
            # What FFmpeg says is not used: it may quote the URL. PyAV's IndexError: a stream appeared later.
            pass
        if self._camera.kind == "file":
            return None
        waited = time.monotonic() - begun
        if waited >= self._camera.stall_seconds * 0.9:
            raise CameraUnavailable(f"sent nothing for {waited:.1f} s")
        raise CameraUnavailable("the stream ended")

    def nano(self, time: int | None) -> int | None:
        """A time of this stream in nanoseconds."""
        return None if time is None else time * self._nano // self._per_nano

    def close(self) -> None:
        """Release the connection."""
        self._packets = iter(())
        self._container.close()


def _release_memory() -> None:
    """Give back the memory that opening took. FFmpeg decodes a picture to see what a stream is: megabytes."""
    # Only in glibc.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def new_description(packet: Packet[VideoStream]) -> bytes:
    """The stream's new description, if it changes with this packet; otherwise empty."""
    return bytes(packet.get_sidedata("new_extradata")) if packet.has_sidedata("new_extradata") else b""


def camera_time(packet: Packet[VideoStream]) -> int:
    """When the camera captured the packet by its own clock, in nanoseconds UTC; 0 if FFmpeg does not know."""
    if not packet.has_sidedata("prft"):
        return 0
    micro: int = _unpack_prft(packet.get_sidedata("prft"))[0]
    return micro * 1000


def _open(camera: Camera) -> InputContainer:
    """Open the URL. Raises NotOpened, CameraUnavailable."""
    kind, name = camera.kind, str(camera.url)
    options = {"protocol_whitelist": _PROTOCOLS[kind], "fpsprobesize": "0"}
    if kind == "rtsp":
        options |= {"rtsp_transport": camera.transport, "allowed_media_types": "video", "probesize": "32"}
    elif kind == "http":
        options["analyzeduration"] = str(_ANALYZE_US)
    elif kind == "file":
        path = urls.file_path(camera.url)
        if not os.path.exists(path):
            raise CameraUnavailable(f"there is no file {urls.mask(path)}")
        # An absolute path, because FFmpeg takes words before a colon for a protocol, as in concat:a|b.
        name = str(Path.cwd() / path)
    begun = time.monotonic()
    try:
        return av.open(
            name,
            options=options,
            metadata_errors="replace",
            timeout=(camera.open_timeout_seconds, camera.stall_seconds),
        )
    except (av.error.FFmpegError, RuntimeError, ValueError):
        raise _not_opened(camera, time.monotonic() - begun) from None


def _video(container: InputContainer, camera: Camera) -> VideoStream:
    """The first video stream that can be decoded; the packets of all others are discarded."""
    chosen: VideoStream | None = None
    for stream in container.streams:
        if (
            chosen is None
            and isinstance(stream, VideoStream)
            and stream.codec_context
            and not stream.disposition & Disposition.attached_pic
        ):
            chosen = stream
        else:
            stream.discard = Discard.all
    if chosen is None:
        raise _not_opened(camera, 0.0)
    return chosen


def _not_opened(camera: Camera, waited: float) -> CameraUnavailable:
    if camera.kind == "file":
        return CameraUnavailable(unreadable(Path(urls.file_path(camera.url))))
    return NotOpened(f"{urls.mask(camera.url)} sent no video within {waited:.1f} s")
