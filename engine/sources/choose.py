"""Selects a camera's source; the only module that knows every kind."""

from __future__ import annotations

from engine.config import Camera
from engine.errors import CameraUnavailable
from engine.sources.device import DeviceSource
from engine.sources.http_jpeg import open_http_jpeg
from engine.sources.jpeg_encoder import single_thread
from engine.sources.pattern import PatternSource
from engine.sources.source import FrameMemory, NoMemory, Source
from engine.sources.video import VideoSource


def open_source(camera: Camera, captured: int = 0, memory: FrameMemory | None = None) -> Source:
    """Open the source of ``camera``. ``captured`` counts the frames captured before, so that a test pattern continues
    where it ended. ``memory`` is where a source may receive its frames. Raises CameraUnavailable."""
    if camera.kind == "test":
        return PatternSource(camera, captured)
    source: Source | None = None
    if camera.kind == "device":
        source = DeviceSource(camera)
    elif camera.kind == "http":
        source = open_http_jpeg(camera, memory or NoMemory())
    source = source or VideoSource(camera)
    if camera.decode == "none" and not source.decode:
        source.close()
        raise CameraUnavailable(
            f'sends {source.codec or "video"}, neither H.264 nor H.265, and decode = "none" makes no JPEGs; '
            'set decode = "auto"'
        )
    return source


def prepare_process() -> None:
    """Call once per process, before its first source. It stops cv2 from making threads, because one core serves many
    cameras."""
    single_thread()
