"""Queries that one kind of journal answers, without I/O: ranges, tails, counts and rates of its entries."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from engine.client.frame import FrameEntry
from engine.client.ranges import FrameRange
from engine.client.stats import Bucket
from engine.client.tail import FrameTail
from engine.client.tenant import Tenant
from engine.client.times import NANO_MAX, Span, When, to_nano, to_span, window
from engine.client.transport import Query
from engine.errors import QueryError, WireError
from engine.wire import keys
from engine.wire.journal import parse_entry_id

#: Buckets of one result; a larger number means a mistake in the bucket's length.
_BUCKETS_MAX = 1_000_000


class JournalQueries:
    """Queries about the entries of one tenant's cameras. Times are resolved and checked when a query is made.

    All raise QueryError for invalid arguments, UnknownName for an unknown camera.
    """

    def __init__(self, tenant: Tenant, chunk_bytes: int) -> None:
        if chunk_bytes < 1:
            raise QueryError(f"chunk_bytes {chunk_bytes} is not positive")
        self.tenant = tenant
        self._chunk_bytes = chunk_bytes

    def range(
        self,
        camera: str,
        start: When | None,
        end: When | None,
        *,
        limit: int | None = None,
        step: Span | None = None,
        reverse: bool = False,
        payload: bool = True,
    ) -> FrameRange:
        """One camera's frames, or entries, between two times."""
        first, last = window(start, end, time.time_ns())
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise QueryError(f"limit {limit!r} must be a number of frames")
        if limit is not None and limit < 0:
            raise QueryError(f"limit {limit} is negative")
        check_camera(self.tenant, camera)
        begin, bound = (last, end) if reverse else (first, start)
        return FrameRange(
            self.tenant,
            camera,
            first,
            last,
            anchor=None if bound is None else begin,
            limit=limit,
            step=None if step is None else to_span(step),
            reverse=reverse,
            payload=payload,
            chunk_bytes=self._chunk_bytes,
        )

    def tail(
        self,
        cameras: Sequence[str] | str | None,
        since: When | Mapping[str, str] | None,
        *,
        payload: bool,
        block_ms: int,
    ) -> FrameTail:
        """A tail over some cameras."""
        chosen, begin = self._tailed(cameras, since)
        return FrameTail(self.tenant, chosen, begin, payload=payload, chunk_bytes=self._chunk_bytes, block_ms=block_ms)

    def _tailed(
        self, cameras: Sequence[str] | str | None, since: When | Mapping[str, str] | None
    ) -> tuple[list[str] | None, int | Mapping[str, str] | None]:
        """The cameras of a tail, and where it begins."""
        chosen = [cameras] if isinstance(cameras, str) else None if cameras is None else list(cameras)
        if chosen is not None:
            if not chosen:
                raise QueryError("no cameras to tail; name some, or None for all")
            for camera in chosen:
                check_camera(self.tenant, camera)
        begin = since if since is None or isinstance(since, Mapping) else to_nano(since, time.time_ns())
        if isinstance(begin, Mapping):
            _check_position(begin)
        return chosen, begin

    def count(self, camera: str, start: When | None, end: When | None) -> Query[int]:
        """The number of frames in a range."""
        frames = self.range(camera, start, end, payload=False)
        count = 0
        while not frames.done:
            count += len((yield from frames.chunk()))
        return count

    def rate(self, camera: str, start: When | None, end: When | None, bucket: Span) -> Query[list[Bucket]]:
        """Frames and bytes per ``bucket``, aligned to the epoch, from the first frame's bucket to the last frame's."""
        length = to_span(bucket)
        frames = self.range(camera, start, end, payload=False)
        sums: dict[int, list[int]] = {}
        while not frames.done:
            entries: list[FrameEntry] = yield from frames.chunk()
            for entry in entries:
                sum_ = sums.setdefault(entry.unix_nano // length, [0, 0])
                sum_[0] += 1
                sum_[1] += entry.size
            if len(sums) > _BUCKETS_MAX:
                break
        if not sums:
            return []
        first, last = min(sums), max(sums)
        if last - first >= _BUCKETS_MAX:
            raise QueryError(f"bucket {bucket!r} makes {last - first + 1:,} buckets; at most {_BUCKETS_MAX:,}")
        buckets = []
        for number in range(first, last + 1):
            count, size = sums.get(number, (0, 0))
            buckets.append(Bucket(number * length, count, size, size / count if count else 0.0))
        return buckets


def checked_tenant(vhost: str, prefix: str, known: Iterable[str]) -> Tenant:
    """A tenant. Raises QueryError for a name that no key can hold."""
    try:
        tenant = Tenant(vhost or keys.DEFAULT_VHOST, prefix, frozenset(known))
        keys.check_names(tenant.vhost, prefix, tagged=keys.is_tagged(prefix))
    except WireError as error:
        raise QueryError(f"vhost {vhost!r}, prefix {prefix!r}: {error}") from None
    for camera in tenant.known:
        check_camera(tenant, camera)
    return tenant


def check_camera(tenant: Tenant, camera: object) -> None:
    """Raises QueryError for a camera that no key of the tenant can name."""
    check_name("camera", camera, tagged=keys.is_tagged(tenant.prefix))


def check_name(what: str, name: object, *, tagged: bool = False) -> None:
    """Raises QueryError for a name that no key can hold; ``tagged``: no key with a hash tag."""
    try:
        if not isinstance(name, str):
            raise WireError(f"{name!r} is no text")
        keys.check_names(name, tagged=tagged)
    except WireError as error:
        raise QueryError(f"{what}: {error}") from None


def _check_position(position: Mapping[str, str]) -> None:
    for camera, identifier in position.items():
        check_name("position: camera", camera)
        try:
            if not isinstance(identifier, str) or max(parse_entry_id(identifier)) > NANO_MAX:
                raise WireError(f"{identifier!r} is no journal id")
        except WireError as error:
            raise QueryError(f"position of camera {camera!r}: {error}") from None
