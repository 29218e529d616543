"""Films of what is stored, as fragments: of access units, or of JPEGs. Neither is decoded."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from engine.client.film_track import TICKS, FilmTrack
from engine.client.film_track import Sample as TimedUnit
from engine.client.frame import Frame
from engine.client.video import VideoUnit
from engine.errors import InputError
from engine.web.video_boxes import Sample, fragment
from engine.web.video_codecs import Track, payload_of
from engine.wire.rfc3339 import NANO

#: A fragment ends after so many ticks or bytes, or before a key frame. Bounds what one film holds.
_FRAGMENT_TICKS_MAX = TICKS
_FRAGMENT_BYTES_MAX = 128 * 1024
_TICK_NANO = NANO // TICKS
#: How long the last JPEG is shown if there is no other, in ticks.
_ONLY_TICKS = TICKS
#: The longest that one JPEG is shown, in ticks: a duration has 32 bits.
_SHOWN_TICKS_MAX = 2**31 - 1


class _Fragments:
    """Collects samples to fragments."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._number = 0
        self._time = 0
        self._ticks = 0
        self._bytes = 0

    def add(self, sample: Sample, *, starts: bool) -> bytes:
        """Add a sample; the fragment that is complete by now, or nothing. ``starts``: a fragment should begin here."""
        done = b""
        if self._samples and (
            starts or self._ticks >= _FRAGMENT_TICKS_MAX or self._bytes + len(sample.data) > _FRAGMENT_BYTES_MAX
        ):
            done = self.finish()
        self._samples.append(sample)
        self._ticks += sample.duration
        self._bytes += len(sample.data)
        return done

    def finish(self) -> bytes:
        """The last fragment."""
        if not self._samples:
            return b""
        self._number += 1
        made = fragment(self._number, self._time, self._samples)
        self._time += self._ticks
        self._samples, self._ticks, self._bytes = [], 0, 0
        return made


async def video_fragments(track: Track, units: AsyncIterator[VideoUnit]) -> AsyncGenerator[bytes]:
    """The fragments of a film of units in decode order. It ends before a unit of another codec or size."""
    times, fragments = FilmTrack(), _Fragments()
    begin: int | None = None

    def samples(timed: list[TimedUnit]) -> list[bytes]:
        nonlocal begin
        done = []
        for one in timed:
            if begin is None:
                # Decoding begins before the first picture is shown where pictures are reordered.
                begin = one.dts
            offset = one.pts - (one.dts - begin)
            sample = Sample(payload_of(track, one.unit), one.duration, offset, one.unit.keyframe)
            done.append(fragments.add(sample, starts=one.unit.keyframe))
        return done

    async for unit in units:
        try:
            timed = times.add(unit)
        except InputError:
            break
        for piece in filter(None, samples(timed)):
            yield piece
    for piece in filter(None, [*samples(times.finish()), fragments.finish()]):
        yield piece


async def jpeg_fragments(frames: AsyncIterator[Frame]) -> AsyncGenerator[bytes]:
    """The fragments of a film of JPEGs, each shown until the next."""
    fragments = _Fragments()
    held: Frame | None = None
    begin = tick = shown = 0
    async for frame in frames:
        if held is None:
            begin = frame.unix_nano
        else:
            # Two frames of one tick are a tick apart.
            next_tick = max((frame.unix_nano - begin) // _TICK_NANO, tick + 1)
            shown = min(next_tick - tick, _SHOWN_TICKS_MAX)
            tick = next_tick
            if piece := fragments.add(Sample(held.data, shown, 0, True), starts=False):
                yield piece
        held = frame
    if held is not None:
        last = Sample(held.data, shown or _ONLY_TICKS, 0, True)
        for piece in filter(None, [fragments.add(last, starts=False), fragments.finish()]):
            yield piece
