"""All queries about a tenant's video, without I/O; ``transport`` runs them. Modules that decode are loaded when a
picture is asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from engine.client.frame import Frame
from engine.client.journal_queries import JournalQueries, check_camera
from engine.client.key_frames import LATE_NANO_MAX
from engine.client.ranges import FrameRange
from engine.client.tenant import Tenant, VideoTenant
from engine.client.times import NANO_MAX, When, to_nano, window
from engine.client.transport import Query
from engine.client.video import Colour
from engine.client.video_range import VideoRange
from engine.errors import QueryError
from engine.wire.rfc3339 import NANO

if TYPE_CHECKING:
    from engine.client.picture_reader import PictureReader

#: Pictures per second that can be asked for.
_FPS_MAX = 1000


class VideoQueries(JournalQueries):
    """All queries about one tenant's video. ``range`` and ``tail`` give access units."""

    tenant: VideoTenant

    def __init__(self, tenant: Tenant, chunk_bytes: int) -> None:
        super().__init__(VideoTenant(*tenant), chunk_bytes)

    def units(
        self,
        camera: str,
        start: When | None,
        end: When | None,
        *,
        limit: int | None,
        reverse: bool,
        from_key: bool,
        payload: bool = True,
    ) -> FrameRange:
        """``range``; with ``from_key`` it begins with the key frame that the picture shown at ``start`` needs."""
        units = self.range(camera, start, end, limit=limit, reverse=reverse, payload=payload)
        if not from_key:
            return units
        if reverse:
            raise QueryError("units from a key frame on come in decode order: give from_key or reverse, not both")
        first, last = window(start, end, time.time_ns())
        return VideoRange(self.tenant, camera, first, last, limit=limit, payload=payload, chunk_bytes=self._chunk_bytes)

    def pictures(
        self, camera: str, start: When | None, end: When | None, *, fps: float | None, colour: Colour
    ) -> PictureReader:
        """One camera's pictures between two times."""
        from engine.client.picture_range import PictureRange

        check_camera(self.tenant, camera)
        _check_colour(colour)
        step = None if fps is None else _step(fps)
        first, last = window(start, end, time.time_ns())
        until = min(last + LATE_NANO_MAX, NANO_MAX)
        source = VideoRange(self.tenant, camera, first, until, chunk_bytes=self._chunk_bytes)
        return PictureRange(source, first, last, step=step, anchor=None if start is None else first, colour=colour)

    def picture(
        self,
        camera: str,
        when: When | None,
        *,
        jpeg: Callable[[str, int | None], Query[Frame | None]],
        colour: Colour,
    ) -> PictureReader:
        """The picture at a time; ``jpeg`` is the query for a camera without video."""
        from engine.client.picture_at import PictureAt

        check_camera(self.tenant, camera)
        _check_colour(colour)
        moment = None if when is None else to_nano(when, time.time_ns())
        return PictureAt(self.tenant, camera, moment, jpeg=jpeg, colour=colour)

    def tail_pictures(
        self,
        cameras: Sequence[str] | str | None,
        since: When | Mapping[str, str] | None,
        *,
        colour: Colour,
        block_ms: int,
    ) -> PictureReader:
        """A tail over the pictures of some cameras."""
        from engine.client.picture_tail import PictureTail, UnitTail

        _check_colour(colour)
        chosen, begin = self._tailed(cameras, since)
        source = UnitTail(self.tenant, chosen, begin, chunk_bytes=self._chunk_bytes, block_ms=block_ms)
        return PictureTail(source, colour)


def _check_colour(colour: object) -> None:
    if colour not in get_args(Colour):
        raise QueryError(f"colour {colour!r} is neither 'bgr' nor 'rgb'")


def _step(fps: object) -> int:
    """Nanoseconds between pictures. Raises QueryError."""
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not math.isfinite(fps) or not 0 < fps <= _FPS_MAX:
        raise QueryError(f"fps {fps!r} is not a number of pictures per second, above 0 and at most {_FPS_MAX}")
    return round(NANO / fps)
