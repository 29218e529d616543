"""``edge-video frames latest``, ``get`` and ``picture``: one frame or one picture, shown or written to a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import output
from engine.cli.frames_view import age, fields, plain, shown_nano
from engine.cli.options import AsJson, Force, KeyTags, Prefix, RedisUrl, SiteFile, Vhost, resolve
from engine.cli.results import nothing
from engine.errors import InputError, QueryError, WireError
from engine.wire import keys
from engine.wire.rfc3339 import rfc3339

if TYPE_CHECKING:
    from engine.client.frame import FrameEntry

Out = Annotated[
    str | None, typer.Option("--out", "-o", help="Write the JPEG to this file; - is standard output.", metavar="FILE")
]
AnyCamera = Annotated[str | None, typer.Argument(help="The camera's id. Default: all cameras.", metavar="CAM")]
Camera = Annotated[str, typer.Argument(help="The camera's id.", metavar="CAM")]
_STDOUT = "-"


def latest(
    camera: AnyCamera = None,
    out: Out = None,
    force: Force = False,
    config: SiteFile = None,
    redis: RedisUrl = None,
    key_tags: KeyTags = False,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """Show the newest frame of a camera, or write it with -o. Without CAM, list the newest frame of every camera."""
    target = resolve(config, redis, vhost, prefix, key_tags=key_tags)
    _check_out(out, force=force, json=json)
    with target.store() as store:
        if camera is not None:
            frame = store.latest(camera)
            if frame is None:
                has_video = next(store.video_entries(camera, limit=1), None) is not None
                hint = f"; it has video: frames picture {camera}" if has_video else ""
                nothing(f"no frame of camera {camera!r} is stored{hint}")
            _show_or_write(frame, frame.data, out, force=force, json=json)
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
    rows = [
        (
            plain(frame.camera),
            rfc3339(frame.unix_nano),
            f"{age(frame):.1f}",
            f"{frame.size:,}",
            f"{frame.width}x{frame.height}",
            frame.key,
        )
        for frame in snapshot.values()
    ]
    output.print_table(("camera", "time", "age s", "bytes", "size", "key"), rows, right={"age s", "bytes", "size"})


def get(
    key: Annotated[str, typer.Argument(help="The frame's key, as in events.", metavar="KEY")],
    out: Out = None,
    force: Force = False,
    config: SiteFile = None,
    redis: RedisUrl = None,
    key_tags: KeyTags = False,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """Show the frame of a key, or write it with -o. With --redis, tenant and prefix come from the key."""
    if redis is not None and vhost is prefix is None:
        try:
            vhost, prefix, *_ = keys.parse_frame_key(key, tagged=key_tags)
        except WireError as error:
            raise QueryError(str(error)) from None
    target = resolve(config, redis, vhost, prefix, key_tags=key_tags)
    _check_out(out, force=force, json=json)
    with target.store() as store:
        frame = store.get(key)
    if frame is None:
        nothing(f"no frame {key} is stored (any more)")
    _show_or_write(frame, frame.data, out, force=force, json=json)


def picture(
    camera: Camera,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            help="The picture that is shown at this time, in the forms of list --start. Default: the newest.",
            metavar="TIME",
        ),
    ] = None,
    out: Out = None,
    force: Force = False,
    config: SiteFile = None,
    redis: RedisUrl = None,
    key_tags: KeyTags = False,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """Decode a picture of a camera's video: show what it is, or write it as a JPEG with -o. A camera without video
    gives its JPEG frame."""
    target = resolve(config, redis, vhost, prefix, key_tags=key_tags)
    _check_out(out, force=force, json=json)
    with target.store() as store:
        found = store.picture(camera, at)
        # A JPEG is written as it is stored.
        frame = store.get(found.entry.key) if found is not None and found.encoding == "jpeg" else None
    if found is None:
        nothing(f"no picture of camera {camera!r} is stored")
    data = b""
    if out is not None:
        from engine.client.picture import encode

        data = encode(found.image) if frame is None else frame.data
    _show_or_write(found.entry, data, out, force=force, json=json)


def _check_out(out: str | None, *, force: bool, json: bool) -> None:
    if out is None:
        return
    if out != _STDOUT:
        output.check_output(Path(out), force=force)
    elif json:
        raise InputError("-o - and --json would both write to standard output; give a file's name")
    elif sys.stdout.isatty():
        raise InputError("a JPEG cannot be shown on a terminal; redirect standard output, or give a file's name")


def _show_or_write(entry: FrameEntry, data: bytes, out: str | None, *, force: bool, json: bool) -> None:
    """Show a frame, or a picture of an access unit, or write ``data``, its JPEG."""
    if out == _STDOUT:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    when = shown_nano(entry)
    shown: dict[str, Any] = fields(entry) | {"age_seconds": age(entry)}
    if out is not None:
        with output.whole_file(Path(out), force=force) as partial:
            partial.write_bytes(data)
            os.utime(partial, ns=(when, when))
        shown["file"] = out
    if json:
        output.print_json(shown)
    elif out is not None:
        print(f"{out}: {len(data):,} bytes, {rfc3339(when)}, {entry.key}")
    else:
        output.print_fields(
            {
                "key": entry.key,
                "camera": plain(entry.camera),
                "time": rfc3339(when),
                "age": f"{age(entry):.1f} s",
                "size": f"{entry.size:,} bytes, {entry.width}x{entry.height} {entry.encoding}",
            }
        )
