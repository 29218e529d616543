"""How a reading command ends: with nothing found, or with a report of what was exported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from engine.cli import output
from engine.errors import EXIT_NOTHING
from engine.wire.rfc3339 import rfc3339

if TYPE_CHECKING:
    from engine.client.frame import Frame


def nothing(message: str) -> NoReturn:
    """End the command: the query was answered, and nothing matches."""
    print(f"edge-video: {message}", file=sys.stderr)
    raise typer.Exit(EXIT_NOTHING)


class Done:
    """What was exported: number of frames and bytes, nanoseconds of the first and the last frame."""

    def __init__(self, frames: int = 0, bytes_: int = 0, first_nano: int = 0, last_nano: int = 0) -> None:
        self.frames = frames
        self.bytes = bytes_
        self.first_nano = first_nano
        self.last_nano = last_nano

    def add(self, frame: Frame) -> None:
        """Count a frame that was written."""
        self.first_nano = self.first_nano or frame.unix_nano
        self.last_nano = frame.unix_nano
        self.frames += 1
        self.bytes += frame.size


def report(done: Done, camera: str, out: Path, missing: int, *, json: bool, **more: int) -> None:
    """Print what was exported; ``more`` counts only as JSON."""
    times = rfc3339(done.first_nano), rfc3339(done.last_nano)
    if not json:
        print(f"{out}: {done.frames:,} frames, {done.bytes:,} bytes, {times[0]} to {times[1]}")
        return
    output.print_json(
        {
            "camera": camera,
            "file": str(out),
            "frames": done.frames,
            "bytes": done.bytes,
            "missing": missing,
            "start": times[0],
            "end": times[1],
            "start_nano": done.first_nano,
            "end_nano": done.last_nano,
            **more,
        }
    )
