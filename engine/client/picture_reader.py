"""The base of all readers of pictures: fetches access units, decodes them, makes arrays of the pictures.

A reader does no I/O and knows no event loop. ``chunk`` is a query that fetches units; ``work`` decodes, which takes
CPU time, until a picture is ready; ``take`` gives it. In memory are the units of a chunk, the pictures that the
decoder gave at once (at most 16, when it is drained), and one array.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from engine.client.transport import Query
from engine.client.video import Picture, VideoUnit

if TYPE_CHECKING:
    from engine.client.decoder import Decoded


class PictureReader:
    """Subclasses fetch the units, decode them, and choose among the pictures."""

    #: True if no picture is to come, but for the one that is ready.
    done = False
    #: For a tail: True if the last read found nothing new.
    idle = False
    #: For a tail: camera -> id of the unit whose picture was taken last.
    position: dict[str, str]

    def __init__(self) -> None:
        self.position = {}
        self._units: deque[VideoUnit] = deque()
        self._decoded: deque[Decoded] = deque()
        self._picture: Picture | None = None

    @property
    def missing(self) -> int:
        """Entries read so far whose units are gone."""
        raise NotImplementedError

    @property
    def unreadable(self) -> int:
        """Entries read so far that the engine did not write."""
        raise NotImplementedError

    @property
    def skipped(self) -> int:
        """Units that gave no picture, because units before them, or they themselves, are missing or damaged."""
        raise NotImplementedError

    @property
    def hungry(self) -> bool:
        """True if ``work`` needs another chunk."""
        return not (self.done or self._picture or self._decoded or self._units)

    def chunk(self) -> Query[None]:
        """Fetch the next units."""
        raise NotImplementedError

    def work(self) -> None:
        """Decode until a picture is ready, or all units are decoded."""
        while self._picture is None and not self.done:
            if self._decoded:
                self._picture = self._choose(self._decoded.popleft())
            elif self._units:
                self._decoded.extend(self._decode(self._units.popleft()))
            elif not self._end():
                return

    def take(self) -> Picture | None:
        """The picture that is ready."""
        picture, self._picture = self._picture, None
        if picture is not None:
            self.position[picture.camera] = picture.entry.entry_id
        return picture

    def close(self) -> None:
        """End, and free the decoders."""
        self.done = True
        self._picture = None
        self._units.clear()
        self._decoded.clear()

    def _decode(self, unit: VideoUnit) -> list[Decoded]:
        raise NotImplementedError

    def _choose(self, decoded: Decoded) -> Picture | None:
        """The picture, if the caller wants it."""
        raise NotImplementedError

    def _end(self) -> bool:
        """All units are decoded. True if this has brought more to do."""
        raise NotImplementedError
