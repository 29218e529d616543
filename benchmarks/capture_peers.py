"""The clips that capture is measured with, and what it is compared to: OpenCV as its manual has it, and FFmpeg.

CPU time is that of all threads of this process, or of a child, as the kernel counts it; the clock on the wall plays no
part, so that other work on the machine does not either, but for the caches that it takes.
"""

from __future__ import annotations

import resource
import subprocess
import time
from pathlib import Path
from typing import Literal, NamedTuple

import cv2

Codec = Literal["h264", "mjpeg"]
#: FFmpeg's scale of quality at which its JPEGs of these clips come nearest in size to OpenCV's at quality 85.
FFMPEG_QUALITY = 3
FPS = 30
SOI, EOI = b"\xff\xd8", b"\xff\xd9"


class Cost(NamedTuple):
    """CPU seconds of ``frames`` frames, and their JPEGs' bytes together."""

    cpu_seconds: float
    frames: int
    size: int

    @property
    def ms(self) -> float:
        """CPU milliseconds a frame."""
        return self.cpu_seconds / self.frames * 1e3


def make_clip(path: Path, codec: Codec, width: int, height: int, frames: int) -> Path:
    """A moving test picture with some noise, as a camera's: H.264 without B-frames; or of that, so that both show the
    same, JPEGs one behind the other."""
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
    """The JPEGs of an MJPEG clip, as they stand in it."""
    return split(_ffmpeg("-i", str(clip), "-c:v", "copy", "-f", "image2pipe", "-"))


def split(stream: bytes) -> list[bytes]:
    """JPEGs that follow each other: between an end and the next beginning there is nothing."""
    parts = stream.split(EOI + SOI)
    return [
        (b"" if not number else SOI) + part + (b"" if number == len(parts) - 1 else EOI)
        for number, part in enumerate(parts)
    ]


def plain(clip: Path, frames: int, quality: int) -> Cost:
    """``VideoCapture.read`` and ``imencode`` as OpenCV does them; opening and the first frame are not counted."""
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
    """The first JPEGs that the same makes."""
    capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    try:
        return [cv2.imencode(".jpg", capture.read()[1], options)[1].tobytes() for _ in range(frames)]
    finally:
        capture.release()


def ffmpeg(clip: Path, frames: int) -> Cost:
    """One ffmpeg that turns the clip into JPEGs in a pipe: its CPU, and this process's for reading and splitting them.

    Its start, which a camera pays once, is a run of one frame, taken off.
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
