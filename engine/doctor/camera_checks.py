"""From what a camera sent, or its capture process says of it, to verdicts."""

from __future__ import annotations

from engine.config import Camera
from engine.doctor.camera_probe import CameraFacts
from engine.doctor.findings import Finding
from engine.doctor.machine_checks import PASSTHROUGH_FRAMES, TRANSCODED_PIXELS
from engine.runtime.status_cameras import CameraReport

_GOOD = "frames flow, as JPEG from the camera (passthrough)"
#: Share of ``fps`` that a camera should send.
_RATE_SHARE_MIN = 0.8


def reported(report: CameraReport) -> CameraFacts:
    """What a running site knows of a camera; it is not opened a second time, many allow few sessions."""
    error = ""
    if report.state != "active":
        failures = f", {report.consecutive_failures} tries in a row" if report.consecutive_failures else ""
        error = f"{report.state}{failures}: {report.last_error or 'no frame yet'}"
    size = report.captured_bytes // report.captured if report.captured else 0
    return CameraFacts(
        report.id, report.codec, report.mode, report.width, report.height, report.captured, report.fps, size,
        report.dropped.get("corrupt", 0), error,
    )  # fmt: skip


def verdict(camera: Camera, facts: CameraFacts) -> Finding:
    """One camera: whether it sends, what, and what it costs."""
    if facts.error:
        return Finding("cameras", camera.id, "broken", facts.error, _GOOD, facts.advice or _todo(camera))
    found = f"{facts.codec or 'unknown codec'} {facts.width}x{facts.height}, {facts.fps:.1f} fps, {facts.mode}"
    if facts.corrupt:
        return Finding(
            "cameras", camera.id, "warning", f"{found}; {facts.corrupt:,} frames were no whole JPEG", _GOOD,
            "look at its network (transport = \"tcp\" for RTSP) and its firmware",
        )  # fmt: skip
    if camera.fps and 0 < facts.fps < camera.fps * _RATE_SHARE_MIN:
        return Finding(
            "cameras", camera.id, "warning", f"{found}; fewer than the {camera.fps:g} fps asked for", _GOOD,
            "raise the rate in the camera (exposure at night lowers it too), or lower fps",
        )  # fmt: skip
    if facts.mode == "transcode":
        cost = f"about {cores(camera, facts):.0%} of a core"
        return Finding(
            "cameras", camera.id, "information", f"{found}: {why_not(camera, facts)}; {cost}", _GOOD,
            "for less CPU let the camera send MJPEG in that size, or lower fps",
        )  # fmt: skip
    return Finding("cameras", camera.id, "ok", found, _GOOD)


def why_not(camera: Camera, facts: CameraFacts) -> str:
    """Why a camera's own JPEGs are not what is stored."""
    if camera.encoding != "auto":
        return f'encoding = "{camera.encoding}" asks for it'
    if facts.codec.upper() not in ("MJPG", "JPEG"):
        return f"{facts.codec or 'its codec'} is not MJPEG"
    return f"{camera.width}x{camera.height} is asked for and the camera sends another size"


def cores(camera: Camera, facts: CameraFacts | None) -> float:
    """Cores that a camera is reckoned with, from what was seen of it or, unseen, from the site file."""
    fps = facts.fps if facts and facts.fps else camera.fps or 25.0
    fps = min(fps, camera.fps) if camera.fps else fps
    passes = facts.mode != "transcode" if facts and facts.mode else camera.kind in ("test", "http")
    if passes:
        return fps / PASSTHROUGH_FRAMES
    pixels = facts.width * facts.height if facts and facts.width else (camera.width or 1280) * (camera.height or 720)
    return fps * pixels / TRANSCODED_PIXELS


def _todo(camera: Camera) -> str:
    if camera.kind == "file":
        return "correct the path, or give a video that FFmpeg reads"
    if camera.kind == "device":
        return "look at /dev and its rights (group video), and at what else uses the device"
    return "look at its power and network, restart it, and open it with ffplay; some allow one session only"
