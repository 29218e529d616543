"""Verdicts on cameras, from what they sent or from what their capture processes report."""

from __future__ import annotations

import msgspec

from engine.config import Camera
from engine.doctor.camera_probe import CameraFacts
from engine.doctor.cpu_costs import cores, cores_of_video
from engine.doctor.findings import Finding
from engine.runtime.status_cameras import CLOCK_SECONDS_MAX, CameraReport
from engine.wire.state import NO_SETS

_GOOD = "frames flow, as JPEG from the camera (passthrough)"
_VIDEO_GOOD = "video stored as the camera sends it, JPEGs of its key frames"
#: The same of a camera that sends nothing: its codec may be unknown.
_FLOWS, _VIDEO_FLOWS = "frames flow", "H.264 or H.265 flows"
#: What to do about key frames without parameter sets.
_SEND_SETS = (
    "let the camera send SPS and PPS (H.265: VPS, too) in its session description or before each key frame: choose "
    "another profile in it, or update its firmware"
)
#: Share of ``fps`` that a camera should send.
_RATE_SHARE_MIN = 0.8
#: Longest good interval between key frames, in seconds.
KEY_SECONDS_MAX = 10.0
#: What becomes of an H.264 or H.265 camera's pictures.
_PICTURES = {"all": "all pictures transcoded", "key": "JPEGs of key frames", "none": "no JPEGs"}


def reported(report: CameraReport) -> CameraFacts:
    """A running site's facts about a camera. The camera is not opened again, because many allow few sessions."""
    error, video = "", report.video
    if report.state != "active":
        # The first failure of a stream that flowed is no failed try.
        tries = report.consecutive_failures
        failures = f", {tries:,} tries in a row" if tries > 1 else ""
        reason = report.last_error.removesuffix(f"; {report.advice}")
        error = f"{report.state}{failures}: {reason or 'no frame yet'}"
    return CameraFacts(
        id=report.id,
        codec=report.codec,
        mode=report.mode,
        decode=report.decode,
        width=report.width,
        height=report.height,
        frames=report.captured,
        fps=report.fps,
        frame_bytes=report.captured_bytes // report.captured if report.captured else 0,
        packet_fps=report.packet_fps,
        packet_bytes=video.captured_bytes // video.captured if video and video.captured else 0,
        key_interval_seconds=report.key_interval_seconds,
        clock_offset_seconds=report.clock_offset_seconds,
        clock_drift_ppm=report.clock_drift_ppm,
        corrupt=report.dropped.get("corrupt", 0) + (video.dropped.get("corrupt", 0) if video else 0),
        note=report.note,
        error=error,
        advice=report.advice if error else "",
    )


def verdict(camera: Camera, facts: CameraFacts) -> Finding:
    """One camera: whether it sends, what it sends, what that costs, and how far its clock is from ours."""
    finding = _flow_verdict(camera, facts)
    offset = facts.clock_offset_seconds
    if offset is None or facts.error:
        return finding
    drift = "" if facts.clock_drift_ppm is None else f", drifts by {facts.clock_drift_ppm:+.0f} ppm"
    found = f"{finding.found}; clock {offset:+,.2f} s{drift}"
    if abs(offset) <= CLOCK_SECONDS_MAX or finding.verdict == "warning":
        return msgspec.structs.replace(finding, found=found)
    return Finding(
        "cameras", camera.id, "warning", found, f"a clock within {CLOCK_SECONDS_MAX:g} s of this machine's",
        "set a time server (NTP) in the camera, the one that this machine follows, and the camera's time zone",
    )  # fmt: skip


def _flow_verdict(camera: Camera, facts: CameraFacts) -> Finding:
    """Whether it sends, what it sends, and what that costs."""
    if facts.error:
        good = _VIDEO_FLOWS if camera.video else _FLOWS
        return Finding("cameras", camera.id, "broken", facts.error, good, facts.advice or _todo(camera))
    if facts.decode:
        return _video_verdict(camera, facts)
    found = f"{facts.codec or 'unknown codec'} {facts.width}x{facts.height}, {facts.fps:.1f} fps, {facts.mode}"
    if camera.video or facts.note:
        return Finding(
            "cameras", camera.id, "warning", f"{found}; {facts.note or 'only H.264 and H.265 are stored as video'}",
            _VIDEO_GOOD, "let the camera send H.264 or H.265, or set video = false",
        )  # fmt: skip
    if facts.corrupt:
        return _corrupt(camera, facts, found)
    if slow := _too_slow(camera, facts.fps, found):
        return slow
    if facts.mode == "transcode":
        cost = f"about {cores(camera, facts):.0%} of a core"
        return Finding(
            "cameras", camera.id, "information", f"{found}: {why_not(camera, facts)}; {cost}", _GOOD,
            "for less CPU let the camera send MJPEG in that size, or lower fps",
        )  # fmt: skip
    return Finding("cameras", camera.id, "ok", found, _GOOD)


def _video_verdict(camera: Camera, facts: CameraFacts) -> Finding:
    """An H.264 or H.265 camera."""
    size = f" {facts.width}x{facts.height}" if facts.width else ""
    found = f"{facts.codec}{size}, {facts.packet_fps:.1f} fps"
    if facts.key_interval_seconds:
        found += f", a key frame every {facts.key_interval_seconds:.1f} s"
    found += f"; {'stored as sent, ' if camera.video else ''}{_PICTURES[facts.decode]}"
    if facts.corrupt:
        return _corrupt(camera, facts, found)
    if facts.note == NO_SETS:
        return Finding("cameras", camera.id, "warning", f"{found}; {NO_SETS}", "key frames that decode", _SEND_SETS)
    if facts.note or facts.key_interval_seconds > KEY_SECONDS_MAX:
        return Finding(
            "cameras", camera.id, "warning", f"{found}; {facts.note}" if facts.note else found,
            f"a key frame every 1 to 2 s, at least every {KEY_SECONDS_MAX:g} s",
            "set a shorter I-frame interval (GOP) in the camera: pictures decode from a key frame on only",
        )  # fmt: skip
    if facts.decode == "all":
        if slow := _too_slow(camera, facts.packet_fps, found):
            return slow
        return _transcodes(camera, facts, found)
    cost = f"about {cores(camera, facts):.1%} of a core"
    return Finding("cameras", camera.id, "ok", f"{found}; {cost}", _VIDEO_GOOD)


def _transcodes(camera: Camera, facts: CameraFacts, found: str) -> Finding:
    """All pictures of an H.264 or H.265 camera are decoded and encoded: what it costs, and what would cost less."""
    now, then = cores(camera, facts), cores_of_video(camera, facts, "key", video=True)
    keys = 'decode = "key"' if camera.video else 'video = true and decode = "key"'
    return Finding(
        "cameras", camera.id, "information", f"{found}; about {now:.0%} of a core", _VIDEO_GOOD,
        f"for less CPU set {keys}: about {then:.1%} of a core; FrameStore decodes the pictures between when they are "
        "wanted",
    )  # fmt: skip


def _corrupt(camera: Camera, facts: CameraFacts, found: str) -> Finding:
    what = "access units or pictures were damaged" if facts.decode else "frames were not complete JPEGs"
    return Finding(
        "cameras", camera.id, "warning", f"{found}; {facts.corrupt:,} {what}", _VIDEO_GOOD if facts.decode else _GOOD,
        "look at its network (transport = \"tcp\" for RTSP) and its firmware",
    )  # fmt: skip


def _too_slow(camera: Camera, fps: float, found: str) -> Finding | None:
    if not camera.fps or not 0 < fps < camera.fps * _RATE_SHARE_MIN:
        return None
    return Finding(
        "cameras", camera.id, "warning", f"{found}; fewer than the {camera.fps:g} fps asked for", _GOOD,
        "raise the rate in the camera (exposure at night lowers it too), or lower fps",
    )  # fmt: skip


def why_not(camera: Camera, facts: CameraFacts) -> str:
    """Why a camera's own JPEGs are not stored as they are."""
    if camera.encoding != "auto":
        return f'encoding = "{camera.encoding}" asks for it'
    if facts.codec.upper() not in ("MJPG", "JPEG"):
        return f"{facts.codec or 'its codec'} is not MJPEG"
    return f"{camera.width}x{camera.height} is asked for and the camera sends another size"


def _todo(camera: Camera) -> str:
    if camera.kind == "file":
        return "correct the path, or give a video that FFmpeg reads"
    if camera.kind == "device":
        return "look at /dev and its rights (group video), and at what else uses the device"
    return "look at its power and network, restart it, and open it with ffplay; some allow one session only"
