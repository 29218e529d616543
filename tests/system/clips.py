"""Video for tests: the real footage where it is at hand, clips like it, made on the spot, where it is not."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

_FOOTAGE = Path(__file__).parent.parent.parent.parent / "shared" / "video"


def person_clip() -> Path:
    """H.264 with B-frames, 768x432, 10 fps, 1394 pictures."""
    return _clip(
        "one-by-one-person-detection.mp4", "10", "139.4", "-profile:v", "main", "-bf", "3", "-g", "10",
        "-x264-params", "b-pyramid=none:b-adapt=0:scenecut=0", "-b:v", "190k",
    )  # fmt: skip


def car_clip() -> Path:
    """H.264 Baseline with an audio track, 768x432, 12.5 fps, 377 pictures."""
    return _clip(
        "car-detection.mp4", "25/2", "30.16", "-profile:v", "baseline", "-g", "60",
        "-x264-params", "scenecut=0", "-b:v", "615k", "-c:a", "aac",
    )  # fmt: skip


@functools.cache
def _clip(name: str, fps: str, seconds: str, *options: str) -> Path:
    real = _FOOTAGE / name
    if real.exists():
        return real
    path = Path(tempfile.mkdtemp(prefix="ev-clip-")) / name
    picture = ["-f", "lavfi", "-i", f"testsrc2=size=768x432:rate={fps},gblur=8,noise=alls=8:allf=t:all_seed=5"]
    sound = ["-f", "lavfi", "-i", "sine"] if "-c:a" in options else []
    encoder = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p"]
    subprocess.run(
        ["ffmpeg", "-v", "error", *picture, *sound, "-t", seconds, *encoder, *options, path], check=True, timeout=120
    )
    return path
