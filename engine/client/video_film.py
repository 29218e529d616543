"""Makes MP4 of stored access units with PyAV, without decoding them: a file, or fragments for a stream.

Like ``film``, this module is imported only to write a film.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import av

from engine.client.film_track import TICKS, FilmTrack, Sample
from engine.client.hvc1 import tag_file, tag_hvc1
from engine.client.video import VideoUnit
from engine.errors import InputError
from engine.wire.access_unit import START_CODE
from engine.wire.nal_units import annex_b
from engine.wire.rfc3339 import rfc3339

#: Microseconds after which a fragment ends, even if no key frame has come. Bounds memory.
_FRAGMENT_US_MAX = 10_000_000
#: Bytes written to disk at a time.
_BUFFER_BYTES = 2**20
_CODECS = {"h264": "h264", "h265": "hevc"}
#: Types of H.265's parameter sets.
_H265_SETS = range(32, 35)
_WHOLE = {"video_track_timescale": f"{TICKS}"}
_FRAGMENTED = {
    **_WHOLE,
    "movflags": "frag_keyframe+delay_moov+default_base_moof",
    "frag_duration": f"{_FRAGMENT_US_MAX}",
}


class VideoFilm:
    """An MP4 of one camera's access units, in decode order; H.264 as ``avc1``, H.265 as ``hvc1``.

    Each picture is shown at its own time, counted from the first. Where units are missing, the last picture before
    stays. Units that do not decode are left out, and counted in ``track.skipped``.

    ``path`` is created with the first unit. Use as a context manager: leaving it closes the film. Raises OSError if the
    file cannot be written, at the latest when it is closed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        #: The units so far, and what was left out.
        self.track = FilmTrack()
        self._muxer: _Muxer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._mux(self.track.finish())
                if self._muxer is not None:
                    self._muxer.finish()
        finally:
            if self._muxer is not None:
                self._muxer.abandon()

    def add(self, unit: VideoUnit) -> None:
        """Add the next unit.

        Raises OSError if the file cannot be written, InputError if the unit's codec or size is not the film's, or if it
        comes too late for a film.
        """
        self._mux(self.track.add(unit))

    def _mux(self, samples: list[Sample]) -> None:
        if samples and self._muxer is None:
            # Python opens the file, because FFmpeg takes text before a colon for a protocol, and reports no error when
            # the disk is full at close.
            self._muxer = _Muxer(self._path.open("w+b", buffering=_BUFFER_BYTES), samples[0], _WHOLE)
        for sample in samples:
            assert self._muxer is not None
            self._muxer.add(sample)


def fragments(units: Iterable[VideoUnit], track: FilmTrack | None = None) -> Iterator[bytes]:
    """A fragmented MP4 of one camera's units, in decode order, piece by piece as it grows: for a pipe, or for the
    body of an HTTP answer. The first piece is the header. A fragment follows for each GOP, or every 10 seconds.

    Times and units left out are those of VideoFilm; a ``track`` of the caller's counts them. Raises InputError as
    ``VideoFilm.add`` does.
    """
    track = track or FilmTrack()
    sink = _Sink()
    muxer: _Muxer | None = None
    try:
        for samples in _batches(track, units):
            for sample in samples:
                if muxer is None:
                    muxer = _Muxer(sink, sample, _FRAGMENTED)
                muxer.add(sample)
                yield from sink.take()
        if muxer is not None:
            muxer.finish()
            yield from sink.take()
    finally:
        if muxer is not None:
            muxer.abandon()


def _batches(track: FilmTrack, units: Iterable[VideoUnit]) -> Iterator[list[Sample]]:
    for unit in units:
        yield track.add(unit)
    yield track.finish()


def _check_sets(unit: VideoUnit) -> None:
    """Let FFmpeg's decoder read the parameter sets of an H.265 film's first unit. Its muxer reads them without bounds,
    and damaged ones keep it busy for hours. Raises InputError."""
    found = [nal for nal in annex_b(memoryview(unit.data)) if nal[0] >> 1 in _H265_SETS]
    decoder: Any = av.CodecContext.create("hevc", "r")
    decoder.options = {"err_detect": "explode"}
    try:
        decoder.decode(av.Packet(b"".join(part for nal in found for part in (START_CODE, nal))))
    except av.error.FFmpegError:
        raise InputError(
            f"the parameter sets of unit {unit.key} are damaged; no film can begin with it, so export from a later time"
        ) from None


class _Sink:
    """A file for FFmpeg that gives what was written."""

    def __init__(self) -> None:
        self.closed = False
        self._pieces: list[bytes] = []
        self._begun = False

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def close(self) -> None:
        self.closed = True

    def take(self) -> Iterator[bytes]:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            yield data if self._begun else tag_hvc1(data)
            self._begun = True


class _Muxer:
    """FFmpeg's muxer for one stream. ``first`` is its first sample."""

    def __init__(self, file: IO[bytes] | _Sink, first: Sample, options: dict[str, str]) -> None:
        self._file = file
        unit = first.unit
        if unit.encoding == "h265":
            _check_sets(unit)
        self._container: Any = av.open(file, "w", format="mp4", options=options)
        self._container.metadata["creation_time"] = rfc3339(unit.shown_nano)
        self._stream: Any = self._container.add_mux_stream(
            _CODECS[unit.encoding], width=unit.width, height=unit.height, time_base=Fraction(1, TICKS)
        )

    def add(self, sample: Sample) -> None:
        packet: Any = av.Packet(sample.unit.data)
        packet.stream = self._stream
        packet.time_base = self._stream.time_base
        packet.dts, packet.pts, packet.duration = sample.dts, sample.pts, sample.duration
        packet.is_keyframe = sample.unit.keyframe
        self._container.mux_one(packet)

    def finish(self) -> None:
        """Write the film's end."""
        self._container.close()
        if not isinstance(self._file, _Sink):
            tag_file(self._file)
            self._file.close()

    def abandon(self) -> None:
        """Close everything and ignore errors: either the film is complete, or another error is reported."""
        # The file is closed first, so that the muxer cannot write the end of an incomplete film.
        with suppress(OSError):
            self._file.close()
        with suppress(OSError, ValueError):
            self._container.close()
