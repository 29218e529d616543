"""Renames frames under old keys (``engine/wire/old_keys.py``) to new keys, and lists them in the journals.

For each camera, the job first adds the frames to its journal and then renames them, one by one. RENAMENX moves a frame
with its lifetime and without a copy, or does nothing. A kill in between leaves entries whose frames do not have their
new key yet; readers skip these. The next run finds the old keys and continues. If the new key already exists, both
values are compared. The same bytes are the same frame (a copy made by another script), and the old key is removed.
Different bytes are a conflict, and both keys stay.

In a cluster the two keys mostly lie on different nodes, where nothing can be renamed. There, the frame is copied with
its bytes and the moment at which it ends, and then the old key is removed. After a kill in between, the next run finds
the same bytes under both keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from engine.errors import WireError
from engine.jobs.journal_rebuild import WITHOUT_TTL, merge_entries
from engine.jobs.keyspace_scan import Ears, Named, Stored, look_at, scan_frames
from engine.jobs.stored_names import StoredNames
from engine.servers.redis.errors import Command
from engine.servers.redis.session import BATCH_MAX, Session, batches, glob_literal, is_error
from engine.wire import keys
from engine.wire.journal import entry_id
from engine.wire.old_keys import parse_old_key

#: Frames whose bytes are held at a time, in a cluster.
_COPIES_MAX = 32
#: PEXPIRETIME's reply for a key that does not exist.
GONE = -2


class CameraMigration(msgspec.Struct):
    """Counts of one camera's frames under old keys.

    ``found`` and their ``bytes``. ``moved``: verified under their new keys, and listed. ``duplicates``: already under
    their new keys. ``expired``: during the run. ``conflicts``: another frame has the new key. ``deferred``: for a later
    run, mostly because they are too new for the journal of a running site.
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
    """One run over a server. ``vhost`` None migrates all tenants; with ``dry_run`` it only counts."""

    def __init__(self, session: Session, prefix: str, vhost: str | None, ears: Ears, *, dry_run: bool = False) -> None:
        self._session = session
        self._prefix = prefix
        self._vhost = vhost
        self._ears = ears
        self._dry_run = dry_run
        self._cameras: dict[tuple[str, str], CameraMigration] = {}

    def run(self) -> list[CameraMigration]:
        """Migrate. Returns the counts per camera. Raises RedisUnavailable; it is safe to run again."""
        for part in scan_frames(self._session, self.pattern, self._parse, self._ears):
            for (vhost, camera), named in part.items():
                report = self._cameras.setdefault((vhost, camera), CameraMigration(vhost, camera))
                self._migrate(named, report)
        return [report for _, report in sorted(self._cameras.items()) if report.found or report.expired]

    def left(self) -> int:
        """The number of frames under old keys now."""
        parts = scan_frames(self._session, self.pattern, self._parse, Ears(step=self._ears.step))
        return sum(len(look_at(self._session, named, Ears())[0]) for part in parts for named in part.values())

    @property
    def pattern(self) -> str:
        """The SCAN pattern of old keys."""
        # The broker's default vhost had no name then, or was called "/".
        tenant = "" if self._vhost in (None, keys.DEFAULT_VHOST) else glob_literal(f"{self._vhost}:")
        return f"{glob_literal(self._prefix)}:{tenant}*"

    def _parse(self, name: bytes) -> keys.FrameKey | None:
        """The frame of an old key; None for keys of other tenants, and for new keys. Raises WireError."""
        try:
            keys.parse_frame_key(name)
            return None
        except WireError:
            key = parse_old_key(name, self._prefix)
        if self._vhost not in (None, key.vhost):
            return None
        if key.vhost == keys.ENGINE or {key.prefix, key.camera} & keys.RESERVED_WORDS:
            raise WireError(f"key {name!r} names a tenant or camera as the engine's own keys are named")
        # A name that no key can hold is an error here, and not while frames are moved.
        keys.frame_key_prefix(*key[:3])
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
        names = StoredNames(report.vhost, self._prefix)
        merged = merge_entries(self._session, names, report.camera, entries, ttl_ms)
        # The others would be under their new keys without being listed; they wait for a later run.
        report.deferred += sum(frame.identifier >= merged.limit for frame in wanted)
        size = _COPIES_MAX if self._session.address.cluster else BATCH_MAX
        for some in batches([frame for frame in frames if frame.identifier < merged.limit], size):
            self._rename(list(some), report)
        for some in batches([copy for copy in copies if copy.identifier < merged.limit]):
            self._drop_copies(some, report)

    def _sort_out(self, frames: list[Stored], report: CameraMigration) -> tuple[list[Stored], list[Stored]]:
        """The frames whose new keys are free, one per key, and copies of frames that already have their new keys."""
        free: dict[str, Stored] = {}
        copies: list[Stored] = []
        names = [keys.build_frame_key(frame.key) for frame in frames]
        there = self._exist(names)
        for frame, name, taken in zip(frames, names, there, strict=True):
            if not taken and name not in free:
                free[name] = frame
            elif self._same(frame.name, name if taken else free[name].name, report):
                copies.append(frame)
        return list(free.values()), copies

    def _drop_copies(self, copies: Sequence[Stored], report: CameraMigration) -> None:
        """Remove old keys whose frames also have new keys. The new keys get at least the lifetime of the old ones.

        Nodes of a cluster answer at different moments, so they are asked when keys end, not how long they live. One
        server before version 7 does not say so. It is asked for the new key first: then a copy that ends with its
        original is never taken for one that ends earlier.
        """
        names = [keys.build_frame_key(copy.key) for copy in copies]
        asked = [key for copy, name in zip(copies, names, strict=True) for key in (name, copy.name)]
        ask, give = ("PEXPIRETIME", "PEXPIREAT") if self._session.address.cluster else ("PTTL", "PEXPIRE")
        lives = self._session.call(*((ask, key) for key in asked))
        commands: list[Command] = []
        for name, will, would in zip(names, lives[0::2], lives[1::2], strict=True):
            if would == WITHOUT_TTL:
                commands.append(("PERSIST", name))
            elif WITHOUT_TTL < will < would:
                commands.append((give, name, would))
        if commands:
            # Not together with what follows: another node would remove an old key while this one has gone.
            self._session.call(*commands)
        (dropped,) = self._session.call(("UNLINK", *(copy.name for copy in copies)))
        report.duplicates += dropped

    def _same(self, name: bytes, other: str | bytes, report: CameraMigration) -> bool:
        """Whether both keys hold the same bytes. If not, a conflict is counted."""
        ours, theirs = self._session.try_call(("GET", name), ("GET", other))
        if ours == theirs:
            return True
        if theirs is None:
            # The new key has just expired; it is free for the next run.
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
        replies = self._copy(commands) if self._session.address.cluster else self._session.try_call(*commands)
        for frame, command, reply in zip(frames, commands, replies, strict=True):
            if reply == 1:
                moved.append(frame)
            elif is_error(reply) and "no such key" in str(reply):
                report.expired += 1
            elif is_error(reply):
                self._session.check([command], [reply])
            else:
                # The new key was taken since it was checked; the next run sorts it out.
                report.conflicts += 1
                self._ears.leave(frame.name, f"another frame has its new key: {command[2]}")
        self._verify(moved, report)

    def _copy(self, commands: Sequence[Command]) -> list[Any]:
        """What RENAMENX does, between nodes of a cluster; the replies are those of RENAMENX."""
        asked = [one for _, name, _ in commands for one in (("GET", name), ("PEXPIRETIME", name))]
        found = self._session.call(*asked)
        replies: list[Any] = []
        writes: list[Command] = []
        for (_, _, new), data, ends_ms in zip(commands, found[0::2], found[1::2], strict=True):
            gone = data is None or ends_ms == GONE
            replies.append(ResponseError("no such key") if gone else None)
            if not gone:
                writes.append(("SET", new, data, *(() if ends_ms == WITHOUT_TTL else ("PXAT", ends_ms)), "NX"))
        written = iter(self._session.call(*writes))
        replies = [int(next(written) is not None) if reply is None else reply for reply in replies]
        moved = [name for (_, name, _), reply in zip(commands, replies, strict=True) if reply == 1]
        if moved:
            self._session.call(("UNLINK", *moved))
        return replies

    def _verify(self, moved: list[Stored], report: CameraMigration) -> None:
        """Count the moved frames by reading each frame and its entry."""
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
        """How many of these frames do not exist under their new keys."""
        return self._exist([keys.build_frame_key(key) for key in frames]).count(0)

    def _exist(self, names: Sequence[str]) -> list[int]:
        """For each key, 1 if it exists, else 0. Raises RedisUnavailable, also if one node cannot say so."""
        commands: list[Command] = [("EXISTS", name) for name in names]
        return self._session.check(commands, self._session.call_many(commands))
