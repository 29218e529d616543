"""What a writer keeps of its cameras' two streams, frames and video: their rings, and the marks of their journals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.marks import WrittenMarks
from engine.stages.writer.open_rings import OpenRings
from engine.stages.writer.store import Caller


class Streams:
    """The streams of writer ``number``. ``warn_once(camera, event, error)`` is called for rings that do not open, and
    for marks that are refused."""

    def __init__(
        self,
        config: Config,
        number: int,
        store: Caller,
        log: FilteringBoundLogger,
        warn_once: Callable[[str, str, str], None],
    ) -> None:
        kinds = (False, True)
        self._rings = [OpenRings(config, number, log, warn_once, video=video) for video in kinds]
        self._marks = [WrittenMarks(store, config.vhost, config.prefix, warn_once, video=video) for video in kinds]
        #: By camera: the status pages of the capture processes. Each camera has a ring of frames.
        self.pages = self._rings[0].pages

    @property
    def writers(self) -> list[CameraWriter]:
        """One for each ring: first those of frames, then those of video."""
        return [writer for rings in self._rings for writer in rings.writers.values()]

    @property
    def cameras(self) -> list[str]:
        """The cameras that have rings, each once."""
        return list(dict.fromkeys(writer.camera for writer in self.writers))

    def look(self) -> bool:
        """Follow added and removed rings, while nothing is in flight; True if ``writers`` has changed."""
        changed = [rings.look() for rings in self._rings]
        return any(changed)

    @property
    def behind(self) -> bool:
        """True if a new ring waits until the previous one is empty."""
        return any(rings.behind for rings in self._rings)

    def close(self) -> None:
        """Release all rings."""
        for rings in self._rings:
            rings.close()

    # Marks, each of its kind; see WrittenMarks

    def begin_marks(self, writers: Sequence[CameraWriter]) -> None:
        """Find out where the entry numbers of new rings continue. Raises RedisUnavailable."""
        for marks in self._marks:
            marks.begin(writers)

    def look_at_marks(self, writers: Sequence[CameraWriter]) -> None:
        """Write marks if it is time. Raises RedisUnavailable."""
        for marks in self._marks:
            marks.look(writers)

    def write_marks(self) -> None:
        """Write all changed marks. Raises RedisUnavailable."""
        for marks in self._marks:
            marks.write(self.writers)
