"""Opens a camera briefly in a separate process, which is killed if a read hangs in native code.

The process is ``python -m engine.doctor.camera_probe``. It gets the camera by standard input, because URLs carry
credentials and every user can read a command line.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from engine.config import Camera
from engine.config import Url as Address
from engine.errors import CameraUnavailable, WireError
from engine.sources import check as camera_check
from engine.sources.source import Source
from engine.wire import urls
from engine.wire.state import NO_SETS, Decode

#: Seconds over which frames are counted; seconds before that, in which frames come in a burst that FFmpeg held back
#: while it opened the stream; cameras probed at the same time.
MEASURE_SECONDS = 2.0
SETTLE_SECONDS = 1.0
TOGETHER_MAX = 8
#: Seconds for which the second key frame of H.264 or H.265 is awaited.
KEY_SECONDS = 11.0
#: Seconds for a process to start and end.
_MARGIN_SECONDS = 5.0


class CameraFacts(msgspec.Struct, frozen=True):
    """What a camera sent. ``frames`` are JPEGs: ``fps`` a second, of ``frame_bytes``; ``corrupt`` ones are damaged.

    Of H.264 and H.265: ``decode`` says which pictures become JPEGs, access units come ``packet_fps`` a second, and have
    ``packet_bytes`` on average; 0 if that is not known. ``note`` says what the camera lacks, ``error`` why it sent
    nothing. ``clock_offset_seconds`` is its clock minus ours, ``clock_drift_ppm`` how fast that rises, in millionths;
    None if it does not tell its time, or not for long enough.
    """

    id: str
    codec: str = ""
    mode: str = ""
    decode: Decode = ""
    width: int = 0
    height: int = 0
    frames: int = 0
    fps: float = 0.0
    frame_bytes: int = 0
    packet_fps: float = 0.0
    packet_bytes: int = 0
    key_interval_seconds: float = 0.0
    corrupt: int = 0
    clock_offset_seconds: float | None = None
    clock_drift_ppm: float | None = None
    note: str = ""
    error: str = ""
    #: What to do about the error, if more than the general advice is known.
    advice: str = ""


def gather(cameras: Sequence[Camera]) -> list[CameraFacts]:
    """Probe each camera, several at a time. Each takes as long as its timeouts and the measurement."""
    with ThreadPoolExecutor(TOGETHER_MAX) as pool:
        return list(pool.map(_look, cameras))


def _look(camera: Camera) -> CameraFacts:
    bound = 2 * camera.open_timeout_seconds + camera.stall_seconds + _MARGIN_SECONDS
    bound += max(SETTLE_SECONDS + MEASURE_SECONDS, KEY_SECONDS)
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=msgspec.json.encode(msgspec.structs.asdict(camera), enc_hook=str),
            capture_output=True,
            timeout=bound,
            check=False,
        )
        return msgspec.json.decode(done.stdout, type=CameraFacts)
    except subprocess.TimeoutExpired:
        return CameraFacts(camera.id, error=f"hung for {bound:.0f} s and was killed")
    except msgspec.MsgspecError:
        return CameraFacts(camera.id, error=f"its probe ended with exit code {done.returncode}")


class _Measurement:
    """Counts what a source delivers."""

    def __init__(self) -> None:
        self.frames = self.corrupt = self.frame_bytes = self.units = self.unit_bytes = 0
        self.width = self.height = 0
        #: True if a key frame without parameter sets has come.
        self.lacks_sets = False
        #: When packets came, and key frames of H.264 or H.265 (monotonic seconds).
        self.arrivals: list[float] = []
        self.keys: list[float] = []
        #: The highest difference of a packet's camera time to its arrival, in nanoseconds.
        self.ahead: int | None = None

    def take(self, source: Source) -> None:
        """Count the packet that was grabbed, and the JPEGs that come of it."""
        self.arrivals.append(time.monotonic())
        if source.camera_time_nano:
            passed = time.monotonic_ns() - source.arrived_nano if source.arrived_nano else 0
            ahead = source.camera_time_nano - (time.time_ns() - passed)
            self.ahead = ahead if self.ahead is None else max(ahead, self.ahead)
        if unit := source.unit:
            self.units += 1
            self.unit_bytes += sum(map(len, unit.parts))
            self.width, self.height = unit.width or self.width, unit.height or self.height
            self.lacks_sets |= unit.lacks_sets
            if unit.keyframe:
                self.keys.append(self.arrivals[-1])
        try:
            for stamp in source.pictures(time.time_ns()):
                frame = source.retrieve(stamp, self.frames + 1)
                self.frames += 1
                self.frame_bytes += sum(map(len, frame.parts))
                self.width, self.height = frame.width, frame.height
        except WireError:
            self.corrupt += 1

    def end(self, seconds: float) -> float:
        """When enough was counted: after ``seconds`` in which packets come evenly, and with the second key frame."""
        wanted = SETTLE_SECONDS + seconds
        awaited = self.units and len(self.keys) < 2 and not self.lacks_sets
        return self.arrivals[0] + (max(wanted, KEY_SECONDS) if awaited else wanted)

    def facts(self, source: Source) -> CameraFacts:
        """What was counted."""
        rate, note = _rate(self.arrivals), ""
        interval = (self.keys[-1] - self.keys[0]) / (len(self.keys) - 1) if len(self.keys) > 1 else 0.0
        if self.units and not interval and self.arrivals[-1] - self.arrivals[0] > KEY_SECONDS - 1:
            note = f"{'one key frame' if self.keys else 'no key frame'} in {KEY_SECONDS:.0f} s"
        if self.lacks_sets and not self.keys:
            note = NO_SETS
        fps = {"key": 1 / interval if interval else 0.0, "none": 0.0}.get(source.decode, rate)
        return CameraFacts(
            id="",
            codec=source.codec,
            mode=source.mode,
            decode=source.decode,
            width=self.width,
            height=self.height,
            frames=self.frames,
            fps=round(fps, 2),
            frame_bytes=self.frame_bytes // self.frames if self.frames else 0,
            packet_fps=round(rate, 2) if self.units else 0.0,
            packet_bytes=self.unit_bytes // self.units if self.units else 0,
            key_interval_seconds=round(interval, 2),
            corrupt=self.corrupt,
            clock_offset_seconds=None if self.ahead is None else round(self.ahead / 1e9, 4),
            note=note,
        )


def measure(camera: Camera, seconds: float = MEASURE_SECONDS) -> CameraFacts:
    """Open the camera as the capture process does, and count frames for ``seconds`` once they come evenly. Blocks for
    as long as the camera's timeouts allow."""
    from engine.sources.choose import open_source
    from engine.sources.source import NotOpened, SourceEnded

    source: Source | None = None
    counted = _Measurement()
    error = advice = ""
    try:
        source = open_source(camera)
        end = time.monotonic() + camera.stall_seconds
        while time.monotonic() < end:
            if source.grab():
                counted.take(source)
                end = counted.end(seconds)
    except NotOpened:
        error, advice = camera_check.examine(camera.url, camera.open_timeout_seconds)
    except SourceEnded as ended:
        error = "" if counted.frames or counted.units else str(ended)
    except CameraUnavailable as away:
        error = str(away)
    finally:
        if source is not None:
            source.close()
    if not (counted.frames or counted.units or error):
        corrupt = counted.corrupt
        error = f"sent {corrupt} frames, none of them whole" if corrupt else "it opened and sent no frame"
    facts = counted.facts(source) if source else CameraFacts("")
    error = urls.mask(error, urls.secrets_in(camera.url))
    return msgspec.structs.replace(facts, id=camera.id, error=error, advice=advice)


def _rate(arrivals: Sequence[float]) -> float:
    """Frames per second from arrival times in seconds. The first ones do not count, because they may come in a burst.
    If fewer than two are left, all count."""
    steady = [moment for moment in arrivals if moment >= arrivals[0] + SETTLE_SECONDS]
    counted = steady if len(steady) > 1 else arrivals
    passed = counted[-1] - counted[0] if counted else 0.0
    return (len(counted) - 1) / passed if passed > 0 else 0.0


def _main() -> None:
    fields: dict[str, Any] = msgspec.json.decode(sys.stdin.buffer.read())
    fields["url"] = Address(fields["url"])
    sys.stdout.buffer.write(msgspec.json.encode(measure(Camera(**fields))))


if __name__ == "__main__":
    _main()
