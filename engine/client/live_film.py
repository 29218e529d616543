"""Makes MP4 of access units as they come, without decoding them: a fragment each, for a viewer that is live.

Other than a stored film, this one cannot look ahead. A unit is decoded at its arrival. Where pictures are reordered,
all are shown later by as much as the first ones needed. Like ``film``, this module is imported only to write a film.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av

from engine.client.film_sink import FilmSink
from engine.client.film_track import TICKS
from engine.client.video import VideoUnit
from engine.client.video_film import CODECS, check_sets
from engine.wire.rfc3339 import NANO

_TICK_NANO = NANO // TICKS
_OPTIONS = {
    "video_track_timescale": f"{TICKS}",
    "movflags": "frag_every_frame+delay_moov+default_base_moof",
    "use_editlist": "0",
}
#: How long a unit is shown until the next has come, in ticks.
_SHOWN_TICKS = TICKS // 25


class LiveFilm:
    """The film of one camera from ``first`` on: the units since the newest key frame, in decode order. ``start_nano``
    is the time of the film's zero.

    Raises InputError if the parameter sets are damaged.
    """

    def __init__(self, first: Sequence[VideoUnit]) -> None:
        key = first[0]
        if key.encoding == "h265":
            check_sets(key)
        self.encoding, self.size = key.encoding, (key.width, key.height)
        self._zero = key.unix_nano
        self._late = max(0, *(unit.unix_nano - unit.shown_nano for unit in first))
        self.start_nano = self._zero - self._late
        self._dts = -1
        self._sink = FilmSink()
        self._container: Any = av.open(self._sink, "w", format="mp4", options=_OPTIONS)
        self._stream: Any = self._container.add_mux_stream(
            CODECS[key.encoding], width=key.width, height=key.height, time_base=Fraction(1, TICKS)
        )

    def fits(self, unit: VideoUnit) -> bool:
        """True if a unit can be part of this film: it has the same codec and size."""
        return unit.encoding == self.encoding and (unit.width, unit.height) == self.size

    def add(self, unit: VideoUnit) -> bytes:
        """Add the next unit; returns what has become complete."""
        packet: Any = av.Packet(unit.data)
        packet.stream = self._stream
        packet.time_base = self._stream.time_base
        self._dts = max((unit.unix_nano - self._zero) // _TICK_NANO, self._dts + 1)
        packet.dts = self._dts
        packet.pts = max((unit.shown_nano - self.start_nano) // _TICK_NANO, self._dts)
        packet.duration = _SHOWN_TICKS
        packet.is_keyframe = unit.keyframe
        self._container.mux_one(packet)
        return self._sink.take()

    def close(self) -> None:
        """Free the muxer; what it holds is not written."""
        self._sink.close()
        # The sink is closed, so the film's end goes nowhere.
        with suppress(OSError, ValueError):
            self._container.close()
