"""``edge-video frames``: shows and exports stored frames."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.cells import cell_len, set_cell_size
from rich.table import Table

from engine.cli import output
from engine.cli.export import End, Limit, Start, Step, export, fixed_times, nothing
from engine.cli.options import AsJson, Force, Prefix, RedisUrl, SiteFile, Vhost, resolve
from engine.client.frame import Frame, FrameEntry
from engine.client.stats import Bucket
from engine.client.store import FrameStore
from engine.errors import InputError, QueryError, WireError
from engine.wire import keys
from engine.wire.rfc3339 import NANO, rfc3339

frames = typer.Typer(no_args_is_help=True, help="Read stored frames: latest, by key, by time, live, as files.")
frames.command()(export)

Camera = Annotated[str, typer.Argument(help="The camera's id.", metavar="CAM")]
AnyCamera = Annotated[str | None, typer.Argument(help="The camera's id. Default: all cameras.", metavar="CAM")]
Out = Annotated[
    str | None, typer.Option("--out", "-o", help="Write the JPEG to this file; - is standard output.", metavar="FILE")
]
_STDOUT = "-"
#: Eighths of a character cell, for bars.
_BLOCKS = " ▏▎▍▌▋▊▉█"
_BAR_WIDTH_MIN = 10


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
            output.print_json(_fields(frame) | {"age_seconds": _age(frame)})
        return
    table = Table(box=None, header_style="dim")
    for name in ("camera", "time", "age s", "bytes", "size", "key"):
        table.add_column(name, justify="right" if name in ("age s", "bytes", "size") else "left", overflow="fold")
    for frame in snapshot.values():
        when, size = rfc3339(frame.unix_nano), f"{frame.width}x{frame.height}"
        table.add_row(_plain(frame.camera), when, f"{_age(frame):.1f}", f"{frame.size:,}", size, frame.key)
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
        rows = _Rows(cameras, json=json)
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
    _tell_losses(missing, unreadable)
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
        _print_bars(buckets)
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
        rows = _Rows(cameras or store.cameras(), json=json)
        printed = 0
        while not stop.asked and (limit is None or printed < limit):
            entry = entries.poll()
            if entry is not None:
                rows.print(entry)
                sys.stdout.flush()
                printed += 1
    _tell_losses(entries.missing, entries.unreadable)


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


class _Rows:
    """Prints entries at once, as aligned rows below a header or as JSON lines."""

    def __init__(self, cameras: Iterable[str], *, json: bool) -> None:
        self._json = json
        self._width = max((cell_len(_plain(camera)) for camera in cameras), default=0)
        self._width = max(self._width, len("camera"))
        self._begun = False

    def print(self, entry: FrameEntry) -> None:
        """Print an entry; before the first, the header."""
        if self._json:
            output.print_json(_fields(entry))
            return
        if not self._begun:
            self._begun = True
            header = self._row("time", "camera", "number", "bytes", "size", "key")
            output.console().print(header, style="dim", soft_wrap=True)
        size = f"{entry.width}x{entry.height} {entry.encoding}"
        number, length = f"{entry.sequence:05d}", f"{entry.size:,}"
        row = self._row(rfc3339(entry.unix_nano), _plain(entry.camera), number, length, size, entry.key)
        sys.stdout.write(row + "\n")

    def _row(self, when: str, camera: str, number: str, length: str, size: str, key: str) -> str:
        name = set_cell_size(camera, max(self._width, cell_len(camera)))
        return f"{when:30}  {name}  {number:6}  {length:>10}  {size:14}  {key}"


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
    fields: dict[str, Any] = _fields(frame) | {"age_seconds": _age(frame)}
    if out is not None:
        with output.whole_file(Path(out), force=force) as partial:
            partial.write_bytes(frame.data)
            os.utime(partial, ns=(frame.unix_nano, frame.unix_nano))
        fields["file"] = out
    if json:
        output.print_json(fields)
    elif out is not None:
        print(f"{out}: {frame.size:,} bytes, {rfc3339(frame.unix_nano)}, {frame.key}")
    else:
        table = Table(box=None, show_header=False)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        table.add_row("key", frame.key)
        table.add_row("camera", _plain(frame.camera))
        table.add_row("time", rfc3339(frame.unix_nano))
        table.add_row("age", f"{_age(frame):.1f} s")
        table.add_row("size", f"{frame.size:,} bytes, {frame.width}x{frame.height} {frame.encoding}")
        output.console().print(table)


def _fields(entry: FrameEntry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "camera": entry.camera,
        "time": rfc3339(entry.unix_nano),
        "timestamp_nano": entry.unix_nano,
        "sequence": entry.sequence,
        "size": entry.size,
        "width": entry.width,
        "height": entry.height,
        "encoding": entry.encoding,
    }


def _print_bars(buckets: list[Bucket]) -> None:
    """Print one line per bucket. The longest bar, for the most frames, fills the terminal."""
    console = output.console()
    whole = all(bucket.start_nano % NANO == 0 for bucket in buckets)
    most = max(bucket.frames for bucket in buckets)
    blocks = (console.encoding or "").startswith("utf")
    head = f"{'time':{20 if whole else 30}}  {'frames':>8}  {'mean bytes':>10}  "
    width = max(console.width - len(head), _BAR_WIDTH_MIN)
    console.print(head.rstrip(), style="dim", soft_wrap=True)
    for bucket in buckets:
        when = rfc3339(bucket.start_nano)
        when = f"{when[:19]}Z" if whole else when
        full, part = divmod(bucket.frames * width * 8 // most, 8)
        bar = _BLOCKS[-1] * full + _BLOCKS[part].strip() if blocks else "#" * full
        sys.stdout.write(f"{when}  {bucket.frames:8,}  {bucket.mean_bytes:10,.0f}  {bar}".rstrip() + "\n")
    sys.stdout.flush()


def _tell_losses(missing: int, unreadable: int) -> None:
    if missing:
        print(f"edge-video: {missing:,} older frames have expired and are left out", file=sys.stderr)
    if unreadable:
        print(f"edge-video: {unreadable:,} entries were met that the engine did not write", file=sys.stderr)


def _age(frame: FrameEntry) -> float:
    return round((time.time_ns() - frame.unix_nano) / NANO, 3)


def _plain(name: str) -> str:
    """A name without characters that would control the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
