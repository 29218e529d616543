"""``edge-video frames export`` of video: access units into one MP4, which is not decoded."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from engine.cli import output
from engine.cli.results import Done, nothing, report
from engine.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress

    from engine.client.iterators import Frames
    from engine.client.store import FrameStore
    from engine.client.video import VideoEntry, VideoUnit

_FILM = ".mp4"
_STDOUT = "-"


class VideoQuestion(NamedTuple):
    """Which units are exported. It is asked twice, so its times are fixed."""

    camera: str
    start: str | None
    end: str | None
    limit: int | None

    def entries(self, store: FrameStore) -> Frames[VideoEntry]:
        """The units, without payloads."""
        return store.video_entries(self.camera, self.start, self.end, limit=self.limit, from_key=True)

    def units(self, store: FrameStore) -> Frames[VideoUnit]:
        """The units, with payloads."""
        return store.video(self.camera, self.start, self.end, limit=self.limit, from_key=True)


def check_video(out: Path, step: str | None, *, json: bool) -> None:
    """Raises InputError if video cannot be exported so."""
    if step is not None:
        raise InputError("--step is for JPEG frames; a part of a video decodes only as a whole")
    if str(out) == _STDOUT:
        if json:
            raise InputError("-o - and --json would both write to standard output; give a file's name")
        if sys.stdout.isatty():
            raise InputError("a film cannot be shown on a terminal; redirect standard output, or give a file's name")
    elif out.suffix.lower() != _FILM:
        raise InputError(f"{out}: video is written to a file whose name ends in .mp4, or to standard output (-)")


def only_video(store: FrameStore, camera: str, start: str | None, end: str | None) -> bool:
    """True if a camera has video in a range, and no JPEG frames. Says so on standard error."""
    if next(store.entries(camera, start, end, limit=1), None) is not None:
        return False
    if next(VideoQuestion(camera, start, end, 1).entries(store), None) is None:
        return False
    print(f"edge-video: camera {camera!r} has no JPEG frames in that range; its video is written", file=sys.stderr)
    return True


def export_video(
    store: FrameStore, bar: Progress, question: VideoQuestion, out: Path, *, fragmented: bool, force: bool, json: bool
) -> None:
    """Write the units as an MP4, and report it."""
    from engine.client.film_track import FilmTrack
    from engine.client.video_film import VideoFilm, fragments

    total = sum(1 for _ in question.entries(store))
    # What is stored during the export is left out.
    found = question._replace(limit=total).units(store)
    units = _shown(bar, found, total) if total else iter(())
    track = FilmTrack()
    if str(out) == _STDOUT:
        for piece in fragments(units, track):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        if not track.units:
            _nothing(question)
    else:
        with output.whole_file(out, force=force) as partial:
            if fragmented:
                with partial.open("wb") as file:
                    file.writelines(fragments(units, track))
            else:
                with VideoFilm(partial) as film:
                    track = film.track
                    for unit in units:
                        film.add(unit)
            if not track.units:
                _nothing(question)
            os.utime(partial, ns=(track.last_nano, track.last_nano))
    if found.missing:
        print(f"edge-video: {found.missing:,} more units were gone before they could be read", file=sys.stderr)
    if track.skipped:
        print(f"edge-video: {track.skipped:,} units do not decode and are left out", file=sys.stderr)
    if str(out) != _STDOUT:
        done = Done(track.units, track.bytes, track.first_nano, track.last_nano)
        report(done, question.camera, out, found.missing, json=json, skipped=track.skipped)


def _nothing(question: VideoQuestion) -> NoReturn:
    nothing(f"no video of camera {question.camera!r} that decodes is stored in that range")


def _shown(bar: Progress, units: Iterator[VideoUnit], total: int) -> Iterator[VideoUnit]:
    """The units; the progress bar advances as they are taken."""
    task = bar.add_task("exporting", total=total)
    for unit in units:
        yield unit
        bar.advance(task)
