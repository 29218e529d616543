"""Tables for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine.cli.status_view import live_lines, status_lines
from engine.config import Config, Secret
from engine.config.memory import MemoryNeed
from engine.runtime.site_report import SiteReport
from engine.runtime.status import collect
from engine.runtime.streams import leave_terminal
from engine.shm.site import SitePaths
from engine.wire import keys
from engine.wire.urls import mask

#: Seconds between two drawings of the live table.
_REFRESH_SECONDS = 0.5
#: Lines of the terminal that the table must not use: for its footer and the prompt.
_FRAME_LINES = 3


class LiveTable:
    """The site on a terminal. ``refresh`` redraws it in place and may be called at any rate."""

    def __init__(self, config: Config, footer: str) -> None:
        self._config = config
        self._footer = footer
        self._console = Console(markup=False, emoji=False, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._next = 0.0
        self._gone = False

    def __enter__(self) -> LiveTable:
        self._draw(self._live.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draw(self._live.stop)

    def _draw(self, step: Callable[[], None]) -> None:
        """Write to the terminal. It may go away at any moment; the site then continues without it."""
        try:
            step()
        except OSError:
            self._gone = True
            leave_terminal()

    def refresh(self) -> None:
        """Redraw the site if the last drawing is old enough."""
        now = time.monotonic()
        if self._gone or now < self._next:
            return
        self._next = now + _REFRESH_SECONDS
        report = collect(self._config, memory=False)
        lines = live_lines(report, self._console.width, max(self._console.height - _FRAME_LINES, 3))
        table = Group(*lines, Text(self._footer, style="dim"))
        self._draw(lambda: self._live.update(table, refresh=True))


def print_status(console: Console, report: SiteReport) -> None:
    """Print a running site: headline, cameras, processes. A terminal wraps lines that are too long; other output has no
    limit."""
    width = console.width if console.is_terminal else sys.maxsize
    for line in status_lines(report, width):
        console.print(line, soft_wrap=True)


def print_site(console: Console, config: Config, need: int, have: int, memory: MemoryNeed, most: int | None) -> None:
    """Print a site as it will run."""
    table = Table(box=None, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("site", f"{config.site.name}, run directory {config.run_directory}")
    table.add_row(
        "redis", f"{config.redis_address if not config.embedded else 'embedded'}, TTL {config.redis.ttl_seconds} s"
    )
    table.add_row("keys", f"{config.vhost}:{config.prefix}:<camera>:<unix_nano>:<sequence>")
    if any(camera.video for camera in config.cameras):
        root, ttl_seconds = keys.video_root(config.vhost, config.prefix), config.ttl_seconds(video=True)
        table.add_row("video", f"{root}<camera>:<unix_nano>:<sequence>, TTL {ttl_seconds} s")
    table.add_row("amqp", mask(config.amqp.amqp_url) if config.publishes else "none; metadata stays in the journals")
    formats = f"{config.metadata.format}{', GOPs of video' if config.publishes_video else ''}"
    table.add_row("exchange", f"{config.metadata.exchange} ({formats})" if config.publishes else "-")
    table.add_row("writers", f"{config.writer.writers}")
    fits = "fits" if need <= have else "does not fit"
    table.add_row(
        "memory", f"{need / 2**20:,.0f} MiB of {have / 2**20:,.0f} MiB in {config.ring.directory} ({fits}); "
        f"{SitePaths.of(config).directory}",
    )  # fmt: skip
    table.add_row("redis memory", _memory(memory, most, config))
    console.print(table)
    cameras = Table(box=None, header_style="dim")
    decodes = any(camera.video or camera.decode != "auto" for camera in config.cameras)
    for name in ("camera", "name", "url", "fps", "size", "quality", "encoding", "transport"):
        cameras.add_column(name, overflow="fold")
    if decodes:
        cameras.add_column("decode", overflow="fold")
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
            *([f"{camera.decode}{', video' if camera.video else ''}"] if decodes else []),
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


def _memory(need: MemoryNeed, most: int | None, config: Config) -> str:
    """The Redis memory that frames and video need, next to the server's limit."""
    text = f"about {need.bytes / 2**20:,.0f} MiB for {need.frames:,} frames"
    text += f" ({need.frames_per_second:,.0f}/s, {config.ttl_seconds(video=False)} s)"
    if need.packets:
        text += f" and {need.packets:,} packets of video ({need.packets_per_second:,.0f}/s, "
        text += f"{config.ttl_seconds(video=True)} s, {need.video_bytes / 2**20:,.0f} MiB)"
    if most is not None:
        text += f"; maxmemory will be {most / 2**20:,.0f} MiB ({'fits' if need.bytes <= most else 'does not fit'})"
    else:
        text += "; maxmemory of a server of your own should be a quarter more"
    if need.assumed:
        text += f"; {need.caveat}, which edge-video doctor measures"
    return text
