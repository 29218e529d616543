"""Selects a camera's source; the only module that knows every kind."""

from __future__ import annotations

from engine.config import Camera
from engine.sources.pattern import PatternSource
from engine.sources.source import Source
from engine.sources.video import VideoSource


def open_source(camera: Camera, captured: int = 0) -> Source:
    """Open the source of ``camera``. ``captured`` counts the frames captured before, so that a test pattern continues
    where it ended. Raises CameraUnavailable."""
    if camera.kind == "test":
        return PatternSource(camera, captured)
    return VideoSource(camera)
