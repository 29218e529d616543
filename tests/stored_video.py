"""Stored video as a writer leaves it in Redis: access units, their journal, the writer's mark."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import redis

from engine.wire.journal import JournalEntry, entry_fields, entry_id
from engine.wire.keys import (
    FrameKey,
    build_video_key,
    next_sequence,
    video_journal_key,
    video_written_key,
)
from engine.wire.marks import Mark, format_mark

SECOND = 1_000_000_000
PREFIX = "frames"
TTL_MS = 300_000


class VideoUnit(NamedTuple):
    """An access unit of a camera, with its bytes."""

    camera: str
    entry: JournalEntry
    data: bytes

    def key(self, vhost: str, prefix: str = PREFIX) -> str:
        return build_video_key(FrameKey(vhost, prefix, self.camera, self.entry.unix_nano, self.entry.sequence))


def video_units(
    camera: str,
    pattern: str,
    *,
    first: int | None = None,
    sequence: int = 1,
    number: int = 1,
    encoding: str = "h264",
    fps: float = 25,
) -> list[VideoUnit]:
    """Units by a pattern: ``K`` a key frame, ``.`` another unit, ``-`` one that was never stored. The first is stamped
    ``first``, by default so that the last is stamped now. Entries are numbered from ``number``."""
    gap = round(SECOND / fps)
    begin = time.time_ns() - len(pattern) * gap if first is None else first
    found = []
    for place, letter in enumerate(pattern):
        if letter != "-":
            data = f"{camera} {sequence} {letter}".encode().ljust(400 if letter == "K" else 40, b".")
            nano = begin + place * gap
            entry = JournalEntry(
                nano, sequence, len(data), 640, 480, encoding, letter == "K", number, 40_000, nano - 80_000_000
            )
            found.append(VideoUnit(camera, entry, data))
            number += 1
        sequence = next_sequence(sequence)
    return found


def store_video(
    client: redis.Redis,
    vhost: str,
    units: Sequence[VideoUnit],
    *,
    prefix: str = PREFIX,
    ttl_ms: int = TTL_MS,
    payloads: bool = True,
) -> None:
    """Store units, oldest first, and the mark of each camera: all of its entries were written by one ring."""
    with client.pipeline(transaction=False) as pipeline:
        for unit in units:
            camera, entry, data = unit
            if payloads:
                pipeline.set(unit.key(vhost, prefix), data, px=ttl_ms)
            journal = video_journal_key(vhost, prefix, camera)
            pipeline.execute_command("XADD", journal, entry_id(entry.unix_nano, entry.sequence), *entry_fields(entry))
            pipeline.pexpire(journal, ttl_ms)
            mark = format_mark(Mark((entry.unix_nano, entry.sequence), entry.number, 0))
            pipeline.hset(video_written_key(vhost, prefix), camera, mark)
        pipeline.execute()
