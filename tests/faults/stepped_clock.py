"""``edge-video`` under a wall clock that another process can step: ``python -m tests.faults.stepped_clock FILE …``.

FILE holds the step as a signed 64-bit number of nanoseconds, and may change at any time.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path

_STEP = struct.Struct("<q")


def write_step(path: Path, seconds: int) -> None:
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(_STEP.pack(seconds * 10**9))


def main() -> None:
    file = Path(sys.argv.pop(1)).open("rb")  # noqa: SIM115 - lives as long as the process
    step = mmap.mmap(file.fileno(), _STEP.size, access=mmap.ACCESS_READ)
    real = time.time_ns

    def time_ns() -> int:
        return real() + int(_STEP.unpack_from(step)[0])

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9
    from engine.cli.main import main as edge_video

    edge_video()


if __name__ == "__main__":
    main()
