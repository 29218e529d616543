"""Which source a camera has: the one place that knows every kind."""

from __future__ import annotations

from engine.config import Camera
from engine.sources.pattern import PatternSource
from engine.sources.source import Source
from engine.sources.video import VideoSource


def open_source(camera: Camera, captured: int = 0) -> Source:
    """The source of ``camera``, open. ``captured`` is how many frames it has given before, so that a test pattern goes
    on where it ended. Raises CameraUnavailable."""
    if camera.kind == "test":
        return PatternSource(camera, captured)
    return VideoSource(camera)
