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
from engine.wire import urls

#: Seconds over which frames are counted; seconds before that, in which frames come in a burst that FFmpeg held back
#: while it opened the stream; cameras probed at the same time.
MEASURE_SECONDS = 2.0
SETTLE_SECONDS = 1.0
TOGETHER_MAX = 8
#: Seconds for a process to start and end.
_MARGIN_SECONDS = 5.0


class CameraFacts(msgspec.Struct, frozen=True):
    """What a camera sent. ``error`` is set if it sent nothing; ``corrupt`` frames were not complete JPEGs."""

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
    #: What to do about the error, if more than the general advice is known.
    advice: str = ""


def gather(cameras: Sequence[Camera]) -> list[CameraFacts]:
    """Probe each camera, several at a time. Each takes as long as its timeouts and the measurement."""
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
        return CameraFacts(camera.id, error=f"its probe ended with exit code {done.returncode}")


def measure(camera: Camera, seconds: float = MEASURE_SECONDS) -> CameraFacts:
    """Open the camera as the capture process does, and count frames for ``seconds`` once they come evenly. Blocks for
    as long as the camera's timeouts allow."""
    from engine.sources.choose import open_source, prepare_process
    from engine.sources.source import NotOpened, Source, SourceEnded

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
                for stamp in source.pictures(time.time_ns()):
                    frame = source.retrieve(stamp, frames + 1)
                    frames += 1
                    width, height = frame.width, frame.height
                    size += sum(len(part) for part in frame.parts)
            except WireError:
                corrupt += 1
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
