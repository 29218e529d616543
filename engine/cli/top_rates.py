"""What happened between two looks at a site: rates a second, CPU now, and the frame rates of the last minutes. Pure."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from engine.runtime.site_report import SiteReport
from engine.runtime.status_cameras import CameraReport, VideoReport
from engine.runtime.status_processes import ProcessReport

#: Looks whose frame rates are kept for each camera: ten minutes at one a second.
HISTORY = 600


class CameraRates(NamedTuple):
    """Of one camera, a second: frames and access units stored, their bytes captured, and dropped ones, of which
    ``drops`` has those by reason. ``cpu`` is its capture's, in percent of a core."""

    stored: float = 0.0
    bytes: float = 0.0
    dropped: float = 0.0
    drops: dict[str, float] = {}  # noqa: RUF012 - never changed
    cpu: float | None = None


class Rates(NamedTuple):
    """Of a whole site; CPU in percent of a core by process id, of processes that ran at both looks. ``known`` is False
    at the first look."""

    known: bool
    cameras: dict[str, CameraRates]
    cpu: dict[int, float]

    def of(self, camera: str) -> CameraRates:
        """The rates of one camera; zeros for one that has just come."""
        return self.cameras.get(camera, CameraRates())

    def stored(self) -> float:
        """Frames and access units of the site, stored a second."""
        return sum(one.stored for one in self.cameras.values())

    def bytes(self) -> float:
        """Bytes captured a second."""
        return sum(one.bytes for one in self.cameras.values())

    def dropped(self) -> float:
        """Frames and access units dropped a second."""
        return sum(one.dropped for one in self.cameras.values())


NOTHING = Rates(False, {}, {})


def rates(before: SiteReport | None, after: SiteReport, seconds: float) -> Rates:
    """The rates between two reports, which are ``seconds`` apart. What began anew in between counts from zero on."""
    if before is None or seconds <= 0 or before.pid != after.pid:
        return NOTHING
    processes = {one.pid: one for one in before.processes if one.alive}
    cpu = {
        one.pid: 100 * max(one.cpu_seconds - processes[one.pid].cpu_seconds, 0.0) / seconds
        for one in after.processes
        if one.alive and one.pid in processes
    }
    captures = {one.camera: cpu.get(one.pid) for one in after.processes if one.camera and one.alive}
    known = {camera.id: camera for camera in before.cameras}
    cameras = {
        camera.id: _camera_rates(known[camera.id], camera, seconds, captures.get(camera.id))
        for camera in after.cameras
        if camera.id in known
    }
    return Rates(True, cameras, cpu)


def _camera_rates(before: CameraReport, after: CameraReport, seconds: float, cpu: float | None) -> CameraRates:
    flows: list[tuple[CameraReport | VideoReport, CameraReport | VideoReport]] = [(before, after)]
    if before.video and after.video:
        flows.append((before.video, after.video))
    drops: dict[str, float] = {}
    stored = size = 0.0
    for old, new in flows:
        stored += max(new.stored_total - old.stored_total, 0) / seconds
        size += max(new.captured_bytes - old.captured_bytes, 0) / seconds
        for reason, number in new.dropped.items():
            drops[reason] = drops.get(reason, 0.0) + max(number - old.dropped.get(reason, 0), 0) / seconds
    return CameraRates(stored, size, sum(drops.values()), drops, cpu)


def captures_cpu(processes: list[ProcessReport], found: Rates) -> float:
    """CPU of all captures together, in percent of a core."""
    return sum(found.cpu.get(one.pid, 0.0) for one in processes if one.camera)


class History:
    """The frame rates of each camera at the last looks; those of cameras that have gone are forgotten."""

    def __init__(self) -> None:
        self._fps: dict[str, deque[float]] = {}

    def add(self, report: SiteReport) -> None:
        """Keep the rates of a report: packets where only video is stored."""
        present = {camera.id for camera in report.cameras}
        for gone in self._fps.keys() - present:
            del self._fps[gone]
        for camera in report.cameras:
            fps = camera.packet_fps if camera.decode == "none" else camera.fps
            self._fps.setdefault(camera.id, deque(maxlen=HISTORY)).append(fps)

    def fps(self, camera: str) -> list[float]:
        """The rates of one camera, the oldest first."""
        return list(self._fps.get(camera, ()))


def sparkline(values: list[float], width: int, blocks: str) -> str:
    """Values as characters of rising height, the newest at the right; if they are more than ``width``, each character
    is the mean of several. A character of the lowest height is zero."""
    if not values or width < 1:
        return ""
    each = -(-len(values) // width)
    # From the newest on, so that only the oldest character may stand for fewer values.
    groups = [values[max(end - each, 0) : end] for end in range(len(values), 0, -each)][::-1]
    means = [sum(group) / len(group) for group in groups]
    top = max(means) or 1.0
    return "".join(blocks[min(round(mean / top * (len(blocks) - 1)), len(blocks) - 1)] for mean in means)
