"""Frames of a camera that cannot be stored: counted, logged once for each reason, and shown if none is usable."""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from engine.config import Camera
from engine.errors import FrameTooLarge, WireError
from engine.shm.ring import Producer
from engine.shm.ring_file import Drop
from engine.sources.failures import UNUSABLE_SECONDS, UnusableFrames
from engine.stages.capture.report import CameraReport


class FrameDrops:
    """The drops of ``camera``, whose state ``report`` shows."""

    def __init__(self, camera: Camera, report: CameraReport, log: FilteringBoundLogger) -> None:
        self._camera = camera
        self._report = report
        self._log = log
        self._unusable = UnusableFrames()
        self._warned: set[tuple[Drop, bool]] = set()

    def corrupt(self, producer: Producer, unix_nano: int, error: WireError) -> None:
        """Count a frame that is no whole JPEG."""
        producer.discard(max(unix_nano, producer.floor_nano + 1), 0, Drop.CORRUPT)
        self.warn(Drop.CORRUPT, str(error))
        self._unusable_frame(producer, f"corrupt ({error}); look at the camera's network and firmware")

    def passed_over(self, producer: Producer, unix_nano: int, error: FrameTooLarge) -> None:
        """Count a frame that its source did not receive, because it is too large."""
        producer.discard(unix_nano, int(error.details["size"]), Drop.TOO_LARGE)
        self.too_large(producer, error)

    def too_large(self, producer: Producer, error: FrameTooLarge) -> None:
        """Show a frame that the ring has counted as too large."""
        size = int(error.details["size"])
        self.warn(Drop.TOO_LARGE, str(error))
        self._unusable_frame(
            producer,
            f"too large: {size:,} bytes, ring takes {producer.frame_bytes_max:,}; "
            f"raise ring.capacity_mb to {-(-2 * size // 2**20)}",
        )

    def _unusable_frame(self, producer: Producer, what: str) -> None:
        """Note a frame that cannot be stored. If every frame is unusable, the camera counts as stalled."""
        counts = producer.counts()
        usable = counts.captured - counts.drops[Drop.CORRUPT.label] - counts.drops[Drop.TOO_LARGE.label]
        patience = self._camera.stall_seconds if self._report.is_active else UNUSABLE_SECONDS
        if self._unusable.add(usable, patience):
            self._report.unusable(f"every frame is {what}")

    def warn(self, reason: Drop, text: str, *, video: bool = False) -> None:
        """Log the first drop of each kind; the counts show the rest."""
        if (reason, video) not in self._warned:
            self._warned.add((reason, video))
            self._log.warning("access unit dropped" if video else "frame dropped", reason=reason.label, error=text)

    def warn_video(self, reason: Drop, text: str) -> None:
        """Log the first dropped access unit of each kind."""
        self.warn(reason, text, video=True)
