"""Tables for people."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine.config import Config, Secret
from engine.runtime.status import CameraReport, SiteReport, collect
from engine.shm.site import SitePaths
from engine.wire.urls import mask

#: Seconds between pictures of the live table.
_REFRESH_SECONDS = 0.5
_STATE_STYLES = {"active": "green", "stalled": "yellow", "offline": "red", "connecting": "dim"}
#: Lines that a table needs besides its cameras.
_FRAME_LINES = 8


class LiveTable:
    """The site on a terminal, redrawn in place by ``refresh``, which may be called as often as one likes."""

    def __init__(self, config: Config, footer: str) -> None:
        self._config = config
        self._footer = footer
        self._console = Console(markup=False, emoji=False, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._next = 0.0

    def __enter__(self) -> LiveTable:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def refresh(self) -> None:
        """Draw the site anew, where the last picture is old enough."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _REFRESH_SECONDS
        report = collect(self._config, memory=False)
        rows = max(self._console.height - _FRAME_LINES, 3)
        self._live.update(
            Group(_headline(report), _camera_table(report, rows), Text(self._footer, style="dim")), refresh=True
        )


def print_status(console: Console, report: SiteReport) -> None:
    """A running site: headline, cameras, processes."""
    if not report.running:
        console.print(f"site {report.site} is not running", soft_wrap=True)
        if report.elsewhere:
            console.print(f"site {report.site} {report.elsewhere}", soft_wrap=True)
        if report.embedded_pid:
            text = f"its embedded server still runs with its frames (pid {report.embedded_pid}): edge-video run goes on"
            console.print(f"{text} with it, edge-video clean ends it", soft_wrap=True)
        return
    console.print(_headline(report))
    if report.writer.contested:
        count = report.writer.contested
        text = f"{count} camera{' is' if count == 1 else 's are'} stored by another site, too, under the same names"
        console.print(f"{text}; the log says which site", soft_wrap=True, style="bold red")
    console.print(_camera_table(report, len(report.cameras)))
    table = Table(box=None, header_style="dim")
    for name in ("process", "pid", "cpu s", "cpu %", "memory MB", "restarts", "heartbeat s"):
        table.add_column(name, justify="left" if name == "process" else "right")
    for process in report.processes:
        table.add_row(
            f"{process.role} {process.camera}".strip(),
            str(process.pid) if process.alive else "-",
            f"{process.cpu_seconds:.1f}",
            f"{process.cpu_percent:.1f}",
            f"{process.memory_mb:.1f}",
            str(process.restarts),
            f"{process.heartbeat_seconds:.1f}",
        )
    console.print(table)
    if report.publisher:
        publisher = report.publisher
        console.print(
            f"publisher: {'connected' if publisher.connected else 'not connected'}, {publisher.published} published, "
            f"{publisher.confirmed} confirmed, {publisher.expired} expired, lag {publisher.lag_seconds:.2f} s"
        )


def print_site(console: Console, config: Config, need: int, have: int) -> None:
    """A site as it will run."""
    table = Table(box=None, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("site", f"{config.site.name}, run directory {config.run_directory}")
    table.add_row(
        "redis", f"{config.redis_address if not config.embedded else 'embedded'}, TTL {config.redis.ttl_seconds} s"
    )
    table.add_row("keys", f"{config.vhost}:{config.prefix}:<camera>:<unix_nano>:<sequence>")
    table.add_row("amqp", mask(config.amqp.amqp_url) if config.publishes else "none; metadata stays in the journals")
    table.add_row("exchange", f"{config.metadata.exchange} ({config.metadata.format})" if config.publishes else "-")
    table.add_row("writers", f"{config.writer.writers}")
    fits = "fits" if need <= have else "does not fit"
    table.add_row(
        "memory", f"{need / 2**20:,.0f} MiB of {have / 2**20:,.0f} MiB in {config.ring.directory} ({fits}); "
        f"{SitePaths.of(config).directory}",
    )  # fmt: skip
    console.print(table)
    cameras = Table(box=None, header_style="dim")
    for name in ("camera", "name", "url", "fps", "size", "quality", "encoding", "transport"):
        cameras.add_column(name, overflow="fold")
    for camera in config.cameras:
        cameras.add_row(
            camera.id,
            camera.name,
            mask(camera.url),
            f"{camera.fps:g}" if camera.fps else "as sent",
            f"{camera.width}x{camera.height}" if camera.width else "as sent",
            str(camera.quality),
            camera.encoding,
            camera.transport if camera.kind == "rtsp" else "-",
        )
    console.print(cameras)
    for warning in config.warnings:
        console.print(f"warning: {warning}", style="yellow")


def masked(config: Config) -> dict[str, Any]:
    """The configuration as plain data, without its secrets."""

    def plain(value: Any) -> Any:
        if isinstance(value, Secret):
            return "***" if value else ""
        if isinstance(value, str):
            return mask(value)
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    document: dict[str, Any] = {}
    for name in config.__struct_fields__:
        value = getattr(config, name)
        if isinstance(value, msgspec.Struct):
            value = msgspec.structs.asdict(value)
        elif name == "cameras":
            value = [msgspec.structs.asdict(camera) for camera in value]
        document[name] = plain(value)
    document["redis"]["resolved"] = str(config.redis_address)
    document["vhost"] = config.vhost
    document["run_directory"] = str(config.run_directory)
    return document


def _headline(report: SiteReport) -> Text:
    cameras = report.cameras
    active = sum(camera.state == "active" for camera in cameras)
    stored = sum(camera.stored for camera in cameras)
    dropped = sum(sum(camera.dropped.values()) for camera in cameras)
    fps = sum(camera.fps for camera in cameras)
    parts = [
        f"{report.site}: {active} of {len(cameras)} cameras active",
        f"{fps:,.0f} fps",
        f"{stored:,} stored",
        f"{dropped:,} dropped",
        f"p50 {report.latency_ms.p50:.1f} ms, p99 {report.latency_ms.p99:.1f} ms",
    ]
    if report.publisher:
        parts.append(f"{report.publisher.confirmed:,} announced")
    return Text("   ".join(parts), style="bold" if not dropped else "bold yellow")


def _camera_table(report: SiteReport, rows: int) -> Table:
    table = Table(box=None, header_style="dim")
    for name in (
        "camera",
        "state",
        "source",
        "size",
        "fps",
        "captured",
        "stored",
        "dropped",
        "ring",
        "p50 ms",
        "p99 ms",
        "",
    ):
        table.add_column(name, justify="left" if name in ("camera", "state", "source", "") else "right")
    # Where not all fit, those in trouble come first.
    shown = report.cameras
    if len(shown) > rows:
        shown = sorted(shown, key=lambda camera: camera.state == "active")[:rows]
    for camera in shown:
        table.add_row(*_camera_row(camera))
    if len(shown) < len(report.cameras):
        table.add_row(f"and {len(report.cameras) - len(shown)} more", style="dim")
    return table


def _camera_row(camera: CameraReport) -> list[str | Text]:
    return [
        camera.id,
        Text(camera.state, style=_STATE_STYLES.get(camera.state, "")),
        f"{camera.codec} {camera.mode}".strip(),
        f"{camera.width}x{camera.height}" if camera.width else "",
        f"{camera.fps:.1f}",
        f"{camera.captured:,}",
        f"{camera.stored:,}",
        f"{sum(camera.dropped.values()):,}",
        f"{camera.ring.fill:.0%}",
        f"{camera.latency_ms.p50:.1f}",
        f"{camera.latency_ms.p99:.1f}",
        Text(camera.last_error[:60], style="dim"),
    ]
