"""Video for tests: the real footage where it is at hand, clips like it, made on the spot, where it is not."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

_FOOTAGE = Path(__file__).parent.parent.parent.parent / "shared" / "video"


def person_clip() -> Path:
    """H.264 with B-frames, 768x432, 10 fps."""
    return _clip("one-by-one-person-detection.mp4", "10", "-profile:v", "main", "-bf", "3", "-g", "10")


def car_clip() -> Path:
    """H.264 Baseline with an audio track, 768x432, 12.5 fps."""
    return _clip("car-detection.mp4", "25/2", "-profile:v", "baseline", "-g", "60", "-c:a", "aac")


@functools.cache
def _clip(name: str, fps: str, *options: str) -> Path:
    real = _FOOTAGE / name
    if real.exists():
        return real
    path = Path(tempfile.mkdtemp(prefix="ev-clip-")) / name
    picture = ["-f", "lavfi", "-i", f"testsrc2=size=768x432:rate={fps}"]
    sound = ["-f", "lavfi", "-i", "sine"] if "-c:a" in options else []
    command = [
        "ffmpeg",
        "-v",
        "error",
        *picture,
        *sound,
        "-t",
        "40",
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        *options,
    ]
    subprocess.run([*command, path], check=True, timeout=120)
    return path
