"""What a Redis holds of a camera's video, checked against the stream that the camera sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import redis

from engine.wire.journal import JournalEntry, parse_entry
from engine.wire.keys import FrameKey, build_video_key, next_sequence, video_journal_key
from tests.servers.clips import Stream


class StoredUnit(NamedTuple):
    """An access unit in Redis: its journal entry and its bytes."""

    entry: JournalEntry
    data: bytes


def stored_units(client: redis.Redis, camera: str, vhost: str = "default", prefix: str = "frames") -> list[StoredUnit]:
    """All units of a camera, in the order of its journal; each has its bytes."""
    found = []
    for identifier, fields in client.xrange(video_journal_key(vhost, prefix, camera)):
        flat = [part for pair in fields.items() for part in pair]
        entry = parse_entry(identifier, flat)
        key = FrameKey(vhost, prefix, camera, entry.unix_nano, entry.sequence)
        data = client.get(build_video_key(key))
        assert data is not None, f"the journal lists {key}, which is not stored"
        assert len(data) == entry.size
        found.append(StoredUnit(entry, data))
    return found


def runs_of(units: Sequence[StoredUnit]) -> list[list[StoredUnit]]:
    """``units`` in parts without a gap in their sequences; each must begin with a key frame."""
    runs: list[list[StoredUnit]] = []
    expected = 0
    for unit in units:
        if unit.entry.sequence != expected:
            runs.append([])
        runs[-1].append(unit)
        expected = next_sequence(unit.entry.sequence)
    assert all(run[0].entry.keyframe for run in runs), "what stands behind a gap does not decode"
    return runs


def places_of(units: Sequence[StoredUnit], stream: Stream) -> list[int]:
    """The index in ``stream`` of each unit, whose bytes must be those of the camera, bit by bit."""
    places: dict[bytes, list[int]] = {}
    for number, unit in enumerate(stream.units):
        places.setdefault(unit.annexb, []).append(number)
    found: list[int] = []
    for unit in units:
        candidates = places.get(unit.data)
        assert candidates, f"unit {unit.entry.sequence} ({unit.entry.size} bytes) is none that the camera sent"
        following = [place for place in candidates if found and place > found[-1]]
        found.append(following[0] if following else candidates[0])
    return found
