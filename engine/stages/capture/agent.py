"""The capture process's agent: one camera, from its source into its ring.

It stamps a frame when it arrives, makes a JPEG of it, copies that once into the ring, and rings the writer's bell. It
waits for its camera and for nothing else. A camera that fails is tried again with a growing, jittered pause; one that
did not open is asked first what is wrong (``camera_check.py``). State and log change with what happens, not with each
try.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from engine.config import Camera
from engine.errors import CameraUnavailable, EngineError, FrameTooLarge, WireError
from engine.shm.doorbell import Bell
from engine.shm.ring import Producer
from engine.shm.ring_file import Drop
from engine.shm.ring_place import Renewed
from engine.shm.status_page import CaptureCount, StatusPage
from engine.sources.check import CameraCheck
from engine.sources.failures import UNUSABLE_SECONDS, Failures, UnusableFrames
from engine.sources.video import NotOpened, Source, SourceEnded
from engine.stages.capture.clock import FrameClock
from engine.wire import urls
from engine.wire.keys import next_sequence
from engine.wire.state import ERROR_CHARACTERS_MAX, CameraStatus, State, decode_status, encode_status

#: First pause before a camera is tried again, and the longest, in seconds.
BACKOFF_SECONDS_MIN = 0.5
BACKOFF_SECONDS_MAX = 30.0
#: A pause is drawn from this share of itself up to all of it, so that cameras of one switch do not come back at once.
_JITTER_MIN = 0.5
#: Seconds that an agent without a connection sleeps at most before it looks around.
_IDLE_SECONDS = 0.2
#: Nanoseconds over which the frame rate is measured.
_RATE_NANO = 1_000_000_000
#: Share of the frame interval by which a frame may come early and still be taken under an fps limit.
_EARLY = 0.1
#: Nanoseconds of stream that an fps limit lets through in one go: what a network held back and then sent at once.
_BURST_NANO = 500_000_000
#: As plain numbers: an enum's members are slow to look up, and these are for each frame.
_LAST_SEQUENCE, _LAST_NANO = CaptureCount.LAST_SEQUENCE.value, CaptureCount.LAST_NANO.value


class Sampler:
    """Thins a stream out to ``fps``: says of each arrival whether it is taken; the average rate is kept."""

    def __init__(self, fps: float) -> None:
        self._interval = int(1e9 / fps)
        self._due = -1

    def takes(self, monotonic: int) -> bool:
        """Whether the frame that arrived at ``monotonic`` nanoseconds is taken."""
        if monotonic < self._due - self._interval * _EARLY:
            return False
        begun = self._due < 0
        self._due = monotonic + self._interval if begun else max(self._due + self._interval, monotonic - _BURST_NANO)
        return True


def backoff_seconds(failures: int) -> float:
    """The pause before try number ``failures + 1``: doubling from BACKOFF_SECONDS_MIN, with jitter."""
    pause = BACKOFF_SECONDS_MIN * 2.0 ** min(failures - 1, 16)
    return min(pause, BACKOFF_SECONDS_MAX) * random.uniform(_JITTER_MIN, 1)  # noqa: S311 - jitter, no secret


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
        #: Why the ring could not be put in its place; said once.
        self._misplaced = ""
        self._clock = FrameClock(producer.floor_nano)
        self._sampler = Sampler(camera.fps) if camera.fps else None
        self._source: Source | None = None
        #: What is asked of a camera that did not open, while it is being asked.
        self._check: CameraCheck | None = None
        self._troubles = Failures()
        self._unusable = UnusableFrames()
        #: True once the log has that the camera is active, until it has that it failed.
        self._active_said = False
        self._retry_at = 0.0
        #: Tries since the camera last flowed for a good while: what the pause grows with.
        self._failures = 0
        self._active_since = 0.0
        #: Width and height of the frames that flow; None while none do.
        self._active_size: tuple[int, int] | None = None
        self._rate_since = time.monotonic_ns()
        self._rate_frames = 0
        self._warned: set[Drop] = set()
        self._status = self._inherited_status()

    def _inherited_status(self) -> CameraStatus:
        """A process that takes over from one that was killed goes on with what was known of a camera that fails."""
        try:
            before = decode_status(self._page.text)
        except WireError:
            before = CameraStatus()
        if before.state in ("connecting", "active") or not before.consecutive_failures:
            return CameraStatus(consecutive_failures=0 if before.state == "active" else before.consecutive_failures)
        self._troubles.resume(before.last_error)
        return before

    @property
    def captured(self) -> int:
        """How many frames this camera was ever captured."""
        return self._producer.counts().captured

    def on_start(self) -> None:
        """Show the camera as connecting, or as its last process left it."""
        self._page.counts[CaptureCount.FINISHED] = 0
        self._page.text = encode_status(self._status)

    def do_work(self) -> int:
        """One frame, or one try to connect; the number of frames written."""
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
            self._set_state("offline", str(ended), failures=0)
            self._log.info("source ended", reason=str(ended))
            self.finished = True
            self._page.counts[CaptureCount.FINISHED] = 1
            return 0
        except CameraUnavailable as error:
            self._lost(error)
            return 0
        return self._take(source)

    def idle(self) -> None:
        """Nothing was read: sleep until the next try, a little while at most. A source that is open waits by itself."""
        if self._check:
            self._check.wait(_IDLE_SECONDS)
        elif self._source is None and not self.finished:
            time.sleep(max(0.0, min(self._retry_at - time.monotonic(), _IDLE_SECONDS)))

    def drained(self) -> bool:
        """Capture holds nothing back: what it had is in the ring."""
        return True

    def on_close(self) -> None:
        """The camera is no longer recorded: say so, and give all back."""
        self._close_source()
        if self._status.state != "offline":
            self._set_state("offline", "recording stopped", failures=self._status.consecutive_failures)
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
            # In a thread, so that its time adds nothing to what a process may be silent for.
            self._check = CameraCheck(self._camera.url, self._camera.open_timeout_seconds)
        except CameraUnavailable as error:
            self._failed("offline", error)
        return 0

    def _take(self, source: Source) -> int:
        """Stamp, retrieve, write."""
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
            self._bell.ring()
        if (frame.width, frame.height) != self._active_size:
            self._became_active(source, frame.width, frame.height)
        self._rate_frames += 1
        return 1

    def _became_active(self, source: Source, width: int, height: int) -> None:
        changed = (width, height) != (self._status.width, self._status.height)
        if self._status.state != "active":
            self._active_since = time.monotonic()
        self._set_state("active", "", failures=0, source=source, width=width, height=height)
        if not self._active_said or changed:
            self._active_said = True
            self._log.info("camera active", codec=source.codec, mode=source.mode, width=width, height=height)

    def _unusable_frame(self, what: str) -> None:
        """A frame came that cannot be stored. Where all are like that the camera is no better than one that stalls."""
        counts = self._producer.counts()
        usable = counts.captured - counts.drops[Drop.CORRUPT.label] - counts.drops[Drop.TOO_LARGE.label]
        patience = self._camera.stall_seconds if self._status.state == "active" else UNUSABLE_SECONDS
        if self._unusable.add(usable, patience):
            error = f"every frame is {what}"
            news = self._say("stalled", error)
            self._set_state("stalled", error, failures=self._status.consecutive_failures, news=news)

    def _lost(self, error: CameraUnavailable) -> None:
        """A stream that flowed has failed. One that flowed for a good while starts its pauses from the shortest."""
        if self._status.state == "active" and time.monotonic() - self._active_since > self._camera.stall_seconds:
            self._failures = 0
            self._troubles.over()
        self._failed("stalled" if self._status.state == "active" else "offline", error)

    def _failed(self, state: State, error: CameraUnavailable) -> None:
        self._close_source()
        self._failures += 1
        pause = backoff_seconds(self._failures)
        self._retry_at = time.monotonic() + pause
        failures = self._status.consecutive_failures + 1
        text = urls.mask(str(error), urls.secrets_in(self._camera.url))
        news = self._say(state, text, failures=failures, retry_seconds=round(pause, 1))
        self._set_state(state, text, failures=failures, news=news)

    def _say(self, state: State, error: str, **numbers: float) -> bool:
        """Log a failure that is news, and once an hour how it goes; returns whether it is news."""
        news = self._troubles.is_news(error)
        if news:
            self._active_said = False
            self._log.warning("camera failed", state=state, error=error, **numbers)
        elif self._troubles.summary_due():
            minutes = round(self._troubles.seconds / 60)
            self._log.warning("camera still fails", state=state, error=error, since_minutes=minutes, **numbers)
        return news

    def _set_state(
        self,
        state: State,
        error: str,
        *,
        failures: int,
        news: bool = False,
        source: Source | None = None,
        width: int = 0,
        height: int = 0,
    ) -> None:
        """Show what is so now. State and time together are what an event tells of, so the time changes with the state,
        and with a failure that is news."""
        changed = news or state != self._status.state
        self._status = CameraStatus(
            state=state,
            timestamp_nano=time.time_ns() if changed else self._status.timestamp_nano,
            consecutive_failures=failures,
            last_error=error[:ERROR_CHARACTERS_MAX],
            codec=source.codec if source else self._status.codec,
            mode=source.mode if source else self._status.mode,
            width=width or self._status.width,
            height=height or self._status.height,
        )
        self._active_size = (self._status.width, self._status.height) if state == "active" else None
        self._page.text = encode_status(self._status)

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
        """Once a second: a ring that somebody has removed or moved away is made anew, where the writer finds it."""
        former = self._producer
        try:
            renewed = self._renew(former)
        except (EngineError, OSError) as error:
            if str(error) != self._misplaced:
                self._misplaced = str(error)
                self._log.error("the ring is not in its place, and none can be put there", error=str(error))
            return
        self._misplaced = ""
        if renewed:
            self._producer = renewed.producer
            # From here on the writer may empty the former ring for good.
            self._page.counts[CaptureCount.RING] = renewed.producer.inode.number
            held = former.counts().held
            former.close()
            self._log.warning("the ring was removed or moved away; made anew", left_to_the_writer=held)
            if renewed.removed:
                stood = renewed.removed
                self._log.warning("another file stood in its place; removed", frames=stood.held, reason=stood.reason)

    def _warn_once(self, reason: Drop, text: str) -> None:
        """The first drop of a kind is worth a line; the counts tell the rest."""
        if reason not in self._warned:
            self._warned.add(reason)
            self._log.warning("frame dropped", reason=reason.label, error=text)
