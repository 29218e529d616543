"""What cameras cost of a core: estimates from what was measured on one machine (docs/benchmarks.md). They are good for
a warning before a site runs, and to compare the ways in which a camera can be captured."""

from __future__ import annotations

from engine.config import Camera
from engine.doctor.camera_probe import CameraFacts
from engine.wire.state import Decode

#: JPEGs per second that one core passes through.
_PASSTHROUGH_FRAMES = 4000.0
#: Seconds of CPU at 720p: a picture decoded in its place among all others, and encoded; a key frame decoded alone, and
#: encoded; a packet that is not decoded. The first two grow with the pixels.
_PICTURE_SECONDS = 4.7e-3
_KEY_FRAME_SECONDS = 12.5e-3
_PACKET_SECONDS = 0.25e-3
_PIXELS = 1280 * 720
#: Assumed of a camera that was not observed.
_FPS_ASSUMED = 25.0
_KEY_SECONDS_ASSUMED = 2.0


def cores(camera: Camera, facts: CameraFacts | None) -> float:
    """Cores that a camera takes, from its facts or, without them, from the site file."""
    passes = facts.mode != "transcode" if facts and facts.mode else camera.kind in ("test", "http")
    if facts and facts.decode:
        return cores_of_video(camera, facts, facts.decode)
    if not passes and camera.decode in ("key", "none") and not (facts and facts.codec):
        return cores_of_video(camera, facts or CameraFacts(camera.id), camera.decode)
    fps = facts.fps if facts and facts.fps else camera.fps or _FPS_ASSUMED
    fps = min(fps, camera.fps) if camera.fps else fps
    return fps / _PASSTHROUGH_FRAMES if passes else fps * _PICTURE_SECONDS * _scale(camera, facts)


def cores_of_video(camera: Camera, facts: CameraFacts, decode: Decode) -> float:
    """Cores that an H.264 or H.265 camera would take with this ``decode``."""
    packets = facts.packet_fps or _FPS_ASSUMED
    if decode == "all":
        return min(packets, camera.fps or packets) * _PICTURE_SECONDS * _scale(camera, facts)
    key_frames = 1 / (facts.key_interval_seconds or _KEY_SECONDS_ASSUMED) if decode == "key" else 0.0
    return packets * _PACKET_SECONDS + key_frames * _KEY_FRAME_SECONDS * _scale(camera, facts)


def _scale(camera: Camera, facts: CameraFacts | None) -> float:
    """The pixels of a camera's pictures, as a multiple of 720p."""
    pixels = facts.width * facts.height if facts else 0
    return (pixels or (camera.width or 1280) * (camera.height or 720)) / _PIXELS
