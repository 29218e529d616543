"""``edge-video frames``: shows and exports stored frames."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import output
from engine.cli.export import End, Limit, Start, Step, Video, export, fixed_times
from engine.cli.frames_one import AnyCamera, Camera, get, latest, picture
from engine.cli.frames_view import Rows, print_bars, tell_losses
from engine.cli.options import AsJson, Force, KeyTags, Prefix, RedisUrl, SiteFile, Vhost, resolve
from engine.cli.results import nothing
from engine.errors import InputError
from engine.wire.rfc3339 import rfc3339

if TYPE_CHECKING:
    from engine.client.iterators import Frames
    from engine.client.store import FrameStore

frames = typer.Typer(no_args_is_help=True, help="Read stored frames: latest, by key, by time, live, as files.")
for command in (export, latest, get, picture):
    frames.command()(command)


@frames.callback()
def prepare() -> None:
    """Show characters that the terminal's encoding lacks with escapes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@frames.command(name="list")
def list_(
    camera: AnyCamera = None,
    start: Start = None,
    end: End = None,
    limit: Limit = None,
    step: Step = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="List the newest first.")] = False,
    video: Video = False,
    config: SiteFile = None,
    redis: RedisUrl = None,
    key_tags: KeyTags = False,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """List frames without their payloads. Without CAM, list all cameras, one after the other."""
    if video and step is not None:
        raise InputError("--step is for JPEG frames; of video, a part decodes only as a whole")
    target = resolve(config, redis, vhost, prefix, key_tags=key_tags)
    start, end = fixed_times(start, end)
    missing = unreadable = listed = 0
    with target.store() as store:
        cameras = _chosen(store, camera)
        rows = Rows(cameras, json=json)
        for name in cameras:
            left = None if limit is None else limit - listed
            entries: Frames[Any] = (
                store.video_entries(name, start, end, limit=left, reverse=reverse)
                if video
                else store.entries(name, start, end, limit=left, step=step, reverse=reverse)
            )
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
    video: Video = False,
    config: SiteFile = None,
    redis: RedisUrl = None,
    key_tags: KeyTags = False,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """Print the number of frames. Without CAM, count all cameras together (with --json, each camera)."""
    target = resolve(config, redis, vhost, prefix, key_tags=key_tags)
    start, end = fixed_times(start, end)
    with target.store() as store:
        counts = {name: store.count(name, start, end, video=video) for name in _chosen(store, camera)}
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
    video: Video = False,
    config: SiteFile = None,
    redis: RedisUrl = None,
    key_tags: KeyTags = False,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """Show the number and the mean size of frames in each time span. Spans begin at round times, UTC."""
    target = resolve(config, redis, vhost, prefix, key_tags=key_tags)
    if out is not None:
        if out.suffix.lower() != ".png":
            raise InputError(f"{out}: the chart is a PNG; give a name that ends in .png")
        output.check_output(out, force=force)
    with target.store() as store:
        buckets = store.rate(camera, start, end, bucket, video=video)
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
    video: Video = False,
    config: SiteFile = None,
    redis: RedisUrl = None,
    key_tags: KeyTags = False,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """Print each frame's entry as it is stored, until Ctrl-C, SIGTERM or --limit."""
    target = resolve(config, redis, vhost, prefix, key_tags=key_tags)
    stop = _Stop()
    with target.store() as store:
        follow = store.tail_video_entries if video else store.tail_entries
        entries: Frames[Any] = follow(cameras or None, since)
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
