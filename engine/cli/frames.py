"""``edge-video frames``: shows and exports stored frames."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.table import Table

from engine.cli import output
from engine.cli.export import End, Limit, Start, Step, export, fixed_times, nothing
from engine.cli.frames_view import Rows, age, fields, plain, print_bars, tell_losses
from engine.cli.options import AsJson, Force, Prefix, RedisUrl, SiteFile, Vhost, resolve
from engine.client.frame import Frame
from engine.client.store import FrameStore
from engine.errors import InputError, QueryError, WireError
from engine.wire import keys
from engine.wire.rfc3339 import rfc3339

frames = typer.Typer(no_args_is_help=True, help="Read stored frames: latest, by key, by time, live, as files.")
frames.command()(export)

Camera = Annotated[str, typer.Argument(help="The camera's id.", metavar="CAM")]
AnyCamera = Annotated[str | None, typer.Argument(help="The camera's id. Default: all cameras.", metavar="CAM")]
Out = Annotated[
    str | None, typer.Option("--out", "-o", help="Write the JPEG to this file; - is standard output.", metavar="FILE")
]
_STDOUT = "-"


@frames.callback()
def prepare() -> None:
    """Show characters that the terminal's encoding lacks with escapes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@frames.command()
def latest(
    camera: AnyCamera = None,
    out: Out = None,
    force: Force = False,
    config: SiteFile = None,
    redis: RedisUrl = None,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """Show the newest frame of a camera, or write it with -o. Without CAM, list the newest frame of every camera."""
    target = resolve(config, redis, vhost, prefix)
    _check_out(out, force=force, json=json)
    with target.store() as store:
        if camera is not None:
            frame = store.latest(camera)
            if frame is None:
                nothing(f"no frame of camera {camera!r} is stored")
            _show_or_write(frame, out, force=force, json=json)
            return
        if out is not None:
            raise InputError("-o writes the frame of one camera; say which")
        snapshot = store.snapshot()
    if not snapshot:
        nothing(f"no frame of tenant {store.vhost!r} is stored under prefix {store.prefix!r}")
    if json:
        for frame in snapshot.values():
            output.print_json(fields(frame) | {"age_seconds": age(frame)})
        return
    table = Table(box=None, header_style="dim")
    for name in ("camera", "time", "age s", "bytes", "size", "key"):
        table.add_column(name, justify="right" if name in ("age s", "bytes", "size") else "left", overflow="fold")
    for frame in snapshot.values():
        when, size = rfc3339(frame.unix_nano), f"{frame.width}x{frame.height}"
        table.add_row(plain(frame.camera), when, f"{age(frame):.1f}", f"{frame.size:,}", size, frame.key)
    output.console().print(table)


@frames.command()
def get(
    key: Annotated[str, typer.Argument(help="The frame's key, as in events.", metavar="KEY")],
    out: Out = None,
    force: Force = False,
    config: SiteFile = None,
    redis: RedisUrl = None,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """Show the frame of a key, or write it with -o. With --redis, tenant and prefix come from the key."""
    if redis is not None and vhost is prefix is None:
        try:
            vhost, prefix, *_ = keys.parse_frame_key(key)
        except WireError as error:
            raise QueryError(str(error)) from None
    target = resolve(config, redis, vhost, prefix)
    _check_out(out, force=force, json=json)
    with target.store() as store:
        frame = store.get(key)
    if frame is None:
        nothing(f"no frame {key} is stored (any more)")
    _show_or_write(frame, out, force=force, json=json)


@frames.command(name="list")
def list_(
    camera: AnyCamera = None,
    start: Start = None,
    end: End = None,
    limit: Limit = None,
    step: Step = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="List the newest first.")] = False,
    config: SiteFile = None,
    redis: RedisUrl = None,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """List frames without their payloads. Without CAM, list all cameras, one after the other."""
    target = resolve(config, redis, vhost, prefix)
    start, end = fixed_times(start, end)
    missing = unreadable = listed = 0
    with target.store() as store:
        cameras = _chosen(store, camera)
        rows = Rows(cameras, json=json)
        for name in cameras:
            left = None if limit is None else limit - listed
            entries = store.entries(name, start, end, limit=left, step=step, reverse=reverse)
            for entry in entries:
                rows.print(entry)
                listed += 1
            missing += entries.missing
            unreadable += entries.unreadable
    # The reader of a pipe may be gone. Flushing shows that here, where it is handled.
    sys.stdout.flush()
    tell_losses(missing, unreadable)
    if not listed:
        nothing("no frames are stored in that range")


@frames.command()
def count(
    camera: AnyCamera = None,
    start: Start = None,
    end: End = None,
    config: SiteFile = None,
    redis: RedisUrl = None,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """Print the number of frames. Without CAM, count all cameras together (with --json, each camera)."""
    target = resolve(config, redis, vhost, prefix)
    start, end = fixed_times(start, end)
    with target.store() as store:
        counts = {name: store.count(name, start, end) for name in _chosen(store, camera)}
    if json:
        for name, number in counts.items():
            output.print_json({"camera": name, "frames": number})
    else:
        print(sum(counts.values()))
    if not any(counts.values()):
        nothing("no frames are stored in that range")


@frames.command()
def rate(
    camera: Camera,
    start: Start = None,
    end: End = None,
    bucket: Annotated[
        str, typer.Option(help="The time span of each line, such as 10s, 1m or 1h.", metavar="SPAN")
    ] = "1m",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also draw a bar chart.", metavar="FILE.png")] = None,
    force: Force = False,
    config: SiteFile = None,
    redis: RedisUrl = None,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """Show the number and the mean size of frames in each time span. Spans begin at round times, UTC."""
    target = resolve(config, redis, vhost, prefix)
    if out is not None:
        if out.suffix.lower() != ".png":
            raise InputError(f"{out}: the chart is a PNG; give a name that ends in .png")
        output.check_output(out, force=force)
    with target.store() as store:
        buckets = store.rate(camera, start, end, bucket)
    if not buckets:
        nothing(f"no frame of camera {camera!r} is stored in that range")
    if json:
        for one in buckets:
            number = {"frames": one.frames, "bytes": one.bytes, "mean_bytes": one.mean_bytes}
            output.print_json(
                {"camera": camera, "start": rfc3339(one.start_nano), "start_nano": one.start_nano} | number
            )
    else:
        print_bars(buckets)
    if out is not None:
        from engine.client.chart import rate_chart

        with output.whole_file(out, force=force) as partial:
            partial.write_bytes(rate_chart(buckets, f"{camera}: frames per {bucket}"))


@frames.command()
def tail(
    cameras: Annotated[
        list[str] | None, typer.Argument(help="Cameras' ids. Default: all cameras.", metavar="CAM")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Begin at this time, in the forms of list --start. Default: now.", metavar="TIME")
    ] = None,
    limit: Limit = None,
    config: SiteFile = None,
    redis: RedisUrl = None,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """Print each frame's entry as it is stored, until Ctrl-C, SIGTERM or --limit."""
    target = resolve(config, redis, vhost, prefix)
    stop = _Stop()
    with target.store() as store:
        entries = store.tail_entries(cameras or None, since)
        rows = Rows(cameras or store.cameras(), json=json)
        printed = 0
        while not stop.asked and (limit is None or printed < limit):
            entry = entries.poll()
            if entry is not None:
                rows.print(entry)
                sys.stdout.flush()
                printed += 1
    tell_losses(entries.missing, entries.unreadable)


class _Stop:
    """Records SIGINT and SIGTERM, so that no line is cut. A second signal interrupts whatever hangs."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def _chosen(store: FrameStore, camera: str | None) -> list[str]:
    if camera is not None:
        return [camera]
    cameras = list(store.cameras())
    if not cameras:
        nothing(f"no cameras of tenant {store.vhost!r} are known under prefix {store.prefix!r}")
    return cameras


def _check_out(out: str | None, *, force: bool, json: bool) -> None:
    if out is None:
        return
    if out != _STDOUT:
        output.check_output(Path(out), force=force)
    elif json:
        raise InputError("-o - and --json would both write to standard output; give a file's name")
    elif sys.stdout.isatty():
        raise InputError("a JPEG cannot be shown on a terminal; redirect standard output, or give a file's name")


def _show_or_write(frame: Frame, out: str | None, *, force: bool, json: bool) -> None:
    if out == _STDOUT:
        sys.stdout.buffer.write(frame.data)
        sys.stdout.buffer.flush()
        return
    shown: dict[str, Any] = fields(frame) | {"age_seconds": age(frame)}
    if out is not None:
        with output.whole_file(Path(out), force=force) as partial:
            partial.write_bytes(frame.data)
            os.utime(partial, ns=(frame.unix_nano, frame.unix_nano))
        shown["file"] = out
    if json:
        output.print_json(shown)
    elif out is not None:
        print(f"{out}: {frame.size:,} bytes, {rfc3339(frame.unix_nano)}, {frame.key}")
    else:
        table = Table(box=None, show_header=False)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        table.add_row("key", frame.key)
        table.add_row("camera", plain(frame.camera))
        table.add_row("time", rfc3339(frame.unix_nano))
        table.add_row("age", f"{age(frame):.1f} s")
        table.add_row("size", f"{frame.size:,} bytes, {frame.width}x{frame.height} {frame.encoding}")
        output.console().print(table)
