"""The figures that README.md and docs/modes.md show, between their marks: those that matter for a choice.

In a text, ``{name}`` is the value of a figure and ``{ratio:name}`` that of a ratio.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

#: A document shows its table between these lines.
MEASURED_MARKS = ("<!-- measured: written by benchmarks/report.py -->", "<!-- measured ends -->")


class Highlight(NamedTuple):
    """One of the figures that matter."""

    title: str
    ours: str
    beside: str
    #: The curve that shows how it grows, or "".
    curve: str = ""


class Chapter(NamedTuple):
    """Figures of one kind: their title, how they were measured, and the figures."""

    title: str
    text: str
    highlights: tuple[Highlight, ...]


#: A site as most are.
EVERYDAY = (
    Highlight(
        "CPU of a frame, 32 cameras, 30 fps, 48 KB",
        "{everyday.cpu.32x30} ms",
        "{everyday.cpu.32x30.ffmpeg} ms: an `ffmpeg` a camera that encodes JPEG, as the Go edition starts it; "
        "{everyday.cpu.32x30.copy} ms: one that passes JPEG on; both into one redis-py loop, with nothing confirmed",
    ),
    Highlight(
        "CPU of a frame, 8 such cameras",
        "{everyday.cpu.8x30} ms",
        "{everyday.cpu.8x30.ffmpeg} ms and {everyday.cpu.8x30.copy} ms",
    ),
    Highlight(
        "CPU of a frame, 4 such cameras at 15 fps",
        "{everyday.cpu.4x15} ms",
        "{everyday.cpu.4x15.opencv} ms: OpenCV reads, encodes and does SETEX, without events",
    ),
    Highlight(
        "CPU of a frame, 8 RTSP cameras, H.264 720p, 15 fps: video as sent, JPEGs of key frames",
        "{everyday.cpu.rtsp h264} ms",
        "{everyday.cpu.rtsp h264.ffmpeg} ms: the same `ffmpeg` that encodes JPEG",
    ),
    Highlight(
        "From camera to readable in Redis, 8 cameras at 30 fps",
        "p50 {everyday.readable.8x30.p50} ms, p99 {everyday.readable.8x30.p99} ms",
        "",
    ),
    Highlight(
        "From stored to received as an event, 8 cameras at 30 fps",
        "p50 {everyday.event.8x30.p50} ms, p99 {everyday.event.8x30.p99} ms",
        "p50 {everyday.broker.8x30.p50} ms, p99 {everyday.broker.8x30.p99} ms: RabbitMQ alone, beside the same site",
    ),
    Highlight(
        "Memory of a site of 8 cameras",
        "{everyday.memory.all} MB, and {everyday.memory.rings} MB of rings",
        "{everyday.memory.copy} MB: an `ffmpeg` a camera and its loop",
    ),
    Highlight(
        "CPU of an idle site: 10 cameras at 1 fps",
        "{everyday.idle} % of a core",
        "{everyday.idle.copy} %: an `ffmpeg` a camera and its loop, without a supervisor",
    ),
    Highlight(
        "A call of `edge-video status`",
        "{everyday.command.status} ms",
        "{everyday.command.nothing} ms: `python -c pass`",
    ),
)

#: Synthetic cameras, or one part by itself.
ALONE = (
    Highlight(
        "H.264 cameras without a loss, 720p, 15 fps, 2.5 Mbit/s: video as sent, JPEGs of key frames",
        "{video.cameras.without a loss}; 100 of them take {video.100 cameras.own CPU} of a core",
        "{video.cameras.opencv}: OpenCV decodes and encodes every frame, and nothing else runs on the two cores",
    ),
    Highlight(
        "CPU of a captured 720p frame, camera sends H.264",
        "{video.cpu.video} ms stored as sent, {video.cpu.all} ms as JPEG",
        "OpenCV {video.cpu.opencv} ms as JPEG",
    ),
    Highlight(
        "JPEG cameras without a loss, 30 fps, 60 KB a frame",
        "{e2e.cameras.without a loss}",
        "{e2e.cameras.page}: one Python process with SETEX and `basic_publish`, which reads no camera",
        "e2e.growth of CPU",
    ),
    Highlight(
        "From camera to readable in Redis, 100 such cameras",
        "p50 {e2e.cameras.readable p50 at 100} ms, p99 {e2e.cameras.readable p99 at 100} ms",
        "",
        "e2e.growth of latency",
    ),
    Highlight(
        "CPU of a captured 720p frame, camera sends JPEG",
        "{capture.720p.mjpeg.passthrough.engine} ms",
        "OpenCV {capture.720p.mjpeg.passthrough.opencv} ms, `ffmpeg` {capture.720p.mjpeg.passthrough.ffmpeg} ms",
    ),
    Highlight(
        "Writing to Valkey, 60 KB a frame with TTL and journal",
        "{ratio:writer.60kb.unix.valkey.pipeline} times the frames of a redis-py pipeline",
        "{ratio:writer.60kb.unix.valkey.limit} times those of `redis-benchmark`, which writes no journal; on "
        "redis-server {ratio:writer.60kb.unix.redis.pipeline} and {ratio:writer.60kb.unix.redis.limit} times",
        "growth.size",
    ),
    Highlight(
        "Events to RabbitMQ, persistent and confirmed",
        "{publisher.single.rate} a second",
        "{publisher.single.one_at_a_time.rate}: pika, one at a time",
        "growth.publisher.cameras",
    ),
    Highlight(
        "From stored to received as an event",
        "p50 {publisher.latency.p50} ms, p99 {publisher.latency.p99} ms",
        "p50 {publisher.in_one_loop.latency.p50} ms: one loop that publishes after each SET, unconfirmed",
    ),
    Highlight(
        "The latest frame of a camera, 1,000,000 frames stored",
        "p99 {growth.latest.p99} ms",
        "`KEYS`, sort, tail takes {ratio:growth.latest.page.1000k} times as long",
        "growth.latest",
    ),
    Highlight(
        "Memory of a camera's process",
        "{idle.memory.passthrough} MB for JPEG, {video.memory.video} MB for H.264 stored as sent, "
        "{idle.memory.transcode} MB where 720p is transcoded",
        "{idle.memory.interpreter} MB: a Python that has loaded OpenCV and does nothing",
    ),
)

#: What README.md and docs/benchmarks.md show, in this order.
CHAPTERS = (
    Chapter(
        "Everyday sites",
        "Cameras send JPEG by HTTP unless the row says otherwise. Redis by TCP, an event a frame, one consumer. Frames "
        "lost: {everyday.dropped.4x15} with 4 cameras, {everyday.dropped.8x30} with 8, {everyday.dropped.32x30} with "
        "32.",
        EVERYDAY,
    ),
    Chapter("The engine alone", "Synthetic cameras and clips, at rates that fill two cores, and single parts.", ALONE),
)


#: Frames a second of the cameras whose modes are compared.
_MODES_FPS = 15


class Mode(NamedTuple):
    """A row of the table of modes: the keys of a camera, what is stored, and its group in ``test_video.GROUPS``."""

    keys: str
    stored: str
    group: str


#: The modes of a camera that sends H.264, from the cheapest on.
MODES = (
    Mode('`video = true`, `decode = "none"`', "packets", "video"),
    Mode('`decode = "key"`', "JPEGs of the key frames", "key"),
    Mode('`video = true`, `decode = "key"`', "packets, and JPEGs of the key frames", "video and key"),
    Mode('`decode = "all"`', "a JPEG of every frame", "all"),
)


def with_measured(document: str, results: Mapping[str, Any], table: list[str]) -> str:
    """The document with a table of the run's figures between its marks. Raises ValueError if it has no marks."""
    before, first, rest = document.partition(MEASURED_MARKS[0])
    _, last, after = rest.partition(MEASURED_MARKS[1])
    if not (first and last):
        raise ValueError(f"the document needs its 2 marks, {' and '.join(MEASURED_MARKS)}")
    run = results["run"]
    lines = ["", f"Run **{run['name']}** on {run['cpu']}, Python {run['python']}:", "", *table]
    return before + first + "\n".join(lines) + last + after


def highlights(results: Mapping[str, Any]) -> list[str]:
    """A table for each chapter, without figures that were not measured."""
    lines: list[str] = []
    for chapter in CHAPTERS:
        if table := chapter_table(chapter, results):
            lines += [f"**{chapter.title}**", "", *table]
    return lines


def chapter_table(chapter: Chapter, results: Mapping[str, Any]) -> list[str]:
    """The chapter's text and table; empty if nothing of it was measured."""

    def value(match: re.Match[str]) -> str:
        kind = "ratios" if match[1] else "figures"
        return number(results[kind][match[2]]["value"])

    def filled(text: str) -> str:
        return re.sub(r"\{(ratio:)?(.+?)\}", value, text)

    rows = []
    for highlight in chapter.highlights:
        with suppress(KeyError):
            rows.append(f"| {highlight.title} | **{filled(highlight.ours)}** | {filled(highlight.beside)} |")
    if not rows:
        return []
    text = []
    with suppress(KeyError):
        text = [filled(chapter.text), ""]
    return [*text, "| figure | engine | instead |", "| --- | --- | --- |", *rows, ""]


def modes(results: Mapping[str, Any]) -> list[str]:
    """The table of modes; empty if they were not measured."""
    figures = results["figures"]
    rows = ["| keys of the camera | stored | CPU a frame | CPU of a core | memory of its process |", "| --- " * 5 + "|"]
    try:
        for mode in MODES:
            ms, memory = figures[f"video.cpu.{mode.group}"]["value"], figures[f"video.memory.{mode.group}"]["value"]
            rows.append(f"| {mode.keys} | {mode.stored} | {number(ms)} ms | {_share(ms)} | {number(memory)} MB |")
        ms = figures["video.cpu.opencv"]["value"]
        rows.append(
            f"| a Python program with OpenCV | nothing: a JPEG of every frame | {number(ms)} ms | {_share(ms)} | |"
        )
    except KeyError:
        return []
    return [*rows, ""]


def _share(ms: float) -> str:
    """Of a core, at the rate of the benchmark's cameras."""
    return f"{number(round(ms / 1e3 * _MODES_FPS * 100, 1))} %"


def number(value: Any) -> str:
    """Format a number for reading: three or four digits, thousands separated."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value == 0 or math.isinf(value) or math.isnan(value):
        return f"{value:g}"
    if abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
