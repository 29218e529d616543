"""Reports of sites that do not run, for tests of what shows them."""

from __future__ import annotations

from typing import Any

from engine.runtime.site_report import OutageReport, SiteReport, VideoTotals
from engine.runtime.status_cameras import CameraReport, VideoReport
from engine.runtime.status_processes import ProcessReport, PublisherReport, WriterReport
from engine.runtime.status_rings import Latency, RingStatus
from engine.wire.alert import Alert

LATENCY = Latency(1.2, 3.4, 9.9)


def ring(fill: float = 0.01) -> RingStatus:
    return RingStatus(1, 1000, 4_000_000, fill, 4.0)


def video(stored: int = 100, dropped: int = 0) -> VideoReport:
    drops = {"lost": dropped}
    return VideoReport(stored, stored * 1000, stored, stored * 1000, stored, 0, drops, 0, ring(), LATENCY)


def camera(name: str, /, **changes: Any) -> CameraReport:
    """A camera that works, but for what is named."""
    values: dict[str, Any] = {
        "id": name, "name": "", "state": "active", "since": 10**18, "codec": "MJPEG", "mode": "passthrough",
        "decode": "", "note": "", "width": 1280, "height": 720, "fps": 30.0, "packet_fps": 0.0,
        "key_interval_seconds": 0.0, "clock_offset_seconds": None, "clock_drift_ppm": None, "captured": 100,
        "captured_bytes": 100_000, "stored": 100, "stored_bytes": 100_000, "stored_total": 100, "lost": 0,
        "dropped": {"overflow": 0, "lost": 0}, "skipped": 0, "decoded": 0, "ring": ring(), "latency_ms": LATENCY,
        "consecutive_failures": 0, "last_error": "", "advice": "", "connects": 1, "finished": False, "video": None,
    }  # fmt: skip
    return CameraReport(**values | changes)


def process(role: str, name: str = "", pid: int = 100, **changes: Any) -> ProcessReport:
    values: dict[str, Any] = {
        "role": role, "name": f"{role} {name}".strip(), "camera": name, "pid": pid, "alive": True, "cpu_seconds": 12.0,
        "cpu_percent": 1.5, "memory_mb": 11.2, "restarts": 0, "heartbeat_seconds": 0.1,
    }  # fmt: skip
    return ProcessReport(**values | changes)


def outage(error: str = "no route to host", seconds: float = 7.0) -> OutageReport:
    return OutageReport("redis", "writer", 10**18, seconds, error)


def alert(text: str = "cam1 has sent nothing for 12 s", severity: Any = "critical") -> Alert:
    return Alert("camera_stalled", "cam1", severity, 10**18, 12.0, 10.0, text, "look at the camera")


def site(*cameras: CameraReport, **changes: Any) -> SiteReport:
    """A site of some cameras that works, but for what is named."""
    processes = [process("writer", pid=10), process("publisher", pid=11)]
    processes += [process("capture", one.id, 100 + number) for number, one in enumerate(cameras)]
    values: dict[str, Any] = {
        "site": "shop", "running": True, "pid": 9, "uptime_seconds": 100.0, "vhost": "default", "prefix": "frames",
        "redis": "127.0.0.1:6379", "cameras": list(cameras), "processes": processes,
        "writer": WriterReport(1, 1, 0, 0),
        "publisher": PublisherReport(True, 100, 100, 0, 0, 0, 100, 0, 0.0, 0, 0, 0, []), "latency_ms": LATENCY,
        "video": VideoTotals(1, 5, 5, 0, 15.0, LATENCY) if any(one.video for one in cameras) else None,
        "elsewhere": None, "embedded_pids": [], "outages": [], "rings_last_seconds": 4.0, "file_differs": [],
        "troubles": [], "alerts": [],
    }  # fmt: skip
    return SiteReport(**values | changes)
