"""A camera's picture at a moment."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable

from engine.client.decoder import Decoded, Decoder, Painter
from engine.client.frame import Frame
from engine.client.key_frames import units_for
from engine.client.picture_reader import PictureReader
from engine.client.tenant import VideoTenant
from engine.client.transport import Query
from engine.client.video import Colour, Picture, VideoEntry, VideoUnit, unit_with_data
from engine.wire.keys import next_sequence

#: Payload bytes of one round trip. Nearly all GOPs fit; the units of a larger one take several.
_BYTES_MAX = 32 * 2**20


class PictureAt(PictureReader):
    """The picture that is shown at nanosecond ``moment``, or the last one before (None: the newest).

    It is decoded from the last key frame on. If that key frame is gone or damaged, an older picture is given. If video
    gives no picture, ``jpeg`` is asked for a frame.
    """

    def __init__(
        self,
        tenant: VideoTenant,
        camera: str,
        moment: int | None,
        *,
        jpeg: Callable[[str, int | None], Query[Frame | None]],
        colour: Colour,
    ) -> None:
        super().__init__()
        self._tenant = tenant
        self._camera = camera
        self._moment = moment
        self._jpeg = jpeg
        self._colour: Colour = colour
        self._decoder = Decoder()
        #: Entries from a key frame to the picture's, to be fetched; None: to be found.
        self._run: deque[VideoEntry] | None = None
        #: The id of the key frame that has been tried.
        self._tried: str | None = None
        self._best: Decoded | None = None
        self._frame: Frame | None = None
        self._gone = 0

    @property
    def missing(self) -> int:
        """See PictureReader.missing."""
        return self._gone

    @property
    def unreadable(self) -> int:
        """See PictureReader.unreadable."""
        return 0

    @property
    def skipped(self) -> int:
        """See PictureReader.skipped."""
        return self._decoder.skipped

    def chunk(self) -> Query[None]:
        """See PictureReader.chunk."""
        if self._run is None:
            units = yield from units_for(
                self._tenant, self._camera, self._moment, before=self._tried, living=self._tried is not None
            )
            for unit in units:
                self._decoder.reordering.see(unit)
            self._run = deque(_run_to(units, self._moment))
            if self._run:
                self._tried = self._run[0].entry_id
        if self._run:
            yield from self._fetch(self._run)
        else:
            self._frame = yield from self._jpeg(self._camera, self._moment)
            self.done = self._frame is None

    def close(self) -> None:
        """See PictureReader.close."""
        super().close()
        self._decoder.close()
        self._best = None

    def _fetch(self, run: deque[VideoEntry]) -> Query[None]:
        sizes = itertools.accumulate(entry.size for entry in run)
        count = max(sum(size <= _BYTES_MAX for size in sizes), 1)
        taken = list(itertools.islice(run, count))
        (payloads,) = yield [("MGET", *(entry.key for entry in taken))]
        for entry, data in zip(taken, payloads, strict=True):
            if data is None:
                # Nothing decodes without it.
                self._gone += 1
                run.clear()
                return
            run.popleft()
            self._units.append(unit_with_data(entry, data))

    def _decode(self, unit: VideoUnit) -> list[Decoded]:
        return self._decoder.feed(unit)

    def _choose(self, decoded: Decoded) -> Picture | None:
        if self._moment is None or decoded.entry.shown_nano <= self._moment:
            self._best = decoded
        return None

    def _end(self) -> bool:
        if self._frame is not None:
            from engine.client.picture import decode

            image = decode(self._frame.data, rgb=self._colour == "rgb")
            self._picture = Picture(self._frame, self._frame.unix_nano, image)
            self.done = True
            return True
        if self._run is None or self._run:
            return False
        self._decoded.extend(self._decoder.finish())
        if self._decoded:
            return True
        if self._best is None:
            # Nothing of this GOP decodes.
            self._run = None
            return False
        entry, frame = self._best
        picture = Picture(entry, entry.shown_nano, Painter(self._colour).paint(frame))
        self.close()
        self._picture = picture
        return True


def _run_to(units: list[VideoEntry], moment: int | None) -> list[VideoEntry]:
    """The units that must be decoded for the picture: those without a gap after the key frame, up to its own."""
    run: list[VideoEntry] = []
    for unit in units:
        if run and unit.sequence != next_sequence(run[-1].sequence):
            break
        run.append(unit)
    shown = [number for number, unit in enumerate(run) if moment is None or unit.shown_nano <= moment]
    last = max(shown, key=lambda number: run[number].shown_nano, default=-1)
    return run[: last + 1]
