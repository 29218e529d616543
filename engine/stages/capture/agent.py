"""The capture process's agent: one camera, from its source into its ring.

It stamps each packet on arrival. If the camera sends H.264 or H.265 and has ``video = true``, the agent copies the
access unit into the video ring (``video_track.py``). It copies the JPEGs of the pictures that came of the packet into
the ring of frames, and wakes the writer. It waits only for its camera. It retries a failed camera with a growing,
jittered pause. If a camera did not open, the agent first checks why (``engine/sources/check.py``). ``report.py`` shows
and logs the camera's state.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from engine.backoff import Backoff
from engine.config import Camera
from engine.errors import CameraUnavailable, FrameTooLarge, WireError
from engine.shm.doorbell import Bell
from engine.shm.ring import Producer
from engine.shm.ring_file import Drop
from engine.shm.ring_place import Renewed
from engine.shm.status_page import CaptureCount, StatusPage
from engine.shm.turnstile import Turnstile
from engine.sources.check import CameraCheck
from engine.sources.source import NotOpened, Source, SourceEnded
from engine.stages.capture.camera_clock import CameraClock
from engine.stages.capture.clock import FrameClock
from engine.stages.capture.frame_drops import FrameDrops
from engine.stages.capture.key_frames import KeyFrames
from engine.stages.capture.report import CameraReport
from engine.stages.capture.ring_keeper import RingKeeper
from engine.stages.capture.sampler import Sampler
from engine.stages.capture.video_track import VideoTrack
from engine.wire.access_unit import AccessUnit
from engine.wire.keys import next_sequence
from engine.wire.state import State

#: First pause before a camera is tried again, and the longest, in seconds.
BACKOFF_SECONDS_MIN = 0.5
BACKOFF_SECONDS_MAX = 30.0
#: Longest sleep of an agent without a connection, in seconds.
_IDLE_SECONDS = 0.2
#: Sleep between two looks whether this camera may connect, in seconds.
_QUEUE_SECONDS = 0.1
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
        video: Producer | None = None,
        turnstile: Turnstile | None = None,
    ) -> None:
        self.finished = False
        self._camera = camera
        self._producer = producer
        self._bell = bell
        self._page = page
        self._open_source = open_source
        self._log = log
        self._ring_keeper = RingKeeper(renew, page, log)
        self._turnstile = turnstile
        self._report = CameraReport(camera, page, log)
        self._drops = FrameDrops(camera, self._report, log)
        self._video = VideoTrack(video, page, self._drops.warn_video) if video else None
        self._keys = KeyFrames(page)
        #: Why an active camera's video is not stored.
        self._note = ""
        self._clock = FrameClock(producer.floor_nano)
        self._camera_clock = CameraClock(page)
        self._sampler = Sampler(camera.fps) if camera.fps else None
        self._source: Source | None = None
        #: True while the camera waits until fewer others connect.
        self._queued = False
        #: The running check of a camera that did not open.
        self._check: CameraCheck | None = None
        self._retry_at = 0.0
        #: Reset after frames have flowed for a good while.
        self._backoff = Backoff(BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX)
        self._rate_since = time.monotonic_ns()
        self._rate_frames = 0

    @property
    def captured(self) -> int:
        """Frames captured from this camera so far, over all its processes."""
        return self._producer.counts().captured

    @property
    def frame_bytes_max(self) -> int:
        """See FrameMemory."""
        return self._producer.frame_bytes_max

    def claim(self, size: int) -> memoryview | None:
        """See FrameMemory."""
        return self._producer.claim(size)

    def too_large(self, size: int) -> FrameTooLarge:
        """See FrameMemory."""
        return self._producer.too_large(size)

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
        elif self._queued:
            time.sleep(_QUEUE_SECONDS)
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
        if self._video:
            self._video.producer.close()
        self._bell.close()

    def _connect(self) -> int:
        if self._check:
            if self._check.wait(0):
                error, self._check = self._check.failure(), None
                self._failed("offline", error)
            return 0
        if time.monotonic() < self._retry_at:
            return 0
        self._queued = self._turnstile is not None and not self._turnstile.enter()
        if self._queued:
            return 0
        self._page.counts[CaptureCount.CONNECTS] += 1
        try:
            self._source = self._open_source()
        except NotOpened:
            # The check runs in a thread, so that the process's heartbeat continues.
            self._check = CameraCheck(self._camera.url, self._camera.open_timeout_seconds)
        except CameraUnavailable as error:
            self._failed("offline", error)
        else:
            self._keys.begin(time.monotonic_ns())
            self._camera_clock.begin()
            self._note = ""
            if self._video:
                self._video.begin()
                if not self._source.decode:
                    codec = self._source.codec or "no known codec"
                    self._note = f"sends {codec}: only H.264 and H.265 are stored as video"
        finally:
            if self._turnstile:
                self._turnstile.leave()
        return 0

    def _take(self, source: Source) -> int:
        """Stamp a packet, and write what came of it."""
        floor = self._producer.floor_nano
        if self._video:
            floor = max(floor, self._video.producer.floor_nano)
        unix_nano, monotonic = self._clock.stamp(floor, source.arrived_nano)
        if source.camera_time_nano:
            self._camera_clock.compare(source.camera_time_nano, unix_nano)
        unit = source.unit
        written = self._take_unit(source, unit, unix_nano, monotonic) if unit else 0
        try:
            stamps = source.pictures(unix_nano)
            if source.mode == "transcode" and source.decode != "key":
                self._page.counts[CaptureCount.DECODED] += len(stamps)
            for stamp in stamps:
                # A picture may be shown before a frame that the journal already has.
                alone = stamp == unix_nano and len(stamps) == 1
                nano = unix_nano if alone else max(stamp, self._producer.floor_nano + 1)
                written += self._take_picture(source, nano, monotonic)
        except WireError as error:
            self._drops.corrupt(self._producer, unix_nano, error)
        # Last, because a new ring may take the place of the one that a frame was received in.
        self._measure_rate(monotonic)
        return written

    def _take_unit(self, source: Source, unit: AccessUnit, unix_nano: int, monotonic: int) -> int:
        """Write an access unit, if the camera's video is stored; returns the number of units written."""
        self._keys.arrived(unit, monotonic)
        written = False
        if self._video:
            written = self._video.write(
                unit, unix_nano, monotonic, source.offset_us(unix_nano), source.camera_time_nano
            )
            if written:
                self._bell.wake()
        note = self._keys.note(monotonic, awaited=self._video is not None and self._video.waits_for_key)
        decides = self._report.is_active and source.decode != self._report.decode
        resized = written and (unit.width, unit.height) != self._report.active_size
        if note != self._report.note or decides or resized:
            # Without video, the pictures tell the size, and whether the camera works.
            size = (unit.width, unit.height) if self._video else (0, 0)
            self._report.active(source, *size, note)
        return int(written)

    def _take_picture(self, source: Source, unix_nano: int, monotonic: int) -> int:
        """Retrieve and write a picture; returns the number of frames written."""
        if self._sampler and not self._sampler.takes(monotonic):
            self._page.counts[CaptureCount.SKIPPED] += 1
            source.skip()
            return 0
        if source.decode == "key":
            # Not decoded before it is wanted.
            self._page.counts[CaptureCount.DECODED] += 1
        producer, counts = self._producer, self._page.counts
        counts[_LAST_SEQUENCE] = sequence = next_sequence(producer.last_sequence)
        counts[_LAST_NANO] = unix_nano
        try:
            frame = source.retrieve(unix_nano, sequence)
        except WireError as error:
            self._drops.corrupt(producer, unix_nano, error)
            return 0
        except FrameTooLarge as error:
            self._drops.passed_over(producer, unix_nano, error)
            return 0
        parts, width, height, camera_time, claimed = frame
        try:
            if claimed:
                written: int | None = producer.commit(len(parts[0]), unix_nano, monotonic, width, height)
            else:
                written = producer.write(parts, unix_nano, monotonic, width, height, camera_time_nano=camera_time)
        except FrameTooLarge as error:
            self._drops.too_large(producer, error)
            return 0
        if written is None:
            self._drops.warn(Drop.RING_FULL, "the writer does not keep up, or Redis is away")
        else:
            self._bell.wake()
        if (self._video is None or source.unit is None) and (width, height) != self._report.active_size:
            self._report.active(source, width, height, self._note)
        self._rate_frames += 1
        return 1

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
            self._page.counts[CaptureCount.PACKET_MILLI_FPS] = int(self._keys.take_units() / elapsed * 1e12)
            self._rate_since, self._rate_frames = monotonic, 0
            self._producer = self._ring_keeper.kept(self._producer)
            if self._video:
                self._video.producer = self._ring_keeper.kept(self._video.producer)
