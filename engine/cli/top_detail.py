"""One camera on the whole screen of ``edge-video top``, and the list of keys. Pure."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text

from engine.cli.columns import wrapped
from engine.cli.status_view import STATE_STYLES, duration
from engine.cli.top_rates import CameraRates, sparkline
from engine.runtime.status_cameras import CameraReport, VideoReport
from engine.runtime.status_rings import RingStatus

_LABEL = 12
HELP = (
    "up, down, j, k          select a camera; PgUp, PgDn, Home, End, g, G farther",
    "Enter                   follow the selected camera; Esc goes back",
    "s, >, right; <, left    sort by the next column, by the one before",
    "r                       reverse the order",
    "/                       filter: text in id, name or state; Enter keeps it, Esc clears it",
    "p                       only cameras with a problem: not active, dropping, ring half full, errors",
    "space                   pause and go on",
    "h, ?                    this list",
    "q, Ctrl-C               quit",
)


def detail_lines(
    camera: CameraReport, rates: CameraRates, fps: list[float], now_nano: int, width: int, blocks: str
) -> list[Text]:
    """All that is known of a camera."""
    lines: list[Text] = []

    def field(name: str, text: str, style: str = "") -> None:
        first, *rest = wrapped(text, max(width - _LABEL, 1), style)
        lines.append(Text(f"{name:{_LABEL}}", style="dim") + first)
        lines.extend(Text(" " * _LABEL) + line for line in rest)

    field("camera", f"{camera.id}  {camera.name}".rstrip(), "bold")
    since = f" for {duration(max(now_nano - camera.since, 0) / 1e9)}" if camera.since else ""
    field("state", f"{camera.state}{since}, {camera.connects:,} connects", STATE_STYLES.get(camera.state, ""))
    if camera.last_error:
        tries = f"{camera.consecutive_failures:,} tries: " if camera.consecutive_failures > 1 else ""
        field("error", f"{tries}{camera.last_error}", "yellow")
        # The error ends with its advice where that is known.
        if camera.advice and not camera.last_error.endswith(camera.advice):
            field("advice", camera.advice)
    if camera.note:
        field("note", camera.note)
    size = f"{camera.width}x{camera.height}  " if camera.width else ""
    field("source", f"{size}{camera.codec} {camera.mode} {camera.decode and f'decode {camera.decode}'}".strip())
    packets = f", {camera.packet_fps:.1f} packets/s" if camera.packet_fps else ""
    keys = f", key frames {camera.key_interval_seconds:.1f} s apart" if camera.key_interval_seconds else ""
    field("rate", f"{camera.fps:.1f} fps{packets}{keys}, {rates.bytes / 1e6:.2f} MB/s")
    if fps:
        field("", f"{sparkline(fps, width - _LABEL, blocks)}")
        field("", f"fps of the last {len(fps):,} looks: {min(fps):.1f} to {max(fps):.1f}", "dim")
    _flow(field, "frames", camera, camera.ring)
    if camera.video:
        _flow(field, "video", camera.video, camera.video.ring)
    field("dropped", _drops(camera, rates), "yellow" if rates.dropped else "")
    if rates.cpu is not None:
        field("cpu", f"{rates.cpu:.1f} % of a core")
    if camera.clock_offset_seconds is not None:
        drift = "" if camera.clock_drift_ppm is None else f", drift {camera.clock_drift_ppm:+.0f} ppm"
        field("clock", f"{camera.clock_offset_seconds:+,.2f} s from ours{drift}")
    return lines


def _flow(field: Callable[[str, str], None], name: str, flow: CameraReport | VideoReport, ring: RingStatus) -> None:
    size = flow.captured_bytes / flow.captured / 1000 if flow.captured else 0.0
    latency = flow.latency_ms
    field(name, f"{flow.captured:,} captured of {size:.1f} KB, {flow.stored:,} stored")
    lasts = "" if ring.lasts_seconds is None else f", lasts {duration(ring.lasts_seconds)} more"
    field("  ring", f"{ring.fill:.0%} of {ring.capacity_bytes / 1e6:.1f} MB, {ring.held:,} held{lasts}")
    field("  latency", f"p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms, longest {latency.max:.1f} ms")


def _drops(camera: CameraReport, rates: CameraRates) -> str:
    totals = dict(camera.dropped)
    for reason, number in (camera.video.dropped if camera.video else {}).items():
        totals[reason] = totals.get(reason, 0) + number
    parts = [
        f"{number:,} {reason}" + (f" ({rates.drops[reason]:.1f}/s)" if rates.drops.get(reason) else "")
        for reason, number in totals.items()
        if number
    ]
    return ", ".join(parts) or "none"
