"""Makes fragmented MP4 of stored JPEGs, unchanged, for the body of an HTTP answer. Like ``film``, it is imported only
to write a film.

``Film`` writes a file, which needs to go back to its beginning at the end; this film is sent on as it grows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av

from engine.client.film_sink import FilmSink
from engine.client.frame import Frame
from engine.errors import InputError, WireError
from engine.wire import jpeg
from engine.wire.rfc3339 import NANO

#: Ticks per second of a film's times: frames keep their times to the millisecond.
_TICKS = 1000
_TICK_NANO = NANO // _TICKS
#: The longest time that one frame can be shown, in ticks; the muxer writes garbage for a longer one.
_SHOWN_TICKS_MAX = 2**31 - 1
#: Microseconds of a fragment. Bounds memory.
_FRAGMENT_US = 1_000_000
_OPTIONS = {
    "video_track_timescale": f"{_TICKS}",
    "movflags": "delay_moov+default_base_moof",
    "frag_duration": f"{_FRAGMENT_US}",
}


def jpeg_fragments(frames: Iterable[Frame]) -> Iterator[bytes]:
    """A film of one camera's frames, oldest first, piece by piece. Each is shown until the next; the last for a tick.

    Raises WireError if the first frame has no size, InputError for a gap that is longer than a film can show.
    """
    sink = FilmSink()
    container: Any = None
    stream: Any = None
    held: Any = None
    begin = 0
    try:
        for frame in frames:
            if container is None:
                size = (frame.width, frame.height) if frame.width and frame.height else jpeg.describe(frame.data)[:2]
                if not all(size):
                    raise WireError(f"frame {frame.key} is no JPEG with a size; a film cannot begin with it")
                container = av.open(sink, "w", format="mp4", options=_OPTIONS)
                stream = container.add_mux_stream("mjpeg", width=size[0], height=size[1], time_base=Fraction(1, _TICKS))
                begin = frame.unix_nano
            tick = (frame.unix_nano - begin) // _TICK_NANO
            if held is not None:
                tick = max(tick, held.pts + 1)
                held.duration = tick - held.pts
                if held.duration > _SHOWN_TICKS_MAX:
                    raise InputError(f"frame {frame.key} comes too long after the one before it for one film")
                container.mux_one(held)
                if piece := sink.take():
                    yield piece
            held = av.Packet(frame.data)
            held.stream, held.time_base, held.is_keyframe = stream, stream.time_base, True
            held.pts = held.dts = tick
        if held is not None:
            held.duration = 1
            container.mux_one(held)
            container.close()
            if piece := sink.take():
                yield piece
    finally:
        sink.close()
        if container is not None:
            # The sink is closed, so the end of a film that was left goes nowhere.
            with suppress(OSError, ValueError):
                container.close()
