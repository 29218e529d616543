"""Selects a camera's source; the only module that knows every kind.

The libraries of a kind take memory (cv2, PyAV and numpy together 35 MB), so a source's module is loaded when the first
camera of its kind is opened. A supervisor loads those of its site before it forks: ``module_of``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from engine.config import Camera
from engine.errors import CameraUnavailable
from engine.sources.source import FrameMemory, NoMemory

if TYPE_CHECKING:
    from engine.sources.source import Source

#: The modules of kinds that FFmpeg does not open, or not always.
_MODULES = {"test": "engine.sources.pattern", "device": "engine.sources.device", "http": "engine.sources.http_jpeg"}
_FFMPEG = "engine.sources.video"


def module_of(camera: Camera) -> str:
    """The module that reads ``camera``."""
    return _MODULES.get(camera.kind, _FFMPEG)


def open_source(camera: Camera, captured: int = 0, memory: FrameMemory | None = None) -> Source:
    """Open the source of ``camera``. ``captured`` counts the frames captured before, so that a test pattern continues
    where it ended. ``memory`` is where a source may receive its frames. Raises CameraUnavailable."""
    module = import_module(module_of(camera))
    # One core serves many cameras, so cv2 makes no threads in this process.
    import_module("engine.sources.jpeg_encoder").single_thread()
    if camera.kind == "test":
        pattern: Source = module.PatternSource(camera, captured)
        return pattern
    source: Source | None = None
    if camera.kind == "device":
        source = module.DeviceSource(camera)
    elif camera.kind == "http":
        source = module.open_http_jpeg(camera, memory or NoMemory())
    source = source or import_module(_FFMPEG).VideoSource(camera)
    if camera.decode == "none" and not source.decode:
        source.close()
        raise CameraUnavailable(
            f'sends {source.codec or "video"}, neither H.264 nor H.265, and decode = "none" makes no JPEGs; '
            'set decode = "auto"'
        )
    return source
