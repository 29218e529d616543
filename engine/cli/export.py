"""``edge-video frames export``: writes a camera's stored frames as an MP4 or as JPEG files, its video as an MP4. No
file is left partial."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from engine.cli import output
from engine.cli.export_video import VideoQuestion, check_video, export_video, only_video
from engine.cli.options import AsJson, Force, KeyTags, Prefix, RedisUrl, SiteFile, Vhost, resolve
from engine.cli.results import Done, nothing, report
from engine.client.times import window
from engine.config.rules import file_stem
from engine.errors import InputError
from engine.wire.rfc3339 import rfc3339

if TYPE_CHECKING:
    from rich.progress import Progress

    from engine.client.frame import Frame, FrameEntry
    from engine.client.iterators import Frames
    from engine.client.store import FrameStore

_FILM = ".mp4"
#: Endings of single files that an export cannot write.
_OTHER_FILES = frozenset({".avi", ".mkv", ".mov", ".webm", ".jpg", ".jpeg", ".png", ".zip", ".tar"})

Start = Annotated[
    str | None,
    typer.Option(
        "--start", help="First time: RFC 3339, nanoseconds, or relative to now, such as -30s or -5m.", metavar="TIME"
    ),
]
End = Annotated[str | None, typer.Option("--end", help="Last time, in the same forms as --start.", metavar="TIME")]
Step = Annotated[
    str | None, typer.Option("--step", help="Take the first frame of each span, such as 500ms or 10s.", metavar="SPAN")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many frames.")]
Video = Annotated[bool, typer.Option("--video", help="The camera's video (H.264, H.265), not its JPEG frames.")]


class Question(NamedTuple):
    """Which frames are exported. It is asked twice, so its times are fixed."""

    camera: str
    start: str | int | None
    end: str | int | None
    step: str | None
    limit: int | None

    def entries(self, store: FrameStore) -> Frames[FrameEntry]:
        """The frames, without payloads."""
        return store.entries(self.camera, self.start, self.end, step=self.step, limit=self.limit)

    def frames(self, store: FrameStore) -> Frames[Frame]:
        """The frames, with payloads."""
        return store.range(self.camera, self.start, self.end, step=self.step, limit=self.limit)


def export(
    camera: Annotated[str, typer.Argument(help="The camera's id.", metavar="CAM")],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="A file name that ends in .mp4, or a directory for JPEG files; for video - is standard output.",
            metavar="OUT",
        ),
    ],
    start: Start = None,
    end: End = None,
    step: Step = None,
    limit: Limit = None,
    video: Video = False,
    fragmented: Annotated[
        bool,
        typer.Option("--fragmented", help="Video as a fragmented MP4, which plays while it grows, as with -o -."),
    ] = False,
    force: Force = False,
    config: SiteFile = None,
    redis: RedisUrl = None,
    key_tags: KeyTags = False,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """Write a camera's stored frames as one MP4, each frame at its own time, or as a directory of JPEG files. Video
    becomes one MP4.

    Nothing is decoded or encoded. Files get the time of their (last) frame. JPEG files are named
    CAMERA-NANOSECONDS-SEQUENCE.jpg. Video begins with the key frame that the picture at --start needs. A camera that
    has no JPEG frames in the range, but video, has its video written.
    """
    target = resolve(config, redis, vhost, prefix, key_tags=key_tags)
    start, end = fixed_times(start, end)
    film = out.suffix.lower() == _FILM
    video |= fragmented
    if video:
        check_video(out, step, json=json)
    if film:
        output.check_output(out, force=force)
    elif not video:
        _check_directory(out)
    # Before the progress bar hides the terminal's cursor, so that a signal shows it again.
    output.clean_up_at_signals()
    with target.store() as store, output.progress() as bar:
        if film and step is None and not video:
            video = only_video(store, camera, start, end)
        if video:
            export_video(
                store, bar, VideoQuestion(camera, start, end, limit), out, fragmented=fragmented, force=force, json=json
            )
            return
        question, total = _look(
            store, Question(camera, start, end, step, limit), None if film or force or not out.is_dir() else out
        )
        found = question.frames(store)
        first = next(found, None) if total else None
        if first is None:
            nothing(f"no frame of camera {camera!r} is stored in that range")
        frames = _shown(bar, itertools.chain([first], found), total)
        done = _write_film(frames, out, force=force) if film else _write_files(frames, out, force=force)
    if found.missing:
        print(f"edge-video: {found.missing:,} more frames were gone before they could be read", file=sys.stderr)
    report(done, camera, out, found.missing, json=json)


def fixed_times(start: str | None, end: str | None) -> tuple[str | None, str | None]:
    """A range's ends as absolute times, so that several queries mean the same moments. Raises QueryError."""
    first, last = window(start, end, time.time_ns())
    return None if start is None else rfc3339(first), None if end is None else rfc3339(last)


def file_name(frame: FrameEntry) -> str:
    """The name of a frame's JPEG file; names of one camera sort as its frames do."""
    return f"{file_stem(frame.camera)}-{frame.unix_nano}-{frame.sequence:05d}.jpg"


def _look(store: FrameStore, question: Question, directory: Path | None) -> tuple[Question, int]:
    """Count the frames, and return the question limited to them, so that frames stored during the export are left out.

    Raises InputError for the first file that exists in ``directory`` already.
    """
    total, first_nano, last_nano = 0, 0, 0
    for entry in question.entries(store):
        total += 1
        first_nano = first_nano or entry.unix_nano
        last_nano = entry.unix_nano
        if directory is not None:
            output.check_output(directory / file_name(entry), force=False)
    # Steps count from the given start.
    start = first_nano if question.start is None else question.start
    return question._replace(start=start, end=last_nano) if total else question, total


def _shown(bar: Progress, frames: Iterator[Frame], total: int) -> Iterator[Frame]:
    """The frames; the progress bar advances as they are taken."""
    task = bar.add_task("exporting", total=total)
    for frame in frames:
        yield frame
        bar.advance(task)


def _write_film(frames: Iterator[Frame], path: Path, *, force: bool) -> Done:
    from engine.client.film import Film

    done = Done()
    with output.whole_file(path, force=force) as partial:
        with Film(partial) as film:
            for frame in frames:
                film.add(frame)
                done.add(frame)
        os.utime(partial, ns=(done.last_nano, done.last_nano))
    return done


def _write_files(frames: Iterator[Frame], directory: Path, *, force: bool) -> Done:
    done = Done()
    made = not directory.exists()
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory} cannot be made: {error.strerror}") from None
    try:
        for frame in frames:
            with output.whole_file(directory / file_name(frame), force=force) as partial:
                partial.write_bytes(frame.data)
                os.utime(partial, ns=(frame.unix_nano, frame.unix_nano))
            done.add(frame)
    except InputError as error:
        before = f"; the {done.frames:,} frames before it are written" if done.frames else ""
        raise InputError(f"{error}{before}") from None
    finally:
        if made and not done.frames:
            # A signal may have come after the first file was complete, and before it was counted.
            with suppress(OSError):
                directory.rmdir()
    return done


def _check_directory(out: Path) -> None:
    """Raises InputError if ``out`` is not a directory and cannot become one."""
    if str(out) == "-":
        raise InputError("JPEG frames cannot go to standard output, only --video; give a file's name, or a directory")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} exists and is no directory")
    if not out.exists() and out.suffix.lower() in _OTHER_FILES:
        raise InputError(f"{out}: films are written as .mp4; a name without an ending makes a directory of JPEG files")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out.parent} is no directory")
