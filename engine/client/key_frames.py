"""Finds the key frame from which a moment's picture can be decoded, in the camera's journal."""

from __future__ import annotations

from engine.client.tenant import ENTRIES_MAX, VideoTenant
from engine.client.times import NANO_MAX
from engine.client.transport import Query
from engine.client.video import VideoEntry
from engine.servers.redis.errors import Command
from engine.wire.rfc3339 import NANO

#: How much later than it is shown a unit may arrive, in nanoseconds. Reordering by B-frames makes some tenths of a
#: second. A unit that arrives later still is not looked for.
LATE_NANO_MAX = 2 * NANO
#: Entries of the first round trip: LATE_NANO_MAX and a usual distance of key frames.
_ENTRIES_FIRST = 256


def units_for(
    tenant: VideoTenant, camera: str, moment: int | None, *, before: str | None = None, living: bool = False
) -> Query[list[VideoEntry]]:
    """The entries from the last key frame that is shown at or before nanosecond ``moment`` (None: from the newest key
    frame) to those that arrive LATE_NANO_MAX after ``moment``, in decode order.

    If no key frame is shown so early, the list begins with the oldest. It is empty if there is no key frame at all.
    ``before``: only entries before this id. If ``living``, the key frame must exist still.
    """
    top = "+" if moment is None else f"{min(max(moment + LATE_NANO_MAX, 0), NANO_MAX)}"
    top = top if before is None else f"({before}"
    count = _ENTRIES_FIRST
    found: list[VideoEntry] = []
    usable = 0
    while True:
        (reply,) = yield [("XREVRANGE", tenant.journal(camera), top, "-", "COUNT", count)]
        gone = (yield from _gone_keys(tenant.units(camera, reply))) if living else ()
        for item in reply:
            # One at a time: the key frame is mostly near.
            for entry in tenant.units(camera, [item]):
                found.append(entry)
                if entry.keyframe and entry.key not in gone:
                    usable = len(found)
                    if moment is None or entry.shown_nano <= moment:
                        return found[::-1]
        if len(reply) < count:
            return found[:usable][::-1]
        top, count = f"({reply[-1][0].decode()}", ENTRIES_MAX


def _gone_keys(entries: list[VideoEntry]) -> Query[set[str]]:
    """The keys of key frames that do not exist any more."""
    keys = [entry.key for entry in entries if entry.keyframe]
    commands: list[Command] = [("EXISTS", key) for key in keys]
    alive = (yield commands) if commands else []
    return {key for key, there in zip(keys, alive, strict=True) if not there}
