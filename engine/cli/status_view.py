"""A running site as lines of text: first what is wrong, then a line for each camera with its error below. A
camera whose video is stored has a second line in the same columns.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from math import ceil

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from engine.cli.columns import Column, Row, layout, wrapped
from engine.runtime.site_report import SiteReport
from engine.runtime.status_cameras import CLOCK_SECONDS_MAX, CameraReport, VideoReport

STATE_STYLES = {"active": "green", "stalled": "yellow", "offline": "red", "connecting": "dim"}
#: Seconds that events may lag before the first line says so.
_LAG_SECONDS = 5.0
#: Counts from here on are shown in millions.
_COUNT_MAX = 100_000_000
_CAMERA_COLUMNS = (
    Column("camera"),
    Column("state", right=False),
    Column("source", 5, right=False),
    Column("size", 2),
    Column("fps"),
    Column("captured", 3),
    Column("stored"),
    Column("dropped"),
    Column("ring"),
    Column("p50 ms", 4),
    Column("p99 ms", 1),
)
#: Shown where a camera tells the time.
_CLOCK_COLUMNS = (Column("clock s", 6), Column("drift ppm", 7))
_PROCESS_COLUMNS = (
    Column("process"),
    Column("pid"),
    Column("cpu s"),
    Column("cpu %"),
    Column("memory MB"),
    Column("restarts"),
    Column("heartbeat s", 1),
)


def print_status(console: Console, report: SiteReport) -> None:
    """Print a running site: headline, cameras, processes; in 80 columns if the output has no width."""
    for line in status_lines(report, console.width):
        console.print(line, soft_wrap=True)


def status_lines(report: SiteReport, width: int) -> list[Text]:
    """The whole site: headline, cameras, processes."""
    if not report.running:
        return not_running(report, width)
    lines = headline(report, width)
    lines += [line for block in _cameras(report.cameras, width) for line in block]
    rows = [
        Row(
            (
                process.name,
                str(process.pid) if process.alive else "-",
                f"{process.cpu_seconds:.1f}",
                f"{process.cpu_percent:.1f}",
                f"{process.memory_mb:.1f}",
                str(process.restarts),
                f"{process.heartbeat_seconds:.1f}",
            )
        )
        for process in report.processes
    ]
    lines += [Text(), *(line for block in layout(_PROCESS_COLUMNS, rows, width) for line in block)]
    for process in report.processes:
        if process.note:
            lines += wrapped(f"{process.name}: {process.note}", width)
    if report.publisher:
        publisher = report.publisher
        where = f" to {', '.join(publisher.brokers)}" if publisher.brokers else ""
        line = (
            f"publisher: {'' if publisher.connected else 'not '}connected{where}, {publisher.published} published, "
            f"{publisher.confirmed} confirmed, {publisher.expired} expired, lag {publisher.lag_seconds:.2f} s"
        )
        if publisher.gops or publisher.video_expired:
            line += f"; {publisher.gops} GOPs confirmed, {publisher.video_expired} packets expired"
        lines += wrapped(line, width)
    return lines


def not_running(report: SiteReport, width: int) -> list[Text]:
    """That the site does not run, and what else of it does."""
    lines = [f"site {report.site} is not running"]
    if report.elsewhere:
        lines.append(f"site {report.site} {report.elsewhere}")
    if report.embedded_pids:
        pids = f"(pid {', '.join(map(str, report.embedded_pids))}): edge-video run adopts"
        if len(report.embedded_pids) == 1:
            text = f"its embedded server still runs with its frames {pids} it, edge-video clean ends it"
        else:
            text = f"its embedded servers still run with their frames {pids} them, edge-video clean ends them"
        lines.append(text)
    return [part for line in lines for part in wrapped(line, width)]


def live_lines(report: SiteReport, width: int, lines_max: int) -> list[Text]:
    """As much of the site as fits. If not all cameras fit, those in trouble come first."""
    lines = headline(report, width)
    room = lines_max - sum(map(_height(width), lines))
    cameras = report.cameras
    blocks = _cameras(cameras, width)
    heights = [sum(map(_height(width), block)) for block in blocks]
    if sum(heights) > room:
        cameras = sorted(cameras, key=lambda camera: camera.state == "active")
        blocks = _cameras(cameras, width)
    shown: list[list[Text]] = []
    for block in blocks:
        room -= sum(map(_height(width), block))
        # Keep one line for "and N more".
        if room < (1 if len(shown) < len(blocks) - 1 else 0):
            break
        shown.append(block)
    lines += [line for block in shown for line in block]
    if len(shown) < len(blocks):
        lines.append(Text(f"and {len(blocks) - max(len(shown), 1)} more", style="dim"))
    return lines


def headline(report: SiteReport, width: int) -> list[Text]:
    """The state of the site: a line that says what is away, a line of figures, then the reasons."""
    return [part for text, style in _headline(report) for part in wrapped(text, width, style)]


def _headline(report: SiteReport) -> list[tuple[str, str]]:
    """The lines of the headline, whatever their length, and their styles."""
    cameras = report.cameras
    dropped, video = sum(sum(camera.dropped.values()) for camera in cameras), report.video
    figures = [
        f"{sum(camera.fps for camera in cameras):,.0f} fps",
        f"{sum(camera.stored for camera in cameras):,} stored",
        f"{dropped:,} dropped",
        f"p50 {report.latency_ms.p50:.1f} ms, p99 {report.latency_ms.p99:.1f} ms",
    ]
    if report.publisher:
        figures.append(f"{report.publisher.confirmed:,} announced")
    lines = [first_line(report), ("   ".join(figures), "yellow" * bool(dropped))]
    if video:
        figures = [
            f"video of {video.cameras}: {video.packet_fps:,.0f} packets/s",
            f"{video.stored:,} stored",
            f"{video.dropped:,} dropped",
            f"p50 {video.latency_ms.p50:.1f} ms, p99 {video.latency_ms.p99:.1f} ms",
        ]
        lines.append(("   ".join(figures), "yellow" * bool(video.dropped)))
    return lines + reasons(report)


def first_line(report: SiteReport) -> tuple[str, str]:
    """How many cameras are active, and what is away; and its style."""
    cameras = report.cameras
    active = sum(camera.state == "active" for camera in cameras)
    first = f"{report.site}: {active} of {len(cameras)} cameras active"
    for server in dict.fromkeys(outage.server for outage in report.outages):
        longest = max(outage.seconds for outage in report.outages if outage.server == server)
        first += f", {server} away for {duration(longest)}"
        if any(outage.role == "writer" for outage in report.outages if outage.server == server):
            first += _rings(report.rings_last_seconds)
    down = [one.name for one in report.processes if not one.camera and not one.alive]
    first += "".join(f", {name} is down" for name in down)
    lag = report.publisher.lag_seconds if report.publisher else 0.0
    if lag >= _LAG_SECONDS:
        first += f", events {duration(lag)} behind"
    trouble = bool(report.outages or down or lag >= _LAG_SECONDS)
    return first, "bold red" if trouble else "bold"


def reasons(report: SiteReport) -> list[tuple[str, str]]:
    """What is wrong with the site as a whole, a sentence and its style each."""
    lines = []
    for outage in report.outages:
        since = datetime.fromtimestamp(outage.since / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        lines.append((f"  {outage.server} away for the {outage.role} since {since}: {outage.error}", "red"))
    lines += [
        (f"  {alert.severity}: {alert.text}", "red" if alert.severity == "critical" else "yellow")
        for alert in report.alerts
    ]
    if report.writer.contested:
        count = report.writer.contested
        text = f"{count} camera{' is' if count == 1 else 's are'} stored by another site, too, under the same names"
        lines.append((f"{text}; the log says which site", "bold red"))
    if report.file_differs:
        what = "; ".join(report.file_differs)
        lines.append((f"the site file differs from what runs: {what}; a restart applies it", "yellow"))
    return lines


def duration(seconds: float) -> str:
    """A duration in one rounded unit."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def count(number: int) -> str:
    """A count in at most ten characters, so that a table keeps to 80 columns. A count of a year has all its digits in
    ``--json``."""
    if number < _COUNT_MAX:
        return f"{number:,}"
    for size, unit in ((10**6, "M"), (10**9, "G"), (10**12, "T")):
        if number < 10_000 * size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:.2e}"


def _rings(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f", rings last {duration(seconds)} more" if seconds >= 1 else ", rings are full and frames are lost"


def _cameras(cameras: list[CameraReport], width: int) -> list[list[Text]]:
    """The header's line, and the lines of each camera."""
    rows = [(_camera_row(camera), *([_video_row(camera, camera.video)] if camera.video else [])) for camera in cameras]
    told = any(camera.clock_offset_seconds is not None for camera in cameras)
    columns = (*_CAMERA_COLUMNS, *_CLOCK_COLUMNS) if told else _CAMERA_COLUMNS
    header, *laid = layout(columns, list(itertools.chain.from_iterable(rows)), width)
    lines = iter(laid)
    return [header, *([line for _ in own for line in next(lines)] for own in rows)]


def _camera_row(camera: CameraReport) -> Row:
    below = camera.last_error
    if below and camera.since:
        below = f"for {duration(max(time.time_ns() - camera.since, 0) / 1e9)}: {below}"
    if below and camera.consecutive_failures > 1:
        below = f"{camera.consecutive_failures:,} tries {below}"
    made = {"key": "key frames", "none": "no JPEGs"}.get(camera.decode, camera.mode)
    return Row(
        (
            camera.id,
            camera.state,
            f"{camera.codec} {made}".strip(),
            f"{camera.width}x{camera.height}" if camera.width else "",
            f"{camera.fps:.1f}",
            *_flow_cells(camera),
            "" if camera.clock_offset_seconds is None else f"{camera.clock_offset_seconds:+,.2f}",
            "" if camera.clock_drift_ppm is None else f"{camera.clock_drift_ppm:+.0f}",
        ),
        below or camera.note or _clock_note(camera.clock_offset_seconds),
        STATE_STYLES.get(camera.state, ""),
    )


def _video_row(camera: CameraReport, video: VideoReport) -> Row:
    interval = f"key {camera.key_interval_seconds:.1f} s" if camera.key_interval_seconds else ""
    return Row(("  video", interval, "as sent", "", f"{camera.packet_fps:.1f}", *_flow_cells(video), "", ""))


def _clock_note(offset: float | None) -> str:
    if offset is None or abs(offset) <= CLOCK_SECONDS_MAX:
        return ""
    return (
        f"its clock is {duration(abs(offset))} {'ahead of' if offset > 0 else 'behind'} ours: set its time server (NTP)"
    )


def _flow_cells(flow: CameraReport | VideoReport) -> tuple[str, ...]:
    return (
        count(flow.captured),
        count(flow.stored),
        count(sum(flow.dropped.values())),
        f"{flow.ring.fill:.0%}",
        f"{flow.latency_ms.p50:.1f}",
        f"{flow.latency_ms.p99:.1f}",
    )


def _height(width: int) -> Callable[[Text], int]:
    """Counts the terminal lines that a line takes, with some room because words are not split."""

    def height(line: Text) -> int:
        return max(ceil(cell_len(line.plain) * 1.1 / width), 1) if cell_len(line.plain) > width else 1

    return height
