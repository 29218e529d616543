"""Selects a camera's source; the only module that knows every kind.

The libraries that decode and encode (cv2, PyAV, numpy) take 35 MB of memory, and many cameras need none of them. So the
module of a source is loaded when the first camera of its kind is opened. A supervisor loads what its site needs before
it forks: ``modules_of``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.config import Camera
from engine.errors import CameraUnavailable

if TYPE_CHECKING:
    from engine.sources.source import FrameMemory, Source

#: The modules of kinds that FFmpeg does not open.
_MODULES = {"test": "engine.sources.pattern", "device": "engine.sources.device", "http": "engine.sources.http_jpeg"}
_FFMPEG = "engine.sources.video"


def modules_of(camera: Camera) -> tuple[str, ...]:
    """The modules that most likely read ``camera``."""
    first = _MODULES.get(camera.kind, _FFMPEG)
    encodes = camera.kind == "http" and (camera.width or camera.encoding != "auto" or camera.video)
    return (first, _FFMPEG) if encodes else (first,)


def open_source(camera: Camera, captured: int = 0, memory: FrameMemory | None = None) -> Source:
    """Open the source of ``camera``. ``captured`` counts the frames captured before, so that a test pattern continues
    where it ended. ``memory`` is where a source may receive its frames. Raises CameraUnavailable."""
    source = _http_jpeg(camera, memory) if camera.kind == "http" else None
    source = source or _decoding(camera, captured)
    if camera.kind != "test" and camera.decode == "none" and not source.decode:
        source.close()
        raise CameraUnavailable(
            f'sends {source.codec or "video"}, neither H.264 nor H.265, and decode = "none" makes no JPEGs; '
            'set decode = "auto"'
        )
    return source


def _http_jpeg(camera: Camera, memory: FrameMemory | None) -> Source | None:
    from engine.sources.http_jpeg import open_http_jpeg
    from engine.sources.source import NoMemory

    return open_http_jpeg(camera, memory or NoMemory())


def _decoding(camera: Camera, captured: int) -> Source:
    """A source that loads the libraries that decode and encode."""
    from engine.sources.jpeg_encoder import single_thread

    # One core serves many cameras.
    single_thread()
    if camera.kind == "test":
        from engine.sources.pattern import PatternSource

        return PatternSource(camera, captured)
    if camera.kind == "device":
        from engine.sources.device import DeviceSource

        return DeviceSource(camera)
    from engine.sources.video import VideoSource

    return VideoSource(camera)
