"""The capture process's agent: one camera, from its source into its ring.

It stamps each frame on arrival, makes a JPEG of it, copies the JPEG once into the ring, and wakes the writer. It waits
only for its camera. It retries a failed camera with a growing, jittered pause. If a camera did not open, the agent
first checks why (``engine/sources/check.py``). ``report.py`` shows and logs the camera's state.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from engine.backoff import Backoff
from engine.config import Camera
from engine.errors import CameraUnavailable, EngineError, FrameTooLarge, WireError
from engine.shm.doorbell import Bell
from engine.shm.ring import Producer
from engine.shm.ring_file import Drop
from engine.shm.ring_place import Renewed
from engine.shm.status_page import CaptureCount, StatusPage
from engine.sources.check import CameraCheck
from engine.sources.failures import UNUSABLE_SECONDS, UnusableFrames
from engine.sources.source import NotOpened, Source, SourceEnded
from engine.stages.capture.clock import FrameClock
from engine.stages.capture.report import CameraReport
from engine.stages.capture.sampler import Sampler
from engine.wire.keys import next_sequence
from engine.wire.state import State

#: First pause before a camera is tried again, and the longest, in seconds.
BACKOFF_SECONDS_MIN = 0.5
BACKOFF_SECONDS_MAX = 30.0
#: Longest sleep of an agent without a connection, in seconds.
_IDLE_SECONDS = 0.2
#: Nanoseconds over which the frame rate is measured.
_RATE_NANO = 1_000_000_000
#: Plain numbers, because they are used for each frame and enum members are slow to look up.
_LAST_SEQUENCE, _LAST_NANO = CaptureCount.LAST_SEQUENCE.value, CaptureCount.LAST_NANO.value


class CaptureAgent:
    """Reads ``camera`` through sources that ``open_source`` makes, and writes frames to ``producer``."""

    def __init__(
        self,
        camera: Camera,
        producer: Producer,
        bell: Bell,
        page: StatusPage,
        open_source: Callable[[], Source],
        log: FilteringBoundLogger,
        renew: Callable[[Producer], Renewed | None] = lambda _: None,
    ) -> None:
        self.finished = False
        self._camera = camera
        self._producer = producer
        self._bell = bell
        self._page = page
        self._open_source = open_source
        self._log = log
        self._renew = renew
        #: Why the ring could not be put in its place; logged once.
        self._misplaced = ""
        self._clock = FrameClock(producer.floor_nano)
        self._sampler = Sampler(camera.fps) if camera.fps else None
        self._source: Source | None = None
        #: The running check of a camera that did not open.
        self._check: CameraCheck | None = None
        self._report = CameraReport(camera, page, log)
        self._unusable = UnusableFrames()
        self._retry_at = 0.0
        #: Reset after frames have flowed for a good while.
        self._backoff = Backoff(BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX)
        self._rate_since = time.monotonic_ns()
        self._rate_frames = 0
        self._warned: set[Drop] = set()

    @property
    def captured(self) -> int:
        """Frames captured from this camera so far, over all its processes."""
        return self._producer.counts().captured

    def on_start(self) -> None:
        """Show the camera as connecting, or as its last process left it."""
        self._page.counts[CaptureCount.FINISHED] = 0
        self._report.show()

    def do_work(self) -> int:
        """Take one frame, or try once to connect; returns the number of frames written."""
        source = self._source
        if source is None:
            self._measure_rate(time.monotonic_ns())
            return self._connect()
        try:
            if not source.grab():
                self._measure_rate(time.monotonic_ns())
                return 0
        except SourceEnded as ended:
            self._close_source()
            self._report.ended(str(ended))
            self.finished = True
            self._page.counts[CaptureCount.FINISHED] = 1
            return 0
        except CameraUnavailable as error:
            self._lost(error)
            return 0
        return self._take(source)

    def idle(self) -> None:
        """Nothing was read: sleep briefly, at most until the next try. An open source waits by itself."""
        if self._check:
            self._check.wait(_IDLE_SECONDS)
        elif self._source is None and not self.finished:
            time.sleep(max(0.0, min(self._retry_at - time.monotonic(), _IDLE_SECONDS)))

    def drained(self) -> bool:
        """Always True: all captured frames are in the ring."""
        return True

    def on_close(self) -> None:
        """Report that the camera is no longer recorded, and release all resources."""
        self._close_source()
        self._report.closed()
        self._producer.close()
        self._bell.close()

    def _connect(self) -> int:
        if self._check:
            if self._check.wait(0):
                error, self._check = CameraUnavailable(self._check.result()), None
                self._failed("offline", error)
            return 0
        if time.monotonic() < self._retry_at:
            return 0
        self._page.counts[CaptureCount.CONNECTS] += 1
        try:
            self._source = self._open_source()
        except NotOpened:
            # The check runs in a thread, so that the process's heartbeat continues.
            self._check = CameraCheck(self._camera.url, self._camera.open_timeout_seconds)
        except CameraUnavailable as error:
            self._failed("offline", error)
        return 0

    def _take(self, source: Source) -> int:
        """Stamp, retrieve and write a frame."""
        unix_nano, monotonic = self._clock.stamp(self._producer.floor_nano)
        self._measure_rate(monotonic)
        if self._sampler and not self._sampler.takes(monotonic):
            self._page.counts[CaptureCount.SKIPPED] += 1
            return 0
        producer, counts = self._producer, self._page.counts
        counts[_LAST_SEQUENCE] = sequence = next_sequence(producer.last_sequence)
        counts[_LAST_NANO] = unix_nano
        try:
            frame = source.retrieve(unix_nano, sequence)
            written = producer.write(frame.parts, unix_nano, monotonic, frame.width, frame.height)
        except WireError as error:
            producer.discard(unix_nano, 0, Drop.CORRUPT)
            self._warn_once(Drop.CORRUPT, str(error))
            self._unusable_frame(f"corrupt ({error}); look at the camera's network and firmware")
            return 0
        except FrameTooLarge as error:
            self._warn_once(Drop.TOO_LARGE, str(error))
            size = sum(map(len, frame.parts))
            self._unusable_frame(
                f"too large: {size:,} bytes, ring takes {producer.capacity // 2:,}; "
                f"raise ring.capacity_mb to {-(-2 * size // 2**20)}"
            )
            return 0
        if written is None:
            self._warn_once(Drop.RING_FULL, "the writer does not keep up, or Redis is away")
        else:
            self._bell.wake()
        if (frame.width, frame.height) != self._report.active_size:
            self._report.active(source, frame.width, frame.height)
        self._rate_frames += 1
        return 1

    def _unusable_frame(self, what: str) -> None:
        """Count a frame that cannot be stored. If every frame is unusable, the camera counts as stalled."""
        counts = self._producer.counts()
        usable = counts.captured - counts.drops[Drop.CORRUPT.label] - counts.drops[Drop.TOO_LARGE.label]
        patience = self._camera.stall_seconds if self._report.is_active else UNUSABLE_SECONDS
        if self._unusable.add(usable, patience):
            self._report.unusable(f"every frame is {what}")

    def _lost(self, error: CameraUnavailable) -> None:
        """A stream has failed. If it had flowed for a good while, the pauses start again from the shortest."""
        if self._report.active_seconds > self._camera.stall_seconds:
            self._backoff.reset()
            self._report.was_well()
        self._failed("stalled" if self._report.is_active else "offline", error)

    def _failed(self, state: State, error: CameraUnavailable) -> None:
        self._close_source()
        pause = self._backoff.next_seconds()
        self._retry_at = time.monotonic() + pause
        self._report.failed(state, error, pause)

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _measure_rate(self, monotonic: int) -> None:
        elapsed = monotonic - self._rate_since
        if elapsed >= _RATE_NANO:
            self._page.counts[CaptureCount.MILLI_FPS] = int(self._rate_frames / elapsed * 1e12)
            self._rate_since, self._rate_frames = monotonic, 0
            self._keep_ring()

    def _keep_ring(self) -> None:
        """Once a second: if somebody removed or moved the ring, make a new one where the writer finds it."""
        former = self._producer
        try:
            renewed = self._renew(former)
        except (EngineError, OSError) as error:
            if str(error) != self._misplaced:
                self._misplaced = str(error)
                self._log.error("the ring is not in its place, and a new one cannot be made", error=str(error))
            return
        self._misplaced = ""
        if renewed:
            self._producer = renewed.producer
            # From now on the writer may empty the former ring for the last time.
            self._page.counts[CaptureCount.RING] = renewed.producer.inode.number
            held = former.counts().held
            former.close()
            self._log.warning("the ring was removed or moved; made a new one", left_to_the_writer=held)
            if renewed.removed:
                stood = renewed.removed
                self._log.warning("removed another file from the ring's place", frames=stood.held, reason=stood.reason)

    def _warn_once(self, reason: Drop, text: str) -> None:
        """Log the first drop of each kind; the counts show the rest."""
        if reason not in self._warned:
            self._warned.add(reason)
            self._log.warning("frame dropped", reason=reason.label, error=text)
