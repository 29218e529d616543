"""Frames under the old keys (``engine/wire/old_keys.py``) get the new ones, and are listed in the journals.

For each camera the frames are first entered in its journal and then renamed, one by one: RENAMENX moves a frame with
its lifetime and without a copy, or does nothing. A kill in between leaves entries whose frames have no new name yet,
which readers pass over; the next run finds the old names and goes on. A new name that is taken already is looked at:
the same bytes are the same frame (a copy that another script made), and the old name goes; other bytes are a conflict,
and both stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.errors import WireError
from engine.jobs.journal_rebuild import WITHOUT_TTL, merge_entries
from engine.jobs.keyspace_scan import Ears, Named, Stored, look_at, scan_frames
from engine.servers.redis.errors import Command
from engine.servers.redis.session import Session, batches, glob_literal, is_error
from engine.wire import keys
from engine.wire.journal import entry_id
from engine.wire.old_keys import parse_old_key


class CameraMigration(msgspec.Struct):
    """One camera's frames under old keys.

    ``found`` of ``bytes``; ``moved``: seen at their new keys, and listed, afterwards; ``duplicates``: there already;
    ``expired`` meanwhile; ``conflicts``: another frame has the new key; ``deferred``: for a later run, mostly because
    it is too new for the journal of a running site.
    """

    vhost: str
    camera: str
    found: int = 0
    bytes: int = 0
    moved: int = 0
    duplicates: int = 0
    expired: int = 0
    conflicts: int = 0
    deferred: int = 0


class Migration:
    """One run over a server. ``vhost`` None migrates all tenants; ``dry_run`` only counts."""

    def __init__(self, session: Session, prefix: str, vhost: str | None, ears: Ears, *, dry_run: bool = False) -> None:
        self._session = session
        self._prefix = prefix
        self._vhost = vhost
        self._ears = ears
        self._dry_run = dry_run
        self._cameras: dict[tuple[str, str], CameraMigration] = {}

    def run(self) -> list[CameraMigration]:
        """Migrate; returns what was done, camera by camera. Raises RedisUnavailable; run again then."""
        for part in scan_frames(self._session, self.pattern, self._parse, self._ears):
            for (vhost, camera), named in part.items():
                report = self._cameras.setdefault((vhost, camera), CameraMigration(vhost, camera))
                self._migrate(named, report)
        return [report for _, report in sorted(self._cameras.items()) if report.found or report.expired]

    def left(self) -> int:
        """Count the frames that stand under old keys now."""
        parts = scan_frames(self._session, self.pattern, self._parse, Ears(step=self._ears.step))
        return sum(len(look_at(self._session, named, Ears())[0]) for part in parts for named in part.values())

    @property
    def pattern(self) -> str:
        """What the old keys look like to SCAN."""
        # The broker's default vhost had no name then, or was called "/".
        tenant = "" if self._vhost in (None, keys.DEFAULT_VHOST) else glob_literal(f"{self._vhost}:")
        return f"{glob_literal(self._prefix)}:{tenant}*"

    def _parse(self, name: bytes) -> keys.FrameKey | None:
        """The frame of an old key; None for other tenants', and for new keys. Raises WireError."""
        try:
            keys.parse_frame_key(name)
            return None
        except WireError:
            key = parse_old_key(name, self._prefix)
        if self._vhost not in (None, key.vhost):
            return None
        if key.vhost == keys.ENGINE or {key.prefix, key.camera} & keys.RESERVED_WORDS:
            raise WireError(f"key {name!r} names a tenant or camera as the engine's own keys are named")
        return key

    def _migrate(self, named: Named, report: CameraMigration) -> None:
        frames, gone = look_at(self._session, named, self._ears)
        report.expired += self._expired([key for _, key in gone])
        report.found += len(frames)
        report.bytes += sum(frame.entry.size for frame in frames)
        if self._dry_run or not frames:
            return
        frames, copies = self._sort_out(frames, report)
        wanted = frames + copies
        if not wanted:
            return
        lifetimes = [frame.ttl_ms for frame in wanted]
        ttl_ms = WITHOUT_TTL if WITHOUT_TTL in lifetimes else max(lifetimes)
        entries = [frame.entry for frame in wanted]
        merged = merge_entries(self._session, report.vhost, self._prefix, report.camera, entries, ttl_ms)
        # The others would stand under their new keys without being listed; they wait for a later run.
        report.deferred += sum(frame.identifier >= merged.limit for frame in wanted)
        for some in batches([frame for frame in frames if frame.identifier < merged.limit]):
            self._rename(list(some), report)
        for some in batches([copy for copy in copies if copy.identifier < merged.limit]):
            self._drop_copies(some, report)

    def _sort_out(self, frames: list[Stored], report: CameraMigration) -> tuple[list[Stored], list[Stored]]:
        """The frames whose new keys are free, one for each key, and copies of frames that have their new keys."""
        free: dict[str, Stored] = {}
        copies: list[Stored] = []
        names = [keys.build_frame_key(frame.key) for frame in frames]
        there = self._session.call_many([("EXISTS", name) for name in names])
        for frame, name, taken in zip(frames, names, there, strict=True):
            if not taken and name not in free:
                free[name] = frame
            elif self._same(frame.name, name if taken else free[name].name, report):
                copies.append(frame)
        return list(free.values()), copies

    def _drop_copies(self, copies: Sequence[Stored], report: CameraMigration) -> None:
        """Remove old keys whose frames have their new ones, where they live on as long as they would have."""
        names = [keys.build_frame_key(copy.key) for copy in copies]
        asked = [key for copy, name in zip(copies, names, strict=True) for key in (copy.name, name)]
        lifetimes = self._session.call(*(("PTTL", key) for key in asked))
        commands: list[Command] = []
        for name, would_ms, will_ms in zip(names, lifetimes[0::2], lifetimes[1::2], strict=True):
            if would_ms == WITHOUT_TTL:
                commands.append(("PERSIST", name))
            elif WITHOUT_TTL < will_ms < would_ms:
                commands.append(("PEXPIRE", name, would_ms))
        replies = self._session.call(*commands, ("UNLINK", *(copy.name for copy in copies)))
        report.duplicates += replies[-1]

    def _same(self, name: bytes, other: str | bytes, report: CameraMigration) -> bool:
        """Whether the same bytes stand at both; if not, that is a conflict."""
        ours, theirs = self._session.try_call(("GET", name), ("GET", other))
        if ours == theirs:
            return True
        if theirs is None:
            # It has just expired, and the new key is free for the next run.
            report.deferred += 1
            return False
        report.conflicts += 1
        standing = other if isinstance(other, str) else other.decode("utf-8", "backslashreplace")
        self._ears.leave(name, f"another frame has its new key: {standing}")
        return False

    def _rename(self, frames: list[Stored], report: CameraMigration) -> None:
        names = [keys.build_frame_key(frame.key) for frame in frames]
        commands = [("RENAMENX", frame.name, name) for frame, name in zip(frames, names, strict=True)]
        moved: list[Stored] = []
        for frame, command, reply in zip(frames, commands, self._session.try_call(*commands), strict=True):
            if reply == 1:
                moved.append(frame)
            elif is_error(reply) and "no such key" in str(reply):
                report.expired += 1
            elif is_error(reply):
                self._session.check([command], [reply])
            else:
                # Taken since it was looked at; the next run sorts it out.
                report.conflicts += 1
                self._ears.leave(frame.name, f"another frame has its new key: {command[2]}")
        self._verify(moved, report)

    def _verify(self, moved: list[Stored], report: CameraMigration) -> None:
        """Count what was moved by looking for it: the frame and its entry."""
        journal = keys.journal_key(report.vhost, self._prefix, report.camera)
        ids = [entry_id(*frame.identifier) for frame in moved]
        listed = self._session.call(*(("XRANGE", journal, identifier, identifier) for identifier in ids))
        gone = self._expired([frame.key for frame in moved])
        report.expired += gone
        report.moved += len(moved) - gone
        for frame, found in zip(moved, listed, strict=True):
            if not found:
                self._ears.leave(frame.name, "moved, but no longer listed: it is older than the site keeps frames")

    def _expired(self, frames: list[keys.FrameKey]) -> int:
        """How many of these do not stand under their new keys."""
        there = self._session.call_many([("EXISTS", keys.build_frame_key(key)) for key in frames])
        return there.count(0)
