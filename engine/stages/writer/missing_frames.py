"""After a node of the cluster was away: finds the stored frames that it has lost, although their entries remain.

A frame and its journal are on different nodes. If a node that failed had acknowledged frames that its successor never
got, the journals still list them. So for each camera, the newest entries whose frames lie in the node's slots are
compared to what is there, a piece at a time, back to a piece of which every frame is there. Frames are lost from the
newest back, because a replica lags behind. Frames that were stored after the failure prove nothing.

A frame that is gone counts as lost, and its entry is removed, so that no reader is told of a missing frame.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Container, Sequence
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
#: Counted entries of one camera that are remembered, because the journal lists them still.
_COUNTED_MAX = 10_000
#: Above all time stamps.
_NANO_END = 2**63
#: What the log says if a node answers with an error.
_UNCOUNTED = "frames that a node of the cluster loses are not counted"
#: Frames that were captured so shortly before a failure may have waited in their rings, and prove nothing.
_MARGIN_NANO = 2_000_000_000


class _Walk(NamedTuple):
    """How far back a camera's journal was looked at: to before ``entry``. It is looked at back to the time stamp
    ``until`` at least."""

    writer: CameraWriter
    entry: bytes
    until: int


class MissingFrames:
    """Asks through ``store``. ``warn_once(camera, event, error)`` reports refusals, and ``log`` lost frames."""

    def __init__(self, store: Caller, log: FilteringBoundLogger, warn_once: Callable[[str, str, str], None]) -> None:
        self._store = store
        self._log = log
        self._warn_once = warn_once
        self._slots: frozenset[int] = frozenset()
        self._walks: deque[_Walk] = deque()
        self._retry_at = 0.0
        self._frames = 0
        self._cameras: set[str] = set()
        #: By camera: entries that were counted and are not removed yet. No frame is counted twice.
        self._counted: dict[CameraWriter, dict[bytes, None]] = {}

    @property
    def pending(self) -> bool:
        """True while there is something to look at."""
        return bool(self._walks)

    def suspect(self, slots: set[int], writers: Sequence[CameraWriter], since_nano: int = _NANO_END) -> None:
        """Frames in ``slots`` may be lost, at least those captured before ``since_nano`` (UTC): look through the
        journals of ``writers`` again."""
        self._slots = self._slots | slots if self._walks else frozenset(slots)
        failed_nano = since_nano - _MARGIN_NANO
        until = {writer: min(writer.consumer.last_stored_nano or _NANO_END, failed_nano) for writer in writers}
        for walk in self._walks:
            # What it has not reached yet, the next walk must reach.
            until[walk.writer] = min(until.get(walk.writer, walk.until), walk.until, _nano(walk.entry))
        self._walks = deque(_Walk(writer, b"+", nano) for writer, nano in until.items())

    def keep(self, writers: Container[CameraWriter]) -> None:
        """Only ``writers`` are left."""
        self._walks = deque(walk for walk in self._walks if walk.writer in writers)
        self._counted = {writer: counted for writer, counted in self._counted.items() if writer in writers}

    def step(self, settled: Callable[[CameraWriter], bool]) -> None:
        """Look at one piece of the next camera that is ``settled``, if there is anything to look at."""
        if not self._walks or time.monotonic() < self._retry_at:
            return
        walk = next((walk for walk in self._walks if settled(walk.writer)), None)
        if walk is None:
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            return
        self._walks.remove(walk)
        try:
            following = self._look(walk)
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
            self._warn_once(writer.camera, _UNCOUNTED, str(reply))
            return None
        entries: list[JournalEntry] = []
        last = b""
        for item in reply:
            try:
                entry = parse_entry(*item)
            except (TypeError, WireError):
                continue
            last = item[0]
            if slots.of(entry.unix_nano, entry.sequence) in self._slots:
                entries.append(entry)
        asked = [framing.exists(entry.unix_nano, entry.sequence) for entry in entries]
        answers = self._store.call(asked) if asked else []
        refusal = next((answer for answer in answers if isinstance(answer, hiredis.ReplyError)), None)
        if refusal:
            self._warn_once(writer.camera, _UNCOUNTED, str(refusal))
        missing = [entry for entry, answer in zip(entries, answers, strict=True) if answer == 0]
        counted = self._count(writer, missing) if missing else 0
        if len(reply) < _PIECE or not last:
            return None
        clean = entries and not counted and _nano(last) <= walk.until
        return None if clean else walk._replace(entry=last)

    def _count(self, writer: CameraWriter, missing: Sequence[JournalEntry]) -> int:
        known = self._counted.setdefault(writer, {})
        ids = {b"%d-%d" % (entry.unix_nano, entry.sequence): entry for entry in missing}
        frames = [(entry.unix_nano, entry.size) for identifier, entry in ids.items() if identifier not in known]
        counted = writer.consumer.count_missing(frames, time.monotonic_ns())
        known.update(dict.fromkeys(ids))
        while len(known) > _COUNTED_MAX:
            del known[next(iter(known))]
        self._frames += counted
        self._cameras.add(writer.camera)
        # After the count: a kill in between leaves an entry, whose frame readers see as expired.
        replies = self._store.call([writer.framing.strike(identifier) for identifier in ids])
        for identifier, reply in zip(ids, replies, strict=True):
            if isinstance(reply, hiredis.ReplyError):
                self._warn_once(writer.camera, "entries of lost frames stay in the journal", str(reply))
            else:
                known.pop(identifier, None)
        return counted


def _nano(entry: bytes) -> int:
    """The time stamp of an id; of ``+``, one above all."""
    return _NANO_END if entry == b"+" else int(entry.partition(b"-")[0])
