"""How ``edge-video frames`` shows entries: rows, JSON, bars."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from engine.cli import output
from engine.client.video import VideoEntry
from engine.wire.rfc3339 import NANO, rfc3339

if TYPE_CHECKING:
    from engine.client.frame import FrameEntry
    from engine.client.stats import Bucket

#: Eighths of a character cell, for bars.
_BLOCKS = " ▏▎▍▌▋▊▉█"
_BAR_WIDTH_MIN = 10


class Rows:
    """Prints entries at once, as aligned rows below a header or as JSON lines."""

    def __init__(self, cameras: Iterable[str], *, json: bool) -> None:
        self._json = json
        self._width = max((output.cells(plain(camera)) for camera in cameras), default=0)
        self._width = max(self._width, len("camera"))
        self._begun = False

    def print(self, entry: FrameEntry) -> None:
        """Print an entry; before the first, the header."""
        if self._json:
            output.print_json(fields(entry))
            return
        if not self._begun:
            self._begun = True
            header = self._row("time", "camera", "number", "bytes", "size", "key")
            output.print_header(header)
        size = f"{entry.width}x{entry.height} {entry.encoding}"
        if isinstance(entry, VideoEntry):
            size += " key" if entry.keyframe else "    "
        number, length = f"{entry.sequence:05d}", f"{entry.size:,}"
        row = self._row(rfc3339(entry.unix_nano), plain(entry.camera), number, length, size, entry.key)
        sys.stdout.write(row + "\n")

    def _row(self, when: str, camera: str, number: str, length: str, size: str, key: str) -> str:
        name = camera + " " * (self._width - output.cells(camera))
        return f"{when:30}  {name}  {number:6}  {length:>10}  {size:14}  {key}"


def fields(entry: FrameEntry) -> dict[str, Any]:
    """A frame's metadata, or an access unit's, as ``--json`` prints it."""
    shown = {
        "key": entry.key,
        "camera": entry.camera,
        "time": rfc3339(entry.unix_nano),
        "timestamp_nano": entry.unix_nano,
        "sequence": entry.sequence,
        "size": entry.size,
        "width": entry.width,
        "height": entry.height,
        "encoding": entry.encoding,
    }
    if isinstance(entry, VideoEntry):
        shown |= {"keyframe": entry.keyframe, "shown": rfc3339(entry.shown_nano), "shown_nano": entry.shown_nano}
    if entry.camera_time_nano is not None:
        shown["camera_time_nano"] = entry.camera_time_nano
    return shown


def shown_nano(entry: FrameEntry) -> int:
    """When a frame, or the picture of an access unit, is shown."""
    return entry.shown_nano if isinstance(entry, VideoEntry) else entry.unix_nano


def print_bars(buckets: list[Bucket]) -> None:
    """Print one line per bucket. The longest bar, for the most frames, fills the terminal."""
    console = output.console()
    whole = all(bucket.start_nano % NANO == 0 for bucket in buckets)
    most = max(bucket.frames for bucket in buckets)
    blocks = (console.encoding or "").startswith("utf")
    head = f"{'time':{20 if whole else 30}}  {'frames':>8}  {'mean bytes':>10}  "
    width = max(console.width - len(head), _BAR_WIDTH_MIN)
    output.print_header(head.rstrip())
    for bucket in buckets:
        when = rfc3339(bucket.start_nano)
        when = f"{when[:19]}Z" if whole else when
        full, part = divmod(bucket.frames * width * 8 // most, 8)
        bar = _BLOCKS[-1] * full + _BLOCKS[part].strip() if blocks else "#" * full
        sys.stdout.write(f"{when}  {bucket.frames:8,}  {bucket.mean_bytes:10,.0f}  {bar}".rstrip() + "\n")
    sys.stdout.flush()


def tell_losses(missing: int, unreadable: int) -> None:
    """Say on standard error which entries were left out."""
    if missing:
        print(f"edge-video: {missing:,} older frames have expired and are left out", file=sys.stderr)
    if unreadable:
        print(f"edge-video: {unreadable:,} entries were met that the engine did not write", file=sys.stderr)


def age(frame: FrameEntry) -> float:
    """Seconds since the frame was captured, or the picture is shown."""
    return round((time.time_ns() - shown_nano(frame)) / NANO, 3)


def plain(name: str) -> str:
    """A name without characters that would control the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
