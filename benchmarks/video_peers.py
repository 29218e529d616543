"""The way of a Python program with an H.264 camera: OpenCV decodes every frame and encodes it as JPEG.

One process a camera, as the engine has; one decoding thread, TCP, and the engine's default quality.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing.sharedctypes import Synchronized
from typing import NamedTuple, Self

from benchmarks.harness import cpu_seconds

QUALITY = 85
_spawn = multiprocessing.get_context("spawn")
#: Seconds that a reader may take to open its camera.
_OPEN_SECONDS_MAX = 60.0


class Work(NamedTuple):
    """Frames that were made, and the CPU seconds of the processes that made them."""

    frames: int
    cpu_seconds: float

    def since(self, before: Work) -> Work:
        return Work(self.frames - before.frames, self.cpu_seconds - before.cpu_seconds)

    @property
    def ms(self) -> float:
        """CPU milliseconds of a frame."""
        return self.cpu_seconds / self.frames * 1e3


def read_and_encode(url: str, frames: Synchronized[int]) -> None:
    """Read a camera and encode its frames, in a process of its own, until it is killed."""
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "rtsp_transport;tcp|fpsprobesize;0"
    import cv2

    cv2.setNumThreads(0)
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    while True:
        good, picture = capture.read()
        assert good, f"{url} ended"
        cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        frames.value += 1


class Readers:
    """A process for each of ``urls``. Use as a context manager: all read when it is entered."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._counts = [_spawn.Value("q", 0, lock=False) for _ in urls]
        pairs = zip(urls, self._counts, strict=True)
        self._processes = [_spawn.Process(target=read_and_encode, args=pair, daemon=True) for pair in pairs]

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        deadline = time.monotonic() + _OPEN_SECONDS_MAX
        while not all(count.value for count in self._counts):
            assert time.monotonic() < deadline, "OpenCV does not open the cameras"
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def work(self) -> Work:
        """All work so far."""
        frames = sum(count.value for count in self._counts)
        return Work(frames, sum(cpu_seconds(process.pid) for process in self._processes if process.pid))
