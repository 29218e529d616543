"""The model of docs/scale.md: what one camera takes in each mode, and what 100, 1,000 and 10,000 of them take.

    python -m benchmarks.scale_model          # the tables
    python -m benchmarks.scale_model --write  # into docs/scale.md

What a camera takes was measured: ``results/raw.json`` (``make bench``) and ``results/scale.json``
(``benchmarks/simulate_site.py``). The sums are straight: a camera takes the same beside 10,000 others as beside 100.
That is so because cameras share nothing but servers, and because servers are added with them. Redis's memory follows
from sizes (``engine/config/memory.py``).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.config.memory import frame_memory
from engine.wire.keys import frame_key_prefix, frame_key_suffix, video_key_prefix

HERE = Path(__file__).parent
RAW = HERE / "results" / "raw.json"
SCALE = HERE / "results" / "scale.json"
DOCUMENT = HERE.parent / "docs" / "scale.md"
BEGIN, END = "<!-- measured: written by benchmarks/scale_model.py -->", "<!-- measured ends -->"

#: A prediction may be off by this share.
TOLERANCE = 0.2
#: Share of a core or a server that is planned with: the rest is for bursts, restarts and what else runs there.
PLANNED = 0.7
CAMERAS = (100, 1_000, 10_000)
#: Seconds that frames are kept, for the sums of memory.
TTL_SECONDS = 60
#: Cores of an edge box, and GiB of memory of it or of a server that Redis may use.
BOX_CORES, BOX_GIB = 2, 8
MIB, GIB = 2**20, 2**30


class Line(NamedTuple):
    """Cores over frames a second: those of an idle process, and CPU seconds of a frame."""

    idle: float
    per_frame: float

    def at(self, rate: float) -> float:
        """Cores at ``rate`` frames a second."""
        return self.idle + self.per_frame * rate


def line_through(points: Sequence[tuple[float, float]]) -> Line:
    """The straight line of least squares through (frames a second, cores)."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return Line(mean_y - slope * mean_x, slope)


class Prediction(NamedTuple):
    """A predicted value, and what was measured."""

    what: str
    unit: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """How far off the prediction is, as a share of what was measured."""
        return self.predicted / self.measured - 1 if self.measured else math.inf

    @property
    def good(self) -> bool:
        """True if it is at most TOLERANCE off."""
        return abs(self.error) <= TOLERANCE


class Mode(NamedTuple):
    """What one camera takes in one mode: rates a second, bytes, cores of each part, MiB of its process."""

    name: str
    frames: float
    frame_bytes: int
    packets: float
    packet_bytes: int
    events: float
    capture: float
    writer: float
    publisher: float
    redis: float
    rabbitmq: float
    process_mib: float

    @property
    def stored(self) -> float:
        """Frames and packets a second."""
        return self.frames + self.packets

    @property
    def bytes(self) -> float:
        """Payload bytes a second, from the camera's process to Redis."""
        return self.frames * self.frame_bytes + self.packets * self.packet_bytes

    @property
    def engine(self) -> float:
        """Cores of the engine's own processes."""
        return self.capture + self.writer + self.publisher

    @property
    def cores(self) -> float:
        """Cores of a box that has capture, writer, publisher and Redis; the broker is elsewhere."""
        return self.engine + self.redis

    def redis_bytes(self, ttl_seconds: float) -> float:
        """Memory of Redis for what is kept."""
        numbers = len(frame_key_suffix(10**18, 1))
        frame_key = len(frame_key_prefix("default", "frames", "cam10000")) + numbers
        video_key = len(video_key_prefix("default", "frames", "cam10000")) + numbers
        kept = self.frames * frame_memory(self.frame_bytes, frame_key)
        if self.packets:
            kept += self.packets * frame_memory(self.packet_bytes, video_key)
        return kept * ttl_seconds


def modes(raw: dict[str, Any]) -> list[Mode]:
    """The modes as they were measured: 30 JPEGs of 48 KB a second, and 720p H.264 of 15 pictures and 2.5 Mbit a second
    with a key frame every two seconds."""

    def value(name: str) -> float:
        return float(raw["figures"][name]["value"])

    jpeg = {part: value(f"everyday.cpu.100x30.{part}") / 1e3 for part in ("capture", "writer", "publisher", "rabbitmq")}
    video = {
        part: value(f"video.100 cameras.cpu.{part}") / 100
        for part in ("capture", "writer", "publisher", "redis", "rabbitmq")
    }
    redis_frame = value("e2e.cpu.redis") / 1e3
    packet = round(2.5e6 / 8 / 15)
    # A key frame's JPEG in the benchmark's clip.
    key_jpeg = 60 * 1024
    decoded = value("video.cpu.all") / 1e3
    return [
        Mode(
            "JPEG, as sent", 30, 48 * 1024, 0, 0, 30,
            30 * jpeg["capture"], 30 * jpeg["writer"], 30 * jpeg["publisher"],
            30 * redis_frame, 30 * jpeg["rabbitmq"], value("e2e.memory.capture, each"),
        ),
        Mode(
            "H.264, as sent, and JPEGs of key frames", 0.5, key_jpeg, 15, packet, 0.5,
            video["capture"], video["writer"], video["publisher"],
            video["redis"], video["rabbitmq"], value("video.memory.video and key"),
        ),
        Mode(
            "H.264, a JPEG of every frame", 15, key_jpeg, 0, 0, 15,
            15 * decoded, 15 * jpeg["writer"], 15 * jpeg["publisher"],
            15 * redis_frame, 15 * jpeg["rabbitmq"], value("video.memory.all"),
        ),
    ]  # fmt: skip


def camera_table(found: Sequence[Mode]) -> str:
    """What one camera takes."""
    lines = [
        "| a camera that sends | frames, packets a second | Mbit/s into Redis | events a second | capture | writer | "
        "publisher | Redis | RabbitMQ | memory of its process | Redis, a minute of it |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for mode in found:
        parts = (mode.capture, mode.writer, mode.publisher, mode.redis, mode.rabbitmq)
        shares = " | ".join(f"{100 * part:.2f} %" for part in parts)
        lines.append(
            f"| {mode.name} | {mode.frames:g}, {mode.packets:g} | {mode.bytes * 8 / 1e6:.1f} | {mode.events:g} | "
            f"{shares} | {mode.process_mib:.0f} MB | {mode.redis_bytes(60) / MIB:.0f} MB |"
        )
    return "\n".join(lines)


def sums_table(found: Sequence[Mode]) -> str:
    """What many cameras take, and how many boxes and servers that is."""
    lines = [
        "| cameras | mode | stored a second | Gbit/s into Redis | Redis memory, TTL 60 s | cores: engine | Redis | "
        "RabbitMQ | events a second | edge boxes of 2 cores and 8 GB for Redis |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cameras in CAMERAS:
        for mode in found:
            memory = cameras * mode.redis_bytes(TTL_SECONDS)
            lines.append(
                f"| {cameras:,} | {mode.name} | {cameras * mode.stored:,.0f} | {cameras * mode.bytes * 8 / 1e9:.2f} | "
                f"{memory / GIB:,.1f} GB | {cameras * mode.engine:,.1f} | {cameras * mode.redis:,.2f} | "
                f"{cameras * mode.rabbitmq:,.2f} | {cameras * mode.events:,.0f} | {boxes(mode, cameras):,} |"
            )
    return "\n".join(lines)


def cameras_of_box(mode: Mode) -> int:
    """Cameras that one box carries: by its cores, and by the memory that Redis may use."""
    by_cores = BOX_CORES * PLANNED / mode.cores
    by_memory = BOX_GIB * GIB / mode.redis_bytes(TTL_SECONDS)
    return max(int(min(by_cores, by_memory)), 1)


def boxes(mode: Mode, cameras: int) -> int:
    """Boxes for that many cameras."""
    return -(-cameras // cameras_of_box(mode))


def cluster_table(scale: dict[str, Any]) -> str:
    """What the last run of the simulation predicted and measured."""
    load = scale["load"]
    lines = [
        f"{load['cameras']} cameras x {load['fps']:g} fps x {load['kilobytes']} KB for {load['seconds']:g} s, "
        f"{load['writers']} writer{'s' if load['writers'] > 1 else ''}, 3 masters and 3 replicas, on "
        f"{scale['run']['cpu']}, {scale['run']['name']}: {scale['stored']:,} frames stored, "
        f"{scale['dropped']:,} dropped.",
        "",
        "| | predicted from smaller loads | measured | off by |",
        "| --- | --- | --- | --- |",
    ]
    for entry in scale["predictions"]:
        made = Prediction(**entry)
        lines.append(
            f"| {made.what} | {shown(made.predicted)} {made.unit} | {shown(made.measured)} {made.unit} | "
            f"{100 * made.error:+.0f} % |"
        )
    return "\n".join(lines)


def shown(value: float) -> str:
    """A number of three figures, or a whole one."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def measured(raw: dict[str, Any], scale: dict[str, Any]) -> list[str]:
    """The parts of the document that follow from results, in its order."""
    found = modes(raw)
    run = raw["run"]
    intro = f"Run **{run['name']}** on {run['cpu']}, per cent of one core:\n\n"
    return [intro + camera_table(found), sums_table(found), cluster_table(scale)]


def with_measured(document: str, parts: Sequence[str]) -> str:
    """The document with ``parts`` between its markers, in order."""
    pieces = document.split(BEGIN)
    assert len(pieces) == len(parts) + 1, f"{len(pieces) - 1} places for {len(parts)} parts"
    rest = [piece.partition(END)[2] for piece in pieces[1:]]
    return pieces[0] + "".join(f"{BEGIN}\n{part}\n{END}{after}" for part, after in zip(parts, rest, strict=True))


def document() -> str:
    """docs/scale.md, as the stored results make it."""
    parts = measured(json.loads(RAW.read_text()), json.loads(SCALE.read_text()))
    return with_measured(DOCUMENT.read_text(), parts)


def main() -> None:
    """Print the tables, or write them into the document."""
    parser = argparse.ArgumentParser(description="What many cameras take.")
    parser.add_argument("--write", action="store_true", help="into docs/scale.md")
    if parser.parse_args().write:
        DOCUMENT.write_text(document())
        return
    print("\n\n".join(measured(json.loads(RAW.read_text()), json.loads(SCALE.read_text()))))


if __name__ == "__main__":
    main()
