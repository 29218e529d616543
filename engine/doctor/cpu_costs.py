"""What cameras cost of a core: estimates from what was measured at 720p (docs/benchmarks.md, docs/modes.md). They are
good for a warning before a site runs, and to compare the ways in which a camera can be captured.

A benchmark's run differs from the next by a tenth or two. tests/doctor/test_cpu_costs.py holds the estimates to the
published run.
"""

from __future__ import annotations

from engine.config import Camera, assumptions
from engine.doctor.camera_probe import CameraFacts
from engine.wire.state import Decode

#: Seconds of CPU of a capture process: a JPEG passed through; a packet of H.264 or H.265 that is not decoded.
_JPEG_SECONDS = 0.08e-3
_PACKET_SECONDS = 0.30e-3
#: The same at 720p, for a picture decoded in its place among all others, and encoded; and for a key frame decoded
#: alone, and encoded. Both grow with the pixels.
_PICTURE_SECONDS = 5.0e-3
_KEY_FRAME_SECONDS = 6.0e-3
#: Seconds of CPU of writer and publisher for each frame and packet that is stored.
_STORED_SECONDS = 0.1e-3


def cores(camera: Camera, facts: CameraFacts | None) -> float:
    """Cores that a camera takes, from its facts or, without them, from the site file."""
    facts = facts or CameraFacts(camera.id)
    if facts.decode:
        return cores_of_video(camera, facts, facts.decode)
    if facts.mode:
        passes = facts.mode != "transcode"
    elif camera.video or camera.kind not in ("test", "http"):
        return cores_of_video(camera, facts, _assumed(camera))
    else:
        passes = True
    fps = _limited(camera, facts.fps or camera.fps or assumptions.FPS)
    return fps * (_STORED_SECONDS + (_JPEG_SECONDS if passes else _PICTURE_SECONDS * _scale(camera, facts)))


def cores_of_video(camera: Camera, facts: CameraFacts, decode: Decode, *, video: bool | None = None) -> float:
    """Cores that an H.264 or H.265 camera would take with this ``decode``, and with this ``video``, if given."""
    stored = camera.video if video is None else video
    packets = facts.packet_fps or assumptions.FPS
    if decode == "all":
        pictures = _limited(camera, packets)
        taken = pictures * _PICTURE_SECONDS * _scale(camera, facts)
    else:
        key_seconds = facts.key_interval_seconds or assumptions.KEY_SECONDS
        pictures = _limited(camera, 1 / key_seconds) if decode == "key" else 0.0
        taken = packets * _PACKET_SECONDS + pictures * _KEY_FRAME_SECONDS * _scale(camera, facts)
    return taken + (pictures + packets * stored) * _STORED_SECONDS


def _assumed(camera: Camera) -> Decode:
    """What the camera's ``decode`` will be, if its key frames come as assumed."""
    if camera.decode != "auto":
        return camera.decode
    return "key" if camera.fps and camera.fps * assumptions.KEY_SECONDS <= 1 else "all"


def _limited(camera: Camera, fps: float) -> float:
    """Frames per second within the camera's limit."""
    return min(fps, camera.fps) if camera.fps else fps


def _scale(camera: Camera, facts: CameraFacts) -> float:
    """The pixels of a camera's pictures, as a multiple of 720p."""
    pixels = facts.width * facts.height
    return (pixels or (camera.width or 1280) * (camera.height or 720)) / assumptions.PIXELS
