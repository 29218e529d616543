"""Streams, files and devices that cv2 reads; the only module of capture that uses cv2.

One connection serves both ways of making a JPEG. The source opens the stream and reads its codec. It then tells cv2
whether to return packets (passthrough, for cameras that send JPEG) or pictures (transcode, for all others).

OpenCV notes. Timeouts take effect only if given at construction (opencv #24393). ``CAP_PROP_FORMAT = -1`` must be set
before the first grab. FFmpeg reads its options from the environment of the process, which has only one camera. Without
``fpsprobesize;0`` FFmpeg holds back a stream's first twenty frames to guess its rate (2 s at 10 fps, measured). It then
returns them at once, and they would get wrong time stamps. FFmpeg may log URLs with their credentials; its log is off.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.config import Camera
from engine.errors import CameraUnavailable, WireError
from engine.sources.source import AccessUnit, CapturedFrame, NotOpened, Pacer, SourceEnded
from engine.wire import jpeg, urls
from engine.wire.state import Decode, Mode

#: FFmpeg protocols that each kind of source may use. They also apply to the camera's answers (a playlist, a session
#: description, a redirect): only a file source reads files.
_PROTOCOLS = {
    "rtsp": "rtp,srtp,udp,tcp,tls",
    "http": "http,https,httpproxy,tcp,tls,crypto",
    "file": "file,crypto",
}
_MJPEG_CODECS = frozenset({"MJPG", "mjpg", "jpeg", "JPEG"})
#: Highest frame rate accepted from a file: a stream may state any rate.
_FILE_FPS_MAX = 1000.0
#: Frames per second of a file without a valid rate.
_FILE_FPS_DEFAULT = 25.0


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


class VideoSource:
    """A stream, file or device that cv2 reads, as ``camera`` says. Raises CameraUnavailable if it does not open."""

    decode: Decode = ""
    unit: AccessUnit | None = None

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._kind = camera.kind
        self._gate = JpegGate()
        self._capture = self._open()
        try:
            self.codec = _codec(self._capture)
            self.mode: Mode = "passthrough" if self._passes() and self._raw() else "transcode"
        except BaseException:
            self._capture.release()
            raise
        self._pacer = Pacer(self._file_fps()) if self._kind == "file" else None

    def grab(self) -> bool:
        """See Source."""
        if self._pacer and not self._pacer.wait():
            return False
        begun = time.monotonic()
        if self._capture.grab():
            return True
        if self._kind == "file":
            return self._again()
        waited = time.monotonic() - begun
        if waited >= self._camera.stall_seconds * 0.9:
            raise CameraUnavailable(f"sent nothing for {waited:.1f} s")
        raise CameraUnavailable("the stream ended")

    def offset_us(self, unix_nano: int) -> int:  # noqa: ARG002 - it has no access units
        """See Source."""
        return 0

    def pictures(self, unix_nano: int) -> tuple[int]:
        """See Source."""
        return (unix_nano,)

    def skip(self) -> None:
        """See Source."""

    def retrieve(self, unix_nano: int, sequence: int) -> CapturedFrame:  # noqa: ARG002 - only test patterns carry them
        """See Source."""
        good, picture = self._capture.retrieve()
        if not good or picture is None or not picture.size:
            raise WireError("the frame could not be decoded")
        if self.mode == "passthrough":
            return self._gate.check(picture.reshape(-1).data)
        return self._encode(np.asarray(picture, np.uint8))

    def close(self) -> None:
        """See Source."""
        self._capture.release()

    def _open(self) -> cv2.VideoCapture:
        camera = self._camera
        if self._kind == "device":
            capture = cv2.VideoCapture(camera.url, cv2.CAP_V4L2)
        else:
            os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = (
                f"rtsp_transport;{camera.transport}|fpsprobesize;0|protocol_whitelist;{_PROTOCOLS[self._kind]}"
            )
            options = [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
                int(camera.open_timeout_seconds * 1000),
                cv2.CAP_PROP_READ_TIMEOUT_MSEC,
                int(camera.stall_seconds * 1000),
                cv2.CAP_PROP_N_THREADS,
                1,
            ]
            name = str(camera.url)
            if self._kind == "file":
                path = urls.file_path(camera.url)
                if not os.path.exists(path):
                    raise CameraUnavailable(f"there is no file {urls.mask(path)}")
                # An absolute path, because FFmpeg takes words before a colon for a protocol, as in concat:a|b.
                name = str(Path.cwd() / path)
            begun = time.monotonic()
            capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, options)
            waited = time.monotonic() - begun
        if not capture.isOpened():
            capture.release()
            if self._kind in ("file", "device"):
                raise CameraUnavailable(_unreadable(Path(urls.file_path(camera.url))))
            raise NotOpened(f"{urls.mask(camera.url)} sent no video within {waited:.1f} s")
        return capture

    def _passes(self) -> bool:
        """True if the camera's own JPEGs match the configuration."""
        camera = self._camera
        if self._kind == "device":
            return camera.encoding == "auto" and self._device_mjpeg()
        if camera.encoding != "auto" or self.codec not in _MJPEG_CODECS:
            return False
        size = (self._capture.get(cv2.CAP_PROP_FRAME_WIDTH), self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        return camera.width is None or size == (camera.width, camera.height)

    def _device_mjpeg(self) -> bool:
        """Ask a V4L2 device for MJPG at the configured size and rate."""
        camera, capture = self._camera, self._capture
        if camera.width and camera.height:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, camera.width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, camera.height)
        if camera.fps:
            capture.set(cv2.CAP_PROP_FPS, camera.fps)
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        self.codec = _codec(capture)
        return self.codec in _MJPEG_CODECS

    def _raw(self) -> bool:
        """Make cv2 return the stream's packets; False if it cannot."""
        if self._kind == "device":
            return bool(self._capture.set(cv2.CAP_PROP_CONVERT_RGB, 0))
        return bool(self._capture.set(cv2.CAP_PROP_FORMAT, -1))

    def _file_fps(self) -> float:
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        return fps if 0 < fps <= _FILE_FPS_MAX else _FILE_FPS_DEFAULT

    def _again(self) -> bool:
        """Restart a file if it loops. Raises SourceEnded otherwise."""
        if not self._camera.loop:
            raise SourceEnded("the file has ended")
        self._capture.release()
        self._capture = self._open()
        if self.mode == "passthrough":
            self._raw()
        if not self._capture.grab():
            raise CameraUnavailable(f"{urls.mask(self._camera.url)} has no frames")
        return True

    def _encode(self, picture: NDArray[np.uint8]) -> CapturedFrame:
        camera = self._camera
        height, width = picture.shape[:2]
        if camera.width and camera.height and (width, height) != (camera.width, camera.height):
            width, height = camera.width, camera.height
            picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        return CapturedFrame((encode_jpeg(picture, camera.quality).data,), width, height)


def encode_jpeg(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """The JPEG of a (height, width, 3) BGR picture, as a flat array of bytes. Raises WireError."""
    good, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise WireError(f"a picture of shape {picture.shape} could not be encoded")
    return np.asarray(data, np.uint8).reshape(-1)


def _unreadable(path: Path) -> str:
    """Why a file or device did not open."""
    shown = urls.mask(str(path))
    if path.is_dir():
        return f"{shown} is a directory; give the path of a video"
    if not path.exists():
        return f"there is no {shown}; correct the path, and look whether the device is plugged in"
    if not os.access(path, os.R_OK):
        return f"no permission to read {shown}; give it to user {os.geteuid()} (a device's group is often video)"
    if path.is_char_device():
        return f"{shown} is in use, or no camera; look at what else has it open"
    return f"{shown} is not a video that can be read; open it with ffplay"


def _codec(capture: cv2.VideoCapture) -> str:
    """The stream's FOURCC as four characters; empty if it has none."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    return code.to_bytes(4, "little", signed=code < 0).decode("ascii", "replace").strip("\0 ") if code else ""


def prepare_process() -> None:
    """Call once per process, before its first source. It stops cv2 from making threads, because one core serves many
    cameras."""
    cv2.setNumThreads(0)
