"""Inserts entries into a journal in order of time, while a site writes to it.

A stream only takes entries newer than its last, so older ones need a new stream. This job builds a draft from the old
stream's entries and the added ones in order. Then the draft replaces the old stream in one transaction, which watches
the old one since its last read. If the site has written meanwhile, the transaction does nothing; the job copies the new
entries too, and tries again. So no entry of the site is lost, and readers find the old stream or the new one, both
complete. The job begins again if another job has swapped the journal meanwhile, or if this job paused so long that its
draft lost entries.

If a journal is being written, entries newer than its last are left out. With them in place, the site's next frames
could no longer be listed, because they may have waited in a ring. A kill leaves at most an incomplete draft, which
expires; the journal is the old one or the new one.

In a cluster a transaction is about keys of one slot. So draft and swap have names there that lie in the journal's slot
(``engine/wire/slot_names.py``), and one node does it all.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from engine.errors import EngineError, RedisUnavailable, WireError
from engine.jobs.stored_names import StoredNames
from engine.servers.redis.errors import Command
from engine.servers.redis.session import BATCH_MAX, Session, batches, is_error
from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_fields, entry_id, parse_entry_id
from engine.wire.rfc3339 import NANO
from engine.wire.state import CameraStatus, decode_status, encode_status

#: Milliseconds after which an abandoned draft expires.
_ABANDONED_MS = 60_000
#: Milliseconds that a swap is remembered: longer than any draft that it could make obsolete.
_REMEMBERED_MS = 10 * _ABANDONED_MS
#: Tries to replace the journal; with a site at 1000 frames a second, every second try succeeds.
_TRIES_MAX = 200
#: The same, and seconds between two of them, while a node of a cluster cannot serve the journal.
_MOVES_MAX = 25
_MOVE_SECONDS = 0.2
#: The journal of a camera that is up counts as being written until its last entry is this old, in nanoseconds. If a
#: site was cut off from Redis for longer, frames may be refused when it reconnects; it counts them.
_WRITTEN_NANO = 60 * NANO
#: PTTL's reply for a key without a lifetime.
WITHOUT_TTL = -1


class Merged(NamedTuple):
    """The number of entries added, and the id from which on entries are too new to add now."""

    added: int
    limit: tuple[int, int]


class _Overtaken(Exception):
    """The copied entries no longer match the journal; the rebuild begins again."""


def merge_entries(
    session: Session, names: StoredNames, camera: str, entries: Sequence[JournalEntry], ttl_ms: int
) -> Merged:
    """Add ``entries`` (in any order) to a camera's journal. Entries that it already lists stay unchanged.

    The journal then lives for at least ``ttl_ms``, or for ever with WITHOUT_TTL. The camera is added to the tenant's
    list. Raises RedisUnavailable, and EngineError if the journal changes in every try.
    """
    journal = names.journal(camera)
    limit = _limit(session, names, camera)
    unique = sorted({(entry.unix_nano, entry.sequence): entry for entry in entries}.items())
    missing = _missing(session, journal, [entry for identifier, entry in unique if identifier < limit])
    for attempt in range(1, _TRIES_MAX + 1):
        if not missing:
            break
        try:
            _Rebuild(session, names, camera, missing, ttl_ms).run()
            break
        except _Overtaken:
            if attempt == _TRIES_MAX:
                raise EngineError(f"journal {journal!r} is changed by others all the time; stop them") from None
        except RedisUnavailable:
            # The journal's slot goes to another node of the cluster.
            if not session.address.cluster or attempt >= _MOVES_MAX:
                raise
            time.sleep(_MOVE_SECONDS)
        missing = _missing(session, journal, missing)
    list_camera(session, names, camera)
    return Merged(len(missing), limit)


def list_camera(session: Session, names: StoredNames, camera: str) -> None:
    """Add a camera to the tenant's list, if it is missing."""
    session.call(("HSETNX", keys.cameras_key(names.vhost, names.prefix), camera, encode_status(CameraStatus())))


def drop_entries(session: Session, journal: str, identifiers: Sequence[bytes]) -> int:
    """Remove entries from a journal by their ids. Returns how many existed."""
    return sum(session.call(("XDEL", journal, *part))[0] for part in batches(identifiers))


def _limit(session: Session, names: StoredNames, camera: str) -> tuple[int, int]:
    """The id from which on entries are too new: the journal's last if a site writes it, else the current time, because
    no entry may be in the future."""
    journal, states = names.journal(camera), keys.cameras_key(names.vhost, names.prefix)
    newest, state = session.call(("XREVRANGE", journal, "+", "-", "COUNT", 1), ("HGET", states, camera))
    now = time.time_ns()
    last = parse_entry_id(newest[0][0]) if newest else (0, 0)
    try:
        seen = decode_status(state or b"").state in ("active", "stalled")
    except WireError:
        seen = True
    return last if seen and now - last[0] < _WRITTEN_NANO else (now, 0)


def _missing(session: Session, journal: str, entries: Sequence[JournalEntry]) -> list[JournalEntry]:
    """The entries that the journal does not list."""
    missing = []
    for part in batches(entries):
        ids = [entry_id(entry.unix_nano, entry.sequence) for entry in part]
        listed = session.call(*(("XRANGE", journal, identifier, identifier) for identifier in ids))
        missing += [entry for entry, found in zip(part, listed, strict=True) if not found]
    return missing


class _Rebuild:
    """Rebuilds one journal with added entries. ``added`` is in order, and none of it is in the journal."""

    def __init__(
        self,
        session: Session,
        names: StoredNames,
        camera: str,
        added: Sequence[JournalEntry],
        ttl_ms: int,
    ) -> None:
        self._journal = names.journal(camera)
        # All keys of the transaction lie in one slot of a cluster, so one node has them.
        cluster = bool(session.address.cluster)
        self._session = session.node_of(self._journal)
        self._token = secrets.token_hex(8)
        self._draft = names.draft(camera, self._token, cluster=cluster)
        self._swapped = names.rebuilt(camera, cluster=cluster)
        self._added = added
        self._ttl_ms = ttl_ms
        self._next = 0
        self._copied_to = "-"
        self._length = 0

    def run(self) -> None:
        """Copy, add, swap. Raises _Overtaken, EngineError."""
        try:
            (before,) = self._session.call(("GET", self._swapped))
            while found := self._session.call(self._following())[0]:
                self._copy(found)
            for _ in range(_TRIES_MAX):
                _, _, last, length, lifetime_ms, late = self._session.call(
                    ("UNWATCH",),
                    ("WATCH", self._journal, self._draft, self._swapped),
                    ("GET", self._swapped),
                    ("XLEN", self._draft),
                    ("PTTL", self._journal),
                    self._following(),
                )
                if last != before or length != self._length:
                    raise _Overtaken
                if late or self._next < len(self._added):
                    self._copy(late)
                    if len(late) < BATCH_MAX:
                        self._append(self._added_before(None))
                elif self._swap(lifetime_ms):
                    return
            raise EngineError(
                f"journal {self._journal!r} changed in each of {_TRIES_MAX} tries to take its place; "
                "run this again when its camera sends fewer frames"
            )
        except BaseException:
            with contextlib.suppress(RedisUnavailable):
                self._session.try_call(("UNWATCH",), ("UNLINK", self._draft))
            raise

    def _following(self) -> Command:
        """The command that reads the journal's entries after those already copied."""
        return ("XRANGE", self._journal, self._copied_to, "+", "COUNT", BATCH_MAX)

    def _copy(self, found: Sequence[Sequence[Any]]) -> None:
        """Copy entries of the journal into the draft, each after the added ones that precede it."""
        commands: list[Command] = []
        for identifier, fields in found:
            commands += self._added_before(parse_entry_id(identifier))
            commands.append(("XADD", self._draft, identifier, *fields))
            self._copied_to = f"({identifier.decode()}"
        self._append(commands)

    def _added_before(self, identifier: tuple[int, int] | None) -> list[Command]:
        """XADD commands for the added entries that are not in the draft yet, up to an id; None for all."""
        commands: list[Command] = []
        while self._next < len(self._added):
            entry = self._added[self._next]
            if identifier is not None and (entry.unix_nano, entry.sequence) > identifier:
                break
            commands.append(("XADD", self._draft, entry_id(entry.unix_nano, entry.sequence), *entry_fields(entry)))
            self._next += 1
        return commands

    def _append(self, commands: Sequence[Command]) -> None:
        for part in batches(commands):
            replies = self._session.try_call(*part, ("PEXPIRE", self._draft, _ABANDONED_MS))
            error = next((reply for reply in replies if is_error(reply)), None)
            if error is not None and "equal or smaller" in str(error):
                raise _Overtaken
            self._session.check(part, replies[:-1])
            self._length += len(part)

    def _swap(self, lifetime_ms: int) -> bool:
        """Replace the journal with the draft. Returns False if the journal has changed since it was watched."""
        if WITHOUT_TTL in (lifetime_ms, self._ttl_ms):
            keep: Command = ("PERSIST", self._draft)
        else:
            keep = ("PEXPIRE", self._draft, max(lifetime_ms, self._ttl_ms))
        replies = self._session.call(
            ("MULTI",),
            keep,
            ("RENAME", self._draft, self._journal),
            ("SET", self._swapped, self._token, "PX", _REMEMBERED_MS),
            ("EXEC",),
        )
        return replies[-1] is not None
