"""The latest known stamp of each camera, and which journal entries are so far ahead of it that no camera wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import WireError
from engine.stages.capture.clock import AHEAD_NANO_MAX, latest_floor
from engine.stages.publisher.account import Id
from engine.stages.publisher.reads import CameraRead, within
from engine.wire.journal import JournalEntry, parse_entry, parse_entry_id


class KnownStamps:
    """Stamps of cameras, in UTC nanoseconds. The clock may have been set back since a camera wrote its last one."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def see(self, ids: Mapping[str, Id]) -> None:
        """These ids are of entries that the cameras have written."""
        for camera, (nano, _) in ids.items():
            if nano > self._known.get(camera, 0):
                self._known[camera] = nano

    def forget(self, camera: str) -> None:
        """A camera was removed."""
        self._known.pop(camera, None)

    def latest(self, camera: str) -> int:
        """The latest stamp that an entry of this camera may have."""
        return max(latest_floor(), self._known.get(camera, 0) + AHEAD_NANO_MAX)

    def parse(self, camera: str, found: list[list[Any]], floor: int) -> CameraRead | None:
        """The entries of one stream's reply; None if all of them are too far ahead. No stamp up to ``floor`` is too far
        ahead. Raises WireError if the reply has no valid id."""
        entries: list[JournalEntry] = []
        for identifier, fields in found:
            try:
                entries.append(parse_entry(identifier, fields))
            except WireError:
                continue
        unreadable = len(found) - len(entries)
        last = parse_entry_id(found[-1][0]) if unreadable else (entries[-1].unix_nano, entries[-1].sequence)
        if last[0] > floor and last[0] > (latest := self.latest(camera)):
            while found and not within(found[-1][0], latest):
                found.pop()
            return self.parse(camera, found, latest) if found else None
        return CameraRead(camera, entries, last, unreadable)
