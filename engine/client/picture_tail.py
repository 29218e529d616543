"""Follows the video of some cameras and decodes each access unit once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from engine.client.decoder import Decoded, Decoder, Painter
from engine.client.key_frames import units_for
from engine.client.payloads import CHUNK_BYTES
from engine.client.picture_reader import PictureReader
from engine.client.tail import TAIL_BLOCK_MS, FrameTail
from engine.client.tenant import VideoTenant
from engine.client.transport import Query
from engine.client.video import Colour, Picture, VideoEntry, VideoUnit
from engine.wire.journal import EntryId, entry_id, parse_entry_id


class _Begin(NamedTuple):
    """Which pictures of a camera the caller wants: those that come out after unit ``fed`` is decoded, and are shown at
    nanosecond ``shown`` or later."""

    fed: EntryId = (0, 0)
    shown: int = 0


class UnitTail(FrameTail):
    """A tail over access units that begins earlier than it was asked to: with a key frame, so that what follows
    decodes. ``since`` is as for FrameTail, but a time is when a picture is shown."""

    def __init__(
        self,
        tenant: VideoTenant,
        cameras: Sequence[str] | None,
        since: int | Mapping[str, str] | None,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        block_ms: int = TAIL_BLOCK_MS,
    ) -> None:
        super().__init__(tenant, cameras, since, chunk_bytes=chunk_bytes, block_ms=block_ms)
        self._video = tenant
        self._since_nano = since if isinstance(since, int) else None
        #: Camera -> what is wanted, and the entries from the key frame on.
        self.begins: dict[str, _Begin] = {}
        self.known: dict[str, list[VideoEntry]] = {}

    def _read_from(self, begins: dict[str, str]) -> Query[dict[str, str]]:
        """See FrameTail."""
        read_from = {}
        for camera, begin in begins.items():
            read_from[camera] = yield from self._key_before(camera, begin)
        return read_from

    def _key_before(self, camera: str, begin: str) -> Query[str]:
        """The id after which a key frame comes that makes what follows ``begin`` decode."""
        identifier = parse_entry_id(begin)
        if identifier == (0, 0):
            self.begins[camera] = _Begin()
            return begin
        moment: int | None = self._since_nano
        if moment is not None:
            self.begins[camera] = _Begin(shown=moment)
        elif self._since is None:
            self.begins[camera] = _Begin(fed=identifier)
        else:
            # The picture that was taken last. If its entry is gone, the time of its arrival is close.
            (reply,) = yield [("XRANGE", self._video.journal(camera), begin, begin)]
            last = self._video.units(camera, reply)
            moment = last[0].shown_nano if last else identifier[0]
            self.begins[camera] = _Begin(shown=moment + 1)
        units = yield from units_for(self._video, camera, moment)
        if not units or (moment is not None and units[0].shown_nano > moment):
            return begin
        self.known[camera] = units
        return entry_id(units[0].unix_nano, units[0].sequence - 1)


class PictureTail(PictureReader):
    """The pictures of some cameras' units as they are stored, with a decoder for each camera.

    A camera's pictures come in the order in which they are shown.
    """

    def __init__(self, source: UnitTail, colour: Colour) -> None:
        super().__init__()
        self._source = source
        self._decoders: dict[str, Decoder] = {}
        self._painter = Painter(colour)

    @property
    def idle(self) -> bool:  # type: ignore[override]
        """See PictureReader.idle."""
        return self._source.idle

    @property
    def missing(self) -> int:
        """See PictureReader.missing."""
        return self._source.missing

    @property
    def unreadable(self) -> int:
        """See PictureReader.unreadable."""
        return self._source.unreadable

    @property
    def skipped(self) -> int:
        """See PictureReader.skipped."""
        return sum(decoder.skipped for decoder in self._decoders.values())

    def chunk(self) -> Query[None]:
        """See PictureReader.chunk."""
        units: list[VideoUnit] = yield from self._source.chunk()
        self._units.extend(units)
        for entry in itertools.chain(units, self._source.pending):
            if isinstance(entry, VideoEntry):
                self._decoder(entry.camera).reordering.see(entry)
        for camera, begin in self._source.position.items():
            self.position.setdefault(camera, begin)

    def close(self) -> None:
        """See PictureReader.close."""
        super().close()
        for decoder in self._decoders.values():
            decoder.close()

    def _decode(self, unit: VideoUnit) -> list[Decoded]:
        found = self._decoder(unit.camera).feed(unit)
        return found if (unit.unix_nano, unit.sequence) > self._source.begins[unit.camera].fed else []

    def _choose(self, decoded: Decoded) -> Picture | None:
        entry, frame = decoded
        if entry.shown_nano < self._source.begins[entry.camera].shown:
            return None
        return Picture(entry, entry.shown_nano, self._painter.paint(frame))

    def _end(self) -> bool:
        return False

    def _decoder(self, camera: str) -> Decoder:
        decoder = self._decoders.get(camera)
        if decoder is None:
            decoder = self._decoders[camera] = Decoder()
            for entry in self._source.known.pop(camera, ()):
                decoder.reordering.see(entry)
        return decoder
