"""A camera opened for a moment, in a process of its own: a read can hang in native code, and is killed then.

The process is ``python -m engine.doctor.camera_probe``. The camera goes in by standard input, because a command line
can be read by everybody and URLs carry credentials.
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
from engine.wire import urls

#: Seconds over which frames are counted, and those before, in which what FFmpeg held back while it was opening the
#: stream comes at once; and cameras looked at together.
MEASURE_SECONDS = 2.0
SETTLE_SECONDS = 1.0
TOGETHER_MAX = 8
#: Seconds for a process to start and end around its work.
_MARGIN_SECONDS = 5.0


class CameraFacts(msgspec.Struct, frozen=True):
    """What a camera sent. ``error`` where it sent nothing; ``corrupt`` frames were no whole JPEG."""

    id: str
    codec: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    frames: int = 0
    fps: float = 0.0
    frame_bytes: int = 0
    corrupt: int = 0
    error: str = ""
    #: What to do about the error, where more is known than for any camera.
    advice: str = ""


def gather(cameras: Sequence[Camera]) -> list[CameraFacts]:
    """Look at each, several at a time, each for so long as its timeouts and the measurement take."""
    with ThreadPoolExecutor(TOGETHER_MAX) as pool:
        return list(pool.map(_look, cameras))


def _look(camera: Camera) -> CameraFacts:
    bound = 2 * camera.open_timeout_seconds + camera.stall_seconds + SETTLE_SECONDS + MEASURE_SECONDS + _MARGIN_SECONDS
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
        return CameraFacts(camera.id, error=f"the look at it ended with exit code {done.returncode}")


def measure(camera: Camera, seconds: float = MEASURE_SECONDS) -> CameraFacts:
    """Open it as the capture process would, and count frames for ``seconds`` once they come evenly. Blocks as long as
    its timeouts let it."""
    from engine.sources.choose import open_source
    from engine.sources.source import NotOpened, Source, SourceEnded
    from engine.sources.video import prepare_process

    prepare_process()
    source: Source | None = None
    frames = corrupt = size = width = height = 0
    arrivals: list[float] = []
    error = advice = ""
    try:
        source = open_source(camera)
        end = time.monotonic() + camera.stall_seconds
        while time.monotonic() < end:
            if not source.grab():
                continue
            arrivals.append(time.monotonic())
            if len(arrivals) == 1:
                end = arrivals[0] + SETTLE_SECONDS + seconds
            try:
                frame = source.retrieve(time.time_ns(), frames + 1)
            except WireError:
                corrupt += 1
                continue
            frames += 1
            width, height = frame.width, frame.height
            size += sum(len(part) for part in frame.parts)
    except NotOpened:
        error, advice = camera_check.examine(camera.url, camera.open_timeout_seconds)
    except SourceEnded as ended:
        error = "" if frames else str(ended)
    except CameraUnavailable as away:
        error = str(away)
    finally:
        if source is not None:
            source.close()
    if not frames and not error:
        error = f"sent {corrupt} frames, none of them whole" if corrupt else "it opened and sent no frame"
    return CameraFacts(
        id=camera.id,
        codec=source.codec if source else "",
        mode=source.mode if source else "",
        width=width,
        height=height,
        frames=frames,
        fps=round(_rate(arrivals), 2),
        frame_bytes=size // frames if frames else 0,
        corrupt=corrupt,
        error=urls.mask(error, urls.secrets_in(camera.url)),
        advice=advice,
    )


def _rate(arrivals: Sequence[float]) -> float:
    """Frames per second by the seconds at which they came, without the first ones, which may have come at once. Of a
    camera that sends fewer than two in that time all count."""
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
