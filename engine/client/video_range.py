"""One camera's access units between two times, from a key frame on."""

from __future__ import annotations

import itertools
from typing import Any

from engine.client.key_frames import units_for
from engine.client.payloads import CHUNK_BYTES
from engine.client.ranges import FrameRange
from engine.client.tenant import VideoTenant
from engine.client.transport import Query
from engine.client.video import VideoEntry


class VideoRange(FrameRange):
    """One camera's access units from nanosecond ``first`` to ``last``, by their arrival.

    It begins earlier where that is needed to decode the picture that is shown at ``first``: with the last key frame
    that is shown at or before ``first``.
    """

    def __init__(
        self,
        tenant: VideoTenant,
        camera: str,
        first: int,
        last: int,
        *,
        limit: int | None = None,
        payload: bool = True,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        super().__init__(tenant, camera, first, last, limit=limit, payload=payload, chunk_bytes=chunk_bytes)
        self._video = tenant
        self._first = first
        self._begun = False

    def chunk(self) -> Query[list[Any]]:
        """See FrameRange.chunk."""
        if not self._begun and self._first:
            units = yield from units_for(self._video, self._camera, self._first)
            if units and units[0].shown_nano <= self._first:
                self._from = f"{units[0].unix_nano}"
            elif units:
                self._from = f"{min(units[0].unix_nano, self._first)}"
        self._begun = True
        return (yield from super().chunk())

    def ahead(self, count: int) -> Query[list[VideoEntry]]:
        """The next entries, without their payloads, which are to come; fewer than ``count`` only at the end."""
        while len(self.pending) < count and not self._exhausted:
            yield from self._read()
        return [entry for entry in itertools.islice(self.pending, count) if isinstance(entry, VideoEntry)]
