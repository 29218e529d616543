"""After a node of the cluster was away: finds the stored frames that it has lost, although their entries stand.

A frame and its journal are on different nodes. If a node that failed had acknowledged frames that its successor never
got, the journals still list them. So for each camera, the newest entries whose frames lie in the node's slots are
compared to what is there, a piece at a time, back to a piece from before the failure of which every frame is there.
Frames are lost from the newest back, because a replica lags behind. A writer that begins looks for all slots: its
predecessor may have been killed before it could.

A frame that is gone counts as lost, and its entry is removed: nobody shall be told of a frame that is not there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from typing import NamedTuple

import hiredis
from structlog.typing import FilteringBoundLogger

from engine.errors import RedisUnavailable, WireError
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.store import Caller
from engine.wire.journal import JournalEntry, parse_entry

#: Entries of one piece.
_PIECE = 250
#: Seconds until a piece is tried again that a node did not answer.
_RETRY_SECONDS = 0.1


class _Walk(NamedTuple):
    """How far back a camera's journal was looked at: to before ``entry``."""

    writer: CameraWriter
    entry: bytes


class MissingFrames:
    """Asks through ``store``. ``warn_once(camera, event, error)`` reports refusals, and ``log`` lost frames."""

    def __init__(self, store: Caller, log: FilteringBoundLogger, warn_once: Callable[[str, str, str], None]) -> None:
        self._store = store
        self._log = log
        self._warn_once = warn_once
        self._slots: frozenset[int] = frozenset()
        self._since_nano = 0
        self._walks: deque[_Walk] = deque()
        self._retry_at = 0.0
        self._frames = 0
        self._cameras: set[str] = set()

    @property
    def pending(self) -> bool:
        """True while there is something to look at."""
        return bool(self._walks)

    def suspect(self, slots: Iterable[int], writers: Sequence[CameraWriter], since_nano: int) -> None:
        """Frames in ``slots`` may be lost, at least those captured shortly before ``since_nano`` (UTC): look through
        the journals of ``writers`` again."""
        self._since_nano = min(self._since_nano, since_nano) if self._walks else since_nano
        self._slots = self._slots.union(slots) if self._walks else frozenset(slots)
        self._walks = deque(_Walk(writer, b"+") for writer in writers)

    def keep(self, writers: Container[CameraWriter]) -> None:
        """Only ``writers`` are left."""
        self._walks = deque(walk for walk in self._walks if walk.writer in writers)

    def step(self, settled: Callable[[CameraWriter], bool]) -> None:
        """Look at one piece of the next camera that is ``settled``, if there is anything to look at."""
        if not self._walks or time.monotonic() < self._retry_at:
            return
        walk = self._walks.popleft()
        try:
            following = self._look(walk) if settled(walk.writer) else walk
        except RedisUnavailable:
            following = walk
        if following is walk:
            self._walks.append(walk)
            self._retry_at = time.monotonic() + _RETRY_SECONDS
        elif following:
            self._walks.appendleft(following)
        if not self._walks and self._frames:
            self._log.warning(
                "redis lost frames that it had acknowledged", frames=self._frames, cameras=len(self._cameras)
            )
            self._frames, self._cameras = 0, set()

    def _look(self, walk: _Walk) -> _Walk | None:
        """Look at one piece; returns where to go on, None if that is the end. Raises RedisUnavailable."""
        writer = walk.writer
        framing, slots = writer.framing, writer.slots
        (reply,) = self._store.call([framing.newest_before(walk.entry, _PIECE)])
        if not isinstance(reply, list):
            return None
        entries: list[JournalEntry] = []
        last, last_nano = b"", 0
        for item in reply:
            try:
                entry = parse_entry(*item)
            except (TypeError, WireError):
                continue
            last, last_nano = item[0], entry.unix_nano
            if slots.of(entry.unix_nano, entry.sequence) in self._slots:
                entries.append(entry)
        asked = [framing.exists(entry.unix_nano, entry.sequence) for entry in entries]
        answers = self._store.call(asked) if asked else []
        refusal = next((answer for answer in answers if isinstance(answer, hiredis.ReplyError)), None)
        if refusal:
            self._warn_once(writer.camera, "frames that a node of the cluster loses are not counted", str(refusal))
        missing = [entry for entry, answer in zip(entries, answers, strict=True) if answer == 0]
        counted = self._count(writer, missing) if missing else 0
        more = counted or last_nano >= self._since_nano
        return _Walk(writer, last) if more and len(reply) == _PIECE and last else None

    def _count(self, writer: CameraWriter, missing: Sequence[JournalEntry]) -> int:
        frames = [(entry.unix_nano, entry.size) for entry in missing]
        counted = writer.consumer.count_missing(frames, time.monotonic_ns())
        self._frames += counted
        self._cameras.add(writer.camera)
        # After the count: a kill in between leaves an entry, whose frame readers see as expired.
        ids = [b"%d-%d" % (entry.unix_nano, entry.sequence) for entry in missing]
        for reply in self._store.call([writer.framing.strike(identifier) for identifier in ids]):
            if isinstance(reply, hiredis.ReplyError):
                self._warn_once(writer.camera, "entries of lost frames stay in the journal", str(reply))
        return counted
