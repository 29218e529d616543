"""A site as ``edge-video check`` shows it: what it will be, what it needs, and its cameras."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.cli.columns import Column, Row, layout, needed_width
from engine.config import Config, Secret
from engine.config.memory import MemoryNeed
from engine.shm.site import SitePaths
from engine.wire import keys
from engine.wire.urls import mask

_CAMERA_COLUMNS = tuple(
    Column(name, right=False) for name in ("camera", "fps", "size", "quality", "encoding", "transport", "decode")
)
#: Most columns of the terminal for a camera's id where names and URLs are below: a line then fits in 80.
_ID_MAX = 16
#: If there is room for them in the camera's line.
_LONG_COLUMNS = (Column("name", right=False), Column("url", right=False))


class Sizing(NamedTuple):
    """What a site needs and what there is: bytes of shared memory, memory of Redis, cores. ``maxmemory`` is None if the
    server is not the engine's."""

    shared_need: int
    shared_have: int
    memory: MemoryNeed
    maxmemory: int | None
    need_cores: float
    have_cores: int


def print_site(console: Console, config: Config, sizing: Sizing) -> None:
    """Print a site as it will run."""
    need, have = sizing.shared_need, sizing.shared_have
    table = Table(box=None, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("site", f"{config.site.name}, run directory {config.run_directory}")
    table.add_row(
        "redis", f"{config.redis_address if not config.embedded else 'embedded'}, TTL {config.redis.ttl_seconds} s"
    )
    camera = "{<camera>}" if config.redis.key_tags else "<camera>"
    table.add_row("keys", f"{config.vhost}:{config.prefix}:{camera}:<unix_nano>:<sequence>")
    if any(camera.video for camera in config.cameras):
        root, ttl_seconds = keys.video_root(config.vhost, config.prefix), config.ttl_seconds(video=True)
        table.add_row("video", f"{root}{camera}:<unix_nano>:<sequence>, TTL {ttl_seconds} s")
    table.add_row(
        "amqp", ", ".join(map(mask, config.amqp.urls)) if config.publishes else "none; metadata stays in the journals"
    )
    formats = f"{config.metadata.format}{', GOPs of video' if config.publishes_video else ''}"
    table.add_row("exchange", f"{config.metadata.exchange} ({formats})" if config.publishes else "-")
    table.add_row("writers", f"{config.writer.writers}")
    if config.publisher.publishers > 1 and config.publishes:
        table.add_row("publishers", f"{config.publisher.publishers}")
    fits = "fits" if need <= have else "does not fit"
    table.add_row(
        "memory", f"{need / 2**20:,.0f} MiB of {have / 2**20:,.0f} MiB in {config.ring.directory} ({fits}); "
        f"{SitePaths.of(config).directory}",
    )  # fmt: skip
    table.add_row("redis memory", _memory(sizing, config))
    table.add_row("cpu", f"about {sizing.need_cores:.2f} of {sizing.have_cores} cores, by what benchmarks measured")
    console.print(table)
    for block in _cameras(config, console.width):
        for line in block:
            console.print(line, soft_wrap=True)
    for warning in config.warnings:
        console.print(f"warning: {warning}", style="yellow")


def _cameras(config: Config, width: int) -> list[list[Text]]:
    """A line for each camera; if it does not fit, the camera's name and URL are below it."""
    decodes = any(camera.video or camera.decode != "auto" for camera in config.cameras)
    columns = _CAMERA_COLUMNS if decodes else _CAMERA_COLUMNS[:-1]
    short = [
        (
            camera.id,
            f"{camera.fps:g}" if camera.fps else "as sent",
            f"{camera.width}x{camera.height}" if camera.width else "as sent",
            str(camera.quality),
            camera.encoding,
            camera.transport if camera.kind == "rtsp" else "-",
            f"{camera.decode}{', video' if camera.video else ''}",
        )[: len(columns)]
        for camera in config.cameras
    ]
    long = [(camera.name, mask(camera.url)) for camera in config.cameras]
    rows = [Row((*cells[:1], *more, *cells[1:])) for cells, more in zip(short, long, strict=True)]
    wide = (*columns[:1], *_LONG_COLUMNS, *columns[1:])
    if needed_width(wide, rows) <= width:
        return layout(wide, rows, width)
    named = ["  ".join(filter(None, more)) for more in long]
    return layout(columns, [Row(cells, below) for cells, below in zip(short, named, strict=True)], width, _ID_MAX)


def _memory(sizing: Sizing, config: Config) -> str:
    """The Redis memory that frames and video need, next to the server's limit."""
    need, most = sizing.memory, sizing.maxmemory
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
