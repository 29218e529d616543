"""V4L2 devices, which cv2 reads: their JPEGs (MJPG), or pictures that are encoded.

``CAP_PROP_CONVERT_RGB = 0`` must be set before the first grab, so that cv2 returns the device's JPEGs as they are.
"""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np

from engine.config import Camera
from engine.errors import CameraUnavailable, WireError
from engine.sources.jpeg_encoder import encode_jpeg, resize
from engine.sources.jpeg_gate import JpegGate
from engine.sources.paths import unreadable
from engine.sources.source import CapturedFrame, OnePicture
from engine.wire import urls
from engine.wire.state import Mode

_MJPEG_CODECS = frozenset({"MJPG", "mjpg", "jpeg", "JPEG"})


class DeviceSource(OnePicture):
    """The V4L2 device of ``camera``. Raises CameraUnavailable if it does not open."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._gate = JpegGate()
        self._capture = cv2.VideoCapture(camera.url, cv2.CAP_V4L2)
        try:
            if not self._capture.isOpened():
                raise CameraUnavailable(unreadable(Path(urls.file_path(camera.url))))
            self.codec = _codec(self._capture)
            passes = camera.encoding == "auto" and self._sends_jpeg() and self._raw()
            self.mode: Mode = "passthrough" if passes else "transcode"
        except BaseException:
            self._capture.release()
            raise

    def grab(self) -> bool:
        """See Source."""
        begun = time.monotonic()
        if self._capture.grab():
            return True
        waited = time.monotonic() - begun
        if waited >= self._camera.stall_seconds * 0.9:
            raise CameraUnavailable(f"sent nothing for {waited:.1f} s")
        raise CameraUnavailable("the stream ended")

    def retrieve(self, unix_nano: int, sequence: int) -> CapturedFrame:  # noqa: ARG002 - only test patterns carry them
        """See Source."""
        good, picture = self._capture.retrieve()
        if not good or picture is None or not picture.size:
            raise WireError("the frame could not be decoded")
        if self.mode == "passthrough":
            return self._gate.check(picture.reshape(-1).data)
        camera, pixels = self._camera, np.asarray(picture, np.uint8)
        height, width = pixels.shape[:2]
        if camera.width and camera.height and (width, height) != (camera.width, camera.height):
            width, height = camera.width, camera.height
            pixels = resize(pixels, width, height)
        return CapturedFrame((encode_jpeg(pixels, camera.quality).data,), width, height)

    def close(self) -> None:
        """See Source."""
        self._capture.release()

    def _sends_jpeg(self) -> bool:
        """Ask the device for MJPG at the configured size and rate."""
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
        """Make cv2 return the device's JPEGs; False if it cannot."""
        return bool(self._capture.set(cv2.CAP_PROP_CONVERT_RGB, 0))


def _codec(capture: cv2.VideoCapture) -> str:
    """The stream's FOURCC as four characters; empty if it has none."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    return code.to_bytes(4, "little", signed=code < 0).decode("ascii", "replace").strip("\0 ") if code else ""
