"""Clips for the capture benchmark, and its peers: OpenCV as in its manual, and FFmpeg.

The kernel counts the CPU time of all threads of this process, or of a child. Wall-clock time is not used, so other work
on the machine matters only through the caches that it takes.
"""

from __future__ import annotations

import resource
import subprocess
import time
from pathlib import Path
from typing import Literal, NamedTuple

import cv2

Codec = Literal["h264", "mjpeg"]
#: FFmpeg's quality at which its JPEGs of these clips are closest in size to OpenCV's at quality 85.
FFMPEG_QUALITY = 3
FPS = 30
SOI, EOI = b"\xff\xd8", b"\xff\xd9"


class Cost(NamedTuple):
    """CPU seconds of ``frames`` frames, and the total bytes of their JPEGs."""

    cpu_seconds: float
    frames: int
    size: int

    @property
    def ms(self) -> float:
        """CPU milliseconds per frame."""
        return self.cpu_seconds / self.frames * 1e3


def make_clip(path: Path, codec: Codec, width: int, height: int, frames: int) -> Path:
    """Make a clip of a moving test picture with some noise, like a camera's. It is H.264 without B-frames, or MJPEG
    made from that H.264 clip, so both show the same."""
    h264 = f"-c:v libx264 -preset veryfast -profile:v main -bf 0 -g {2 * FPS} -pix_fmt yuv420p".split()
    h264 += ["-b:v", str(width * height * 3)]
    mjpeg = f"-c:v mjpeg -q:v {FFMPEG_QUALITY} -pix_fmt yuvj420p".split()
    picture = f"testsrc2=size={width}x{height}:rate={FPS},noise=alls=10:allf=t:all_seed=5"
    if codec == "h264":
        _ffmpeg("-f", "lavfi", "-i", picture, "-frames:v", str(frames), *h264, str(path))
    else:
        filmed = make_clip(path.with_suffix(".mp4"), "h264", width, height, frames)
        _ffmpeg("-i", str(filmed), *mjpeg, str(path))
        filmed.unlink()
    return path


def packets(clip: Path) -> list[bytes]:
    """The JPEGs of an MJPEG clip, unchanged."""
    return split(_ffmpeg("-i", str(clip), "-c:v", "copy", "-f", "image2pipe", "-"))


def split(stream: bytes) -> list[bytes]:
    """Split JPEGs that follow each other without a gap."""
    parts = stream.split(EOI + SOI)
    return [
        (b"" if not number else SOI) + part + (b"" if number == len(parts) - 1 else EOI)
        for number, part in enumerate(parts)
    ]


def plain(clip: Path, frames: int, quality: int) -> Cost:
    """Measure OpenCV's ``VideoCapture.read`` and ``imencode``, without opening and the first frame."""
    capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    size = 0
    try:
        assert capture.read()[0]
        begun = time.process_time()
        for _ in range(frames):
            good, picture = capture.read()
            assert good
            size += len(cv2.imencode(".jpg", picture, options)[1])
        return Cost(time.process_time() - begun, frames, size)
    finally:
        capture.release()


def plain_frames(clip: Path, frames: int, quality: int) -> list[bytes]:
    """The first JPEGs that plain OpenCV makes."""
    capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    try:
        return [cv2.imencode(".jpg", capture.read()[1], options)[1].tobytes() for _ in range(frames)]
    finally:
        capture.release()


def ffmpeg(clip: Path, frames: int) -> Cost:
    """Measure one ffmpeg that writes the clip's JPEGs into a pipe: its CPU, and this process's for reading them.

    The cost of a run of one frame is subtracted, because a camera pays the start only once.
    """
    one, _ = _image2pipe(clip, 1)
    all_of_it, sizes = _image2pipe(clip, frames + 1)
    return Cost(max(all_of_it - one, 1e-6), frames, sum(sizes[1:]))


def _image2pipe(clip: Path, frames: int) -> tuple[float, list[int]]:
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time()
    stream = _ffmpeg(
        *("-i", str(clip), "-frames:v", str(frames), "-f", "image2pipe"),
        *("-c:v", "mjpeg", "-q:v", str(FFMPEG_QUALITY), "-"),
    )
    sizes = [len(body) for body in split(stream)]
    after, own = resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time() - begun
    assert len(sizes) == frames
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime + own, sizes


def _ffmpeg(*arguments: str) -> bytes:
    return subprocess.run(
        ["ffmpeg", "-v", "error", "-nostdin", "-y", *arguments], capture_output=True, check=True
    ).stdout
