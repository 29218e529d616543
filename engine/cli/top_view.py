"""The screen of ``top`` as lines of text: the headline of ``status``, cameras, processes; or one camera. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from engine.cli.columns import Column, Row, layout, wrapped
from engine.cli.status_view import STATE_STYLES, duration, headline
from engine.cli.top_keys import View
from engine.cli.top_rates import CameraRates, Rates
from engine.runtime.site_report import SiteReport
from engine.runtime.status_cameras import CameraReport, VideoReport

_COLUMNS = (
    Column("camera"),
    Column("state", right=False),
    Column("fps"),
    Column("stored/s", 3),
    Column("MB/s", 2),
    Column("drops/s"),
    Column("ring", 1),
    Column("p99 ms", 1),
    Column("cpu %", 2),
    Column("size", 4),
    Column("source", 5, right=False),
)
_PROCESSES = (Column("process"), Column("pid"), Column("cpu %"), Column("restarts"), Column("heartbeat s", 1))
#: Lines that the headline may take; a site with many reasons to complain must leave room for its cameras.
_HEADLINE_LINES_MAX = 8
_BARS = "▁▂▃▄▅▆▇█"
_FOOTER = "q quit  ↑↓ select  Enter follow  s sort  r reverse  / filter  p problems  ? help"
_HELP = (
    ("q", "quit"),
    ("up, down, j, k, PgUp, PgDn, Home, End", "select a camera"),
    ("Enter", "follow the selected camera; up and down then go to the next"),
    ("Esc", "back to the list; in the list, show all cameras"),
    ("s, >, <", "sort by the next or the previous column"),
    ("r", "reverse the order"),
    ("/", "show cameras whose id, name, state or error contains a text"),
    ("p", "show cameras in trouble only"),
    ("Space", "pause"),
    ("?", "this help"),
)
_Line = tuple[str, Text]


def order(report: SiteReport, rates: Rates, view: View) -> list[CameraReport]:
    """The cameras of the list, in their order."""
    text = view.filter.casefold()
    chosen = [
        camera
        for camera in report.cameras
        if text in f"{camera.id}\n{camera.name}\n{camera.state}\n{camera.last_error}".casefold()
        and (not view.problems or _in_trouble(camera, rates))
    ]
    return sorted(chosen, key=lambda camera: _sort_key(camera, rates, view.sort), reverse=view.falling)


def screen(
    report: SiteReport, rates: Rates, fps: Mapping[str, Sequence[float]], view: View, width: int, height: int
) -> list[Text]:
    """The lines of a screen of ``width`` columns and ``height`` lines."""
    foot = [Text(f"filter: {view.filter}▏" if view.typing else _FOOTER, style="bold" if view.typing else "dim")]
    if view.help:
        return _fitted([Text("edge-video top", style="bold"), Text(), *_help(width)], foot, width, height)
    if not report.running:
        lines = [Text(f"site {report.site} is not running; waiting for it", style="bold")]
        return _fitted(lines, foot, width, height)
    head = headline(report, width)
    if len(head) > _HEADLINE_LINES_MAX:
        more = len(head) - _HEADLINE_LINES_MAX + 1
        head = [*head[: _HEADLINE_LINES_MAX - 1], Text(f"  and {more} more lines: edge-video status", style="dim")]
    if view.camera:
        found = next((camera for camera in report.cameras if camera.id == view.camera), None)
        body = _detail(found, rates, fps, width) if found else [Text(f"camera {view.camera} is gone")]
        return _fitted([*head, Text(), *body], foot, width, height)
    cameras = order(report, rates, view)
    processes = _processes(report, rates, width)
    title = _title(view, len(cameras), len(report.cameras))
    room = max(height - len(head) - len(foot) - 2, 2)
    # A third of the screen at most, because there may be many writers.
    below = [Text(), *processes[: max(room // 3, 2)]]
    table = _table(cameras, rates, view, width, max(room - len(below), 1))
    return _fitted([*head, title, *table, *below], foot, width, height)


def page(height: int) -> int:
    """The cameras by which PgUp and PgDn move."""
    return max(height // 2, 1)


def _sort_key(camera: CameraReport, rates: Rates, sort: str) -> tuple[object, str]:
    own = rates.cameras.get(camera.id, CameraRates())
    values: dict[str, object] = {
        "name": camera.id.casefold(),
        "state": camera.state == "active",
        "fps": max(camera.fps, camera.packet_fps),
        "stored/s": own.stored,
        "MB/s": own.bytes,
        "drops/s": own.dropped,
        "ring": _fill(camera),
        "p99 ms": camera.latency_ms.p99,
        "cpu %": own.cpu,
    }
    return values[sort], camera.id


def _in_trouble(camera: CameraReport, rates: Rates) -> bool:
    if camera.finished:
        return False
    return camera.state != "active" or rates.cameras.get(camera.id, CameraRates()).dropped > 0


def _fill(camera: CameraReport) -> float:
    return max(camera.ring.fill, camera.video.ring.fill if camera.video else 0.0)


def _title(view: View, shown: int, cameras: int) -> Text:
    parts = [f"{shown} of {cameras} cameras by {view.sort} {'↓' if view.falling else '↑'}"]
    if view.filter:
        parts.append(f"that contain {view.filter!r}")
    if view.problems:
        parts.append("in trouble only")
    if view.paused:
        parts.append("PAUSED")
    return Text("   ".join(parts), style="cyan")


def _table(cameras: list[CameraReport], rates: Rates, view: View, width: int, room: int) -> list[Text]:
    """The header and as many cameras as fit, the selected one among them."""
    rows = [_row(camera, rates) for camera in cameras]
    header, *blocks = layout(_COLUMNS, rows, width)
    at = next((at for at, camera in enumerate(cameras) if camera.id == view.selected), 0)
    # A label that is too long for its column has a line of its own.
    first = last = at
    used = len(blocks[at]) if blocks else 0
    while used < room - 1 and (first > 0 or last < len(blocks) - 1):
        if last < len(blocks) - 1 and (first == 0 or last - at <= at - first):
            last += 1
            used += len(blocks[last])
        else:
            first -= 1
            used += len(blocks[first])
    lines = list(header)
    for place in range(first, last + 1) if blocks else ():
        for line in blocks[place]:
            if place == at and view.selected:
                line.stylize("reverse")
            lines.append(line)
    return lines[: max(room, 2)]


def _row(camera: CameraReport, rates: Rates) -> Row:
    own = rates.cameras.get(camera.id, CameraRates())
    return Row(
        (
            camera.id,
            camera.state,
            f"{camera.packet_fps if camera.video else camera.fps:.1f}",
            f"{own.stored:.1f}",
            f"{own.bytes / 1e6:.2f}",
            f"{own.dropped:.1f}" if own.dropped else "0",
            f"{_fill(camera):.0%}",
            f"{camera.latency_ms.p99:.1f}",
            f"{own.cpu:.1f}",
            f"{camera.width}x{camera.height}" if camera.width else "",
            f"{camera.codec} {camera.mode}".strip(),
        ),
        style=STATE_STYLES.get(camera.state, ""),
    )


def _processes(report: SiteReport, rates: Rates, width: int) -> list[Text]:
    rows = [
        Row(
            (
                process.name,
                str(process.pid) if process.alive else "down",
                f"{rates.cpu.get(process.name, 0.0):.1f}",
                str(process.restarts),
                f"{process.heartbeat_seconds:.1f}",
            )
        )
        for process in report.processes
        if not process.camera
    ]
    captures = sum(cpu for name, cpu in rates.cpu.items() if name.startswith("capture "))
    rows.append(Row(("all captures", "", f"{captures:.1f}", "", "")))
    return [line for block in layout(_PROCESSES, rows, width) for line in block]


def _detail(camera: CameraReport, rates: Rates, fps: Mapping[str, Sequence[float]], width: int) -> list[Text]:
    own = rates.cameras.get(camera.id, CameraRates())
    name = camera.id if camera.name in ("", camera.id) else f"{camera.id}: {camera.name}"
    lines = wrapped(name, width, "bold")
    since = f" for {duration(max(time.time_ns() - camera.since, 0) / 1e9)}" if camera.since else ""
    lines.append(Text(f"{camera.state}{since}", style=STATE_STYLES.get(camera.state, "")))
    if camera.last_error and camera.state != "active":
        lines += wrapped(camera.last_error, width, "red")
    if camera.note:
        lines += wrapped(camera.note, width)
    size = f"{camera.width}x{camera.height}" if camera.width else "unknown size"
    decode = f", JPEGs of {camera.decode}" if camera.decode else ""
    facts = [
        ("source", f"{camera.codec or 'unknown codec'} {camera.mode}, {size}{decode}"),
        ("connections", f"{camera.connects:,}"),
        (
            "now",
            f"{own.stored:.1f} stored/s, {own.bytes / 1e6:.2f} MB/s, {own.dropped:.1f} drops/s, {own.cpu:.1f} % CPU",
        ),
        ("frames", f"{camera.fps:.1f} fps, {_flow(camera)}"),
    ]
    if camera.video:
        facts.append(("video", f"{camera.packet_fps:.1f} packets/s, {_flow(camera.video)}"))
        facts.append(("key frames", f"every {camera.key_interval_seconds:.1f} s"))
    if camera.clock_offset_seconds is not None:
        facts.append(("clock", f"{camera.clock_offset_seconds:+.2f} s against ours"))
    for label, text in facts:
        first, *rest = wrapped(text, max(width - 14, 20))
        lines.append(Text(f"{label:<14}", style="dim") + first)
        lines += [Text(" " * 14) + line for line in rest]
    values = list(fps.get(camera.id, ()))[-max(width - 14, 1) :]
    if values:
        lines.append(Text(f"{'fps, by look':<14}", style="dim") + Text(spark(values), style="green"))
    return lines


def _flow(flow: CameraReport | VideoReport) -> str:
    drops = ", ".join(f"{count:,} {reason}" for reason, count in flow.dropped.items() if count)
    late = flow.latency_ms
    return (
        f"{flow.captured:,} captured, {flow.stored:,} stored, dropped {drops or 'none'}; "
        f"ring {flow.ring.fill:.0%}; to Redis p50 {late.p50:.1f} ms, p99 {late.p99:.1f} ms"
    )


def spark(values: Sequence[float]) -> str:
    """Values as bars, the largest of them a full one."""
    most = max(values, default=0.0)
    return "".join(_BARS[round(value / most * (len(_BARS) - 1))] if most > 0 else _BARS[0] for value in values)


def _help(width: int) -> list[Text]:
    lines: list[Text] = []
    for keys, text in _HELP:
        lines += wrapped(f"{keys}: {text}", width)
    return lines


def _fitted(lines: list[Text], foot: list[Text], width: int, height: int) -> list[Text]:
    """All lines on one screen, the foot at its end. Lines that are too wide or too many are cut: the terminal would
    scroll otherwise."""
    room = max(height - len(foot), 1)
    shown = lines[:room]
    shown += [Text()] * (room - len(shown))
    shown += foot
    for line in shown:
        if cell_len(line.plain) > width:
            line.truncate(width, overflow="ellipsis")
    return shown[:height]
