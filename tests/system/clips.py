"""Video for tests: the real footage where it is at hand, clips made on the spot where it is not."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import cv2
import numpy as np

_FOOTAGE = Path(__file__).parent.parent.parent.parent / "shared" / "video"


def person_clip() -> Path:
    """H.264 with B-frames, 768x432, 10 fps."""
    return _clip("one-by-one-person-detection.mp4", 10.0)


def car_clip() -> Path:
    """H.264 Baseline with an audio track, 768x432, 12.5 fps."""
    return _clip("car-detection.mp4", 12.5)


@functools.cache
def _clip(name: str, fps: float) -> Path:
    real = _FOOTAGE / name
    if real.exists():
        return real
    path = Path(tempfile.mkdtemp(prefix="ev-clip-")) / name
    # OpenCV's own FFmpeg has no H.264 encoder; MPEG-4 with B-frames takes the same way through the engine.
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), fps, (768, 432))
    for number in range(400):
        picture = np.full((432, 768, 3), (number * 3 % 255, 80, 160), np.uint8)
        cv2.putText(picture, f"{name} {number}", (40, 200), cv2.FONT_HERSHEY_SIMPLEX, 2, (255, 255, 255), 3)
        cv2.circle(picture, (number * 7 % 768, 320), 40, (0, 0, 255), -1)
        writer.write(picture)
    writer.release()
    return path
