"""What changed between two looks at a site: rates of each camera, CPU of each process. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from engine.runtime.site_report import SiteReport
from engine.runtime.status_cameras import CameraReport, VideoReport

#: Frame rates that are remembered of each camera, one a look.
HISTORY_LOOKS = 120


class CameraRates(NamedTuple):
    """A camera since the last look: frames and bytes stored per second, frames dropped per second, video included; CPU
    of its capture in percent of a core."""

    stored: float = 0.0
    bytes: float = 0.0
    dropped: float = 0.0
    cpu: float = 0.0


class Rates(NamedTuple):
    """A site since the last look: cameras by id, and CPU in percent of a core by the name of the process."""

    cameras: Mapping[str, CameraRates]
    cpu: Mapping[str, float]


class _Counts(NamedTuple):
    stored: int
    bytes: int
    dropped: int


class Looks:
    """Follows the reports of one site."""

    def __init__(self) -> None:
        self._at = 0.0
        self._counts: dict[str, _Counts] = {}
        self._cpu: dict[str, tuple[int, float]] = {}
        #: The frame rates of each camera, the newest last.
        self.fps: dict[str, deque[float]] = {}

    def take(self, report: SiteReport, now: float) -> Rates:
        """The rates since the last report. ``now`` is in seconds of a clock that does not step. All are 0 at first, and
        where counts began again."""
        seconds = now - self._at if self._at else 0.0
        self._at = now
        cpu = {}
        for process in report.processes:
            pid, used = self._cpu.get(process.name, (0, 0.0))
            same = pid == process.pid and seconds > 0
            cpu[process.name] = max(process.cpu_seconds - used, 0.0) / seconds * 100 if same else 0.0
            self._cpu[process.name] = process.pid, process.cpu_seconds
        of_camera = {process.camera: cpu[process.name] for process in report.processes if process.camera}
        cameras = {}
        for camera in report.cameras:
            counts = _counts(camera)
            before = self._counts.get(camera.id)
            self._counts[camera.id] = counts
            self.fps.setdefault(camera.id, deque(maxlen=HISTORY_LOOKS)).append(
                camera.packet_fps if camera.video else camera.fps
            )
            stored, size, dropped = (
                (max(new - old, 0) / seconds for new, old in zip(counts, before, strict=True))
                if before and seconds > 0
                else (0.0, 0.0, 0.0)
            )
            cameras[camera.id] = CameraRates(stored, size, dropped, of_camera.get(camera.id, 0.0))
        return Rates(cameras, cpu)


def _counts(camera: CameraReport) -> _Counts:
    flows: list[CameraReport | VideoReport] = [camera, *([camera.video] if camera.video else [])]
    return _Counts(
        sum(flow.stored_total for flow in flows),
        sum(flow.stored_bytes for flow in flows),
        sum(sum(flow.dropped.values()) for flow in flows),
    )
