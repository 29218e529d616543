"""After trouble: asks Redis which of the frames in doubt it has, and corrects the counts.

``CameraWriter`` knows a camera's frames in doubt, and applies the answers to its counts. An acknowledged frame may also
be gone, because the server came back without its data or another server replaced it.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence

import hiredis
from structlog.typing import FilteringBoundLogger

from engine.errors import WireError
from engine.shm.ring import Record
from engine.stages.capture.clock import AHEAD_NANO_MAX, latest_floor
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.store import Caller, Refused
from engine.wire.journal import NO_JOURNAL, JournalSpan, parse_span
from engine.wire.replies import first_numbers, foreign_key
from engine.wire.rfc3339 import rfc3339

#: Seconds between checks which acknowledged frames Redis still has.
_LOSS_SECONDS = 10.0
#: Commands in one lookup round trip.
_LOOKUPS_MAX = 256


class Reconciler:
    """Asks through ``store``, while no batch is in flight. ``warn_once(camera, event, error)`` reports findings, and
    ``log`` reports lost frames.

    All methods raise RedisUnavailable, and may then be called again.
    """

    def __init__(self, store: Caller, log: FilteringBoundLogger, warn_once: Callable[[str, str, str], None]) -> None:
        self._store = store
        self._log = log
        self._warn_once = warn_once
        self._loss_at = 0.0

    def settle_refused(self, writer: CameraWriter) -> str:
        """Find out which of a camera's refused entries exist already. The frames of the others are deleted, and access
        units that need one of these.

        Returns why the journal will refuse later frames too; empty if it will accept them.
        """
        standing = self._standing(writer, writer.refused_records)
        given_up = writer.given_up(standing)
        obstacle = ""
        if given_up:
            self._store.call([writer.framing.discard(record.unix_nano, record.sequence) for record in given_up])
            obstacle = self.obstacle(writer)
        error = writer.settle_refused(standing)
        if error and not obstacle:
            self._warn_once(writer.camera, "journal entry refused", error)
        return obstacle

    def obstacle(self, writer: CameraWriter) -> str:
        """Why a camera's journal accepts no frames, with the remedy; empty if it accepts the next ones.

        A last entry somewhat ahead of the clock becomes the floor of the next time stamps. An entry far ahead was
        written by no camera, and blocks all frames until it is removed.
        """
        journal, reply = writer.framing.journal, self._store.call([writer.framing.describe()])[0]
        if _bad(reply) and str(reply).startswith("WRONGTYPE"):
            return foreign_key(journal)
        span = self._span(writer, reply)
        # A user without the right to XINFO may still read entries.
        last_nano = span.last[0] if span else first_numbers(self._store.call([writer.framing.newest()])[0])[0]
        if last_nano <= max(latest_floor(), writer.consumer.last_nano + AHEAD_NANO_MAX):
            writer.consumer.raise_floor(last_nano)
            return ""
        return (
            f"{journal} has an entry of {rfc3339(last_nano)}, which is no camera's, and takes none before it; "
            f"remove it: redis-cli DEL {shlex.quote(journal)}, and list again what it listed: edge-video reindex"
        )

    def reconnected(self, writers: Sequence[CameraWriter]) -> None:
        """A new connection: count the frames lost meanwhile, and find out which dropped frames are stored."""
        self.count_lost(writers)
        for writer in writers:
            writer.reconnected()
        self._settle_doubtful(writers)

    def look(self, writers: Sequence[CameraWriter]) -> None:
        """Settle doubts and count lost frames if it is time; called regularly while Redis works."""
        self._settle_doubtful(writers)
        if time.monotonic() >= self._loss_at:
            self._loss_at = time.monotonic() + _LOSS_SECONDS
            self.count_lost(writers)

    def count_lost(self, writers: Sequence[CameraWriter]) -> None:
        """Count the acknowledged frames that Redis no longer has; logged once for all cameras."""
        frames = cameras = 0
        try:
            for first in range(0, len(writers), _LOOKUPS_MAX):
                part = writers[first : first + _LOOKUPS_MAX]
                replies = self._store.call([writer.framing.describe() for writer in part])
                for writer, reply in zip(part, replies, strict=True):
                    span = self._span(writer, reply)
                    count = writer.consumer.count_lost(span, time.monotonic_ns()) if span else 0
                    frames += count
                    cameras += bool(count)
        finally:
            if frames:
                self._log.warning("redis lost frames that it had acknowledged", frames=frames, cameras=cameras)

    def _settle_doubtful(self, writers: Sequence[CameraWriter]) -> None:
        for writer in writers:
            if writer.doubtful:
                writer.settle_doubtful(self._standing(writer, writer.doubtful))

    def _standing(self, writer: CameraWriter, records: Sequence[Record]) -> set[int]:
        """The sequences of those ``records`` that have a journal entry."""
        found: set[int] = set()
        for first in range(0, len(records), _LOOKUPS_MAX):
            part = records[first : first + _LOOKUPS_MAX]
            replies = self._store.call([writer.framing.lookup(record.unix_nano, record.sequence) for record in part])
            for record, reply in zip(part, replies, strict=True):
                if _bad(reply):
                    self._check_final(reply)
                elif reply:
                    found.add(record.sequence)
        return found

    def _span(self, writer: CameraWriter, reply: object) -> JournalSpan | None:
        """The span of a journal; None if it is unknown."""
        text = str(reply)
        if not _bad(reply):
            try:
                return parse_span(reply if isinstance(reply, list) else [])
            except WireError as error:
                text = str(error)
        elif "no such key" in text:
            return NO_JOURNAL
        else:
            self._check_final(reply)
        self._warn_once(writer.camera, "frames that redis loses are not counted", text)
        return None

    def _check_final(self, error: object) -> None:
        """Raises Refused for an error that waiting can cure, such as a server that is still loading."""
        if not str(error).startswith(("NOPERM", "WRONGTYPE")):
            raise Refused(f"Redis at {self._store.address} takes no frames: {error}")


def _bad(reply: object) -> bool:
    return isinstance(reply, hiredis.ReplyError)
