"""The screen of ``edge-video top`` as lines of text, for a terminal of any size. Pure: no clock, no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from engine.cli.columns import Column, Row, layout, printable, wrapped
from engine.cli.status_view import STATE_STYLES, count, duration, first_line, not_running, reasons
from engine.cli.top_detail import HELP, detail_lines
from engine.cli.top_rates import CameraRates, History, Rates, captures_cpu
from engine.cli.top_state import SORTS, View, chosen, dropped, fill, settled
from engine.runtime.site_report import SiteReport
from engine.runtime.status_cameras import CameraReport

#: The smallest screen that is drawn for; a smaller one shows the upper left part of it.
WIDTH_MIN, HEIGHT_MIN = 40, 10
_LABEL_SHARE = 1 / 3
_CAMERA_COLUMNS = (
    Column("camera"),
    Column("state", right=False),
    Column("fps"),
    Column("MB/s", 3),
    Column("stored", 4),
    Column("dropped"),
    Column("/s"),
    Column("ring"),
    Column("p50 ms", 5),
    Column("p99 ms", 1),
    Column("cpu %", 2),
    Column("size", 7),
    Column("source", 6, right=False),
    Column("name", 8, right=False),
)
_PROCESS_COLUMNS = (
    Column("process"),
    Column("pid"),
    Column("cpu %"),
    Column("memory MB", 1),
    Column("restarts"),
    Column("heartbeat s", 2),
)


class Look(NamedTuple):
    """What is known of a site at one time. ``memory`` has MB by process id, as far as it was read."""

    report: SiteReport
    rates: Rates
    history: History
    memory: dict[int, float]
    now_nano: int


class Frame(NamedTuple):
    """A screen: its lines, the view that it shows, and what a key needs to know of it."""

    lines: list[Text]
    view: View
    order: list[str]
    rows: int


def frame(look: Look, view: View, width: int, height: int, blocks: str) -> Frame:
    """The screen: exactly ``height`` lines of at most ``width`` columns. ``blocks`` draw the curve of a camera."""
    width, height = max(width, WIDTH_MIN), max(height, HEIGHT_MIN)
    report, rates = look.report, look.rates
    cameras = chosen(report.cameras, rates, view)
    order = [camera.id for camera in cameras]
    if not report.running:
        lines = [*not_running(report, width), Text(), Text("waiting for it to start", style="dim")]
        return Frame(_screen(lines, view, "", width, height), view, order, 1)
    lines = _header(look, width, height)
    if view.help:
        lines += [Text(), *(part for line in HELP for part in wrapped(line, width))]
        return Frame(_screen(lines, view, "any key returns", width, height), view, order, 1)
    if view.detail:
        view = settled(view, order, 1)
        camera = next((one for one in report.cameras if one.id == view.selected), None)
        if camera is None:
            lines += wrapped(f"camera {view.selected} is no longer part of the site", width, "yellow")
        else:
            curve = look.history.fps(camera.id)
            lines += [Text(), *detail_lines(camera, rates.of(camera.id), curve, look.now_nano, width, blocks)]
        return Frame(_screen(lines, view, "Esc back  up/down next camera  q quit", width, height), view, order, 1)
    processes = _processes(look, width)
    # The footer, the header of the cameras, an empty line above each table.
    room = height - len(lines) - 3
    processes = processes[: max(min(len(processes), room // 3), 0)]
    rows = max(room - len(processes) - (1 if processes else 0), 1)
    view = settled(view, order, rows)
    lines += [Text(), *_cameras(cameras[view.top : view.top + rows], cameras, rates, view, width)]
    if not cameras:
        lines.append(Text("no camera matches" if view.filter or view.problems else "no cameras", style="dim"))
    if processes:
        lines += [Text(), *processes]
    return Frame(_screen(lines, view, _hint(view, len(order), rows), width, height), view, order, rows)


def _header(look: Look, width: int, height: int) -> list[Text]:
    """State, rates and totals; then what is wrong, in at most a quarter of the screen."""
    report, rates = look.report, look.rates
    first, style = first_line(report)
    lines = wrapped(f"{first}, up {duration(report.uptime_seconds)}", width, style)[:2]
    now = [f"{sum(camera.fps for camera in report.cameras):,.0f} fps"]
    if rates.known:
        own = sum(rates.cpu.values())
        now += [
            f"{rates.stored():,.0f} stored/s",
            f"{rates.bytes() / 1e6:,.1f} MB/s",
            f"{rates.dropped():,.1f} dropped/s",
            f"cpu {own:,.0f} %",
        ]
    now.append(f"p50 {report.latency_ms.p50:.1f} ms, p99 {report.latency_ms.p99:.1f} ms")
    lost = sum(map(dropped, report.cameras))
    stored = sum(camera.stored + (camera.video.stored if camera.video else 0) for camera in report.cameras)
    totals = [f"{count(stored)} stored", f"{count(lost)} dropped"]
    if publisher := report.publisher:
        totals.append(f"{count(publisher.confirmed)} announced, {publisher.lag_seconds:.1f} s behind")
        if not publisher.connected:
            totals.append("RabbitMQ is not connected")
    lines += _fitted(now, width, "yellow" if rates.dropped() else "")
    lines += _fitted(totals, width, "")
    wrong = [part for text, style in reasons(report) for part in wrapped(text, width, style)]
    most = max(height // 4, 1)
    if len(wrong) > most:
        wrong = [*wrong[: most - 1], Text(f"  and {len(wrong) - most + 1} more lines: edge-video status", style="dim")]
    return lines + wrong


def _fitted(parts: Sequence[str], width: int, style: str) -> list[Text]:
    """As many of the parts as fit on a line."""
    line = ""
    for part in parts:
        longer = f"{line}   {part}" if line else part
        if cell_len(longer) > width:
            break
        line = longer
    return [Text(line, style=style)]


def _cameras(
    shown: Sequence[CameraReport], all_: Sequence[CameraReport], rates: Rates, view: View, width: int
) -> list[Text]:
    """The header's line and a line for each camera that is shown. The widths are those of all cameras, so that nothing
    moves when the table is scrolled."""
    most = max(int(width * _LABEL_SHARE), 8)
    label = min(max((cell_len(printable(one.id)) for one in all_), default=0), most)
    rows = [_camera_row(camera, rates.of(camera.id), label) for camera in shown]
    widest = Row(("x" * label, "connecting", "120.0", "100.0", "99,999,999", "99,999", "100", "100%", *("9999.9",) * 2,
                  "100", "", "", ""))  # fmt: skip
    header, *lines, _ = layout(_CAMERA_COLUMNS, [*rows, widest], width, label_max=most)
    _mark_sorted(header[0], view)
    for camera, (line, *_) in zip(shown, lines, strict=True):
        if camera.id == view.selected:
            line.append(" " * max(width - cell_len(line.plain), 0))
            line.stylize("reverse")
    return [header[0], *(line for line, *_ in lines)]


def _mark_sorted(header: Text, view: View) -> None:
    at = header.plain.find(view.sort)
    if at >= 0:
        header.stylize("not dim bold underline", at, at + len(view.sort))


def _camera_row(camera: CameraReport, rates: CameraRates, label: int) -> Row:
    return Row(
        (
            shortened(camera.id, label),
            camera.state,
            f"{max(camera.fps, camera.packet_fps):.1f}",
            f"{rates.bytes / 1e6:.1f}",
            count(camera.stored + (camera.video.stored if camera.video else 0)),
            count(dropped(camera)),
            f"{rates.dropped:.0f}" if rates.dropped else "",
            f"{fill(camera):.0%}",
            f"{camera.latency_ms.p50:.1f}",
            f"{camera.latency_ms.p99:.1f}",
            "" if rates.cpu is None else f"{rates.cpu:.0f}",
            f"{camera.width}x{camera.height}" if camera.width else "",
            camera.codec,
            shortened(camera.name, 30),
        ),
        style=STATE_STYLES.get(camera.state, ""),
    )


def shortened(text: str, width: int) -> str:
    """The text in at most ``width`` columns; a longer one ends with a mark. The whole name is in the camera's view."""
    text = printable(text)
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(width - 1, 0)).rstrip() + "~"


def _processes(look: Look, width: int) -> list[Text]:
    """The header's line and a line for each process that is no capture; all captures are one line."""
    report, rates = look.report, look.rates
    captures = [one for one in report.processes if one.camera]
    rows = [
        Row(
            (
                one.name,
                str(one.pid) if one.alive else "-",
                f"{rates.cpu[one.pid]:.0f}" if one.pid in rates.cpu else "",
                f"{look.memory[one.pid]:.0f}" if one.pid in look.memory else "",
                str(one.restarts),
                f"{one.heartbeat_seconds:.1f}",
            ),
            style="" if one.alive else "red",
        )
        for one in sorted(report.processes, key=lambda one: (one.alive, one.name))
        if not one.camera
    ]
    if captures:
        alive = sum(one.alive for one in captures)
        rows.append(
            Row(
                (
                    f"captures: {alive} of {len(captures)}",
                    "",
                    f"{captures_cpu(captures, rates):.0f}" if rates.known else "",
                    f"{sum(look.memory.get(one.pid, 0.0) for one in captures):.0f}" if look.memory else "",
                    str(sum(one.restarts for one in captures)),
                    f"{max((one.heartbeat_seconds for one in captures if one.alive), default=0.0):.1f}",
                )
            )
        )
    return [line for line, *_ in layout(_PROCESS_COLUMNS, rows, width)]


def _hint(view: View, cameras: int, rows: int) -> str:
    """The line at the bottom: what is filtered and sorted, and the keys."""
    if view.typing:
        return f"filter: {view.filter}_   Enter keeps it, Esc clears it"
    parts = [f"{view.top + 1}-{min(view.top + rows, cameras)} of {cameras}"] if cameras > rows else []
    parts.append(f"sort: {view.sort}{', reversed' if view.reverse else ''}")
    if view.filter:
        parts.append(f"filter: {view.filter}")
    if view.problems:
        parts.append("problems only")
    return "  ".join([*parts, "h help  q quit"])


def _screen(lines: list[Text], view: View, hint: str, width: int, height: int) -> list[Text]:
    """The lines, cut or filled to the screen, with the line at the bottom."""
    bottom = f"{'PAUSED  ' if view.paused else ''}{hint or 'q quit'}"
    shown = lines[: height - 1]
    shown += [Text()] * (height - 1 - len(shown))
    shown.append(Text(shortened(bottom, width), style="bold yellow" if view.paused or view.typing else "dim"))
    for line in shown:
        # What is wider than a screen that is too narrow is cut, never wrapped: a wrapped line would move all others.
        line.truncate(width)
    return shown


assert set(SORTS) <= {column.name for column in _CAMERA_COLUMNS}, "each sort is of a column"
