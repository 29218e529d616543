"""How much is stored of some cameras, at a bounded cost, without I/O.

``stats`` reads the lifetime of every frame, which takes seconds where there are millions. Here a short journal is read
as a whole, and of a long one only its ends: its frames are counted by Redis, and their bytes follow from the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.client.frame import FrameEntry
from engine.client.ranges import FrameRange
from engine.client.tenant import Tenant
from engine.client.times import NANO_MAX
from engine.client.transport import Query

#: Entries that are read at each end of a long journal.
_SAMPLE = 50
#: Halvings of a journal's time until its oldest existing frame is known to one part in a thousand.
_HALVINGS = 10


class CameraUsage(msgspec.Struct, frozen=True):
    """What is stored of a camera: frames, their bytes, and the time stamps of the oldest and the newest one in
    nanoseconds (0 without frames). If not ``exact``, frames and bytes are estimates, and the oldest is about right."""

    id: str
    frames: int = 0
    bytes: int = 0
    oldest_nano: int = 0
    newest_nano: int = 0
    exact: bool = True


def usage(tenant: Tenant, cameras: Sequence[str], exact_max: int) -> Query[list[CameraUsage]]:
    """What is stored of some cameras. Journals of at most ``exact_max`` entries are read as a whole."""
    lengths = (yield [("XLEN", tenant.journal(camera)) for camera in cameras]) if cameras else []
    found = []
    for camera, length in zip(cameras, lengths, strict=True):
        if not length:
            found.append(CameraUsage(camera))
        elif length <= exact_max:
            found.append((yield from _counted(tenant, camera)))
        else:
            found.append((yield from _estimated(tenant, camera, length)))
    return found


def _counted(tenant: Tenant, camera: str) -> Query[CameraUsage]:
    frames = FrameRange(tenant, camera, 0, NANO_MAX, payload=False)
    entries: list[FrameEntry] = []
    while not frames.done:
        entries += yield from frames.chunk()
    if not entries:
        return CameraUsage(camera)
    size = sum(entry.size for entry in entries)
    return CameraUsage(camera, len(entries), size, entries[0].unix_nano, entries[-1].unix_nano)


def _estimated(tenant: Tenant, camera: str, length: int) -> Query[CameraUsage]:
    journal = tenant.journal(camera)
    first, last = yield [
        ("XRANGE", journal, "-", "+", "COUNT", _SAMPLE),
        ("XREVRANGE", journal, "+", "-", "COUNT", _SAMPLE),
    ]
    oldest, newest = tenant.parse(camera, first)[0], tenant.parse(camera, last)[0]
    if not oldest or not newest:
        return CameraUsage(camera, exact=False)
    begin, end = oldest[0].unix_nano, newest[0].unix_nano
    alive, there = yield [("EXISTS", oldest[0].key), ("EXISTS", newest[0].key)]
    if not there:
        return CameraUsage(camera, exact=False)
    living = begin if alive else (yield from _oldest_living(tenant, camera, begin, end))
    # Frames expire in the order of their time stamps; the journal is trimmed behind them now and then.
    share = (end - living) / (end - begin) if end > begin else 1.0
    count = max(round(length * share), 1)
    sample = [entry.size for entry in (*oldest, *newest)]
    return CameraUsage(camera, count, round(count * sum(sample) / len(sample)), living, end, exact=False)


def _oldest_living(tenant: Tenant, camera: str, gone: int, there: int) -> Query[int]:
    """About when the oldest frame that exists was captured: after ``gone``, and not after ``there``."""
    for _ in range(_HALVINGS):
        middle = (gone + there) // 2
        (reply,) = yield [("XRANGE", tenant.journal(camera), middle, "+", "COUNT", 1)]
        entries = tenant.parse(camera, reply)[0]
        if not entries or not gone < entries[0].unix_nano < there:
            # No entry lies between.
            gone = middle
            continue
        (alive,) = yield [("EXISTS", entries[0].key)]
        if alive:
            there = entries[0].unix_nano
        else:
            gone = entries[0].unix_nano
    return there
