"""Repairs journals from keys: lists frames that the Go edition or a script stored, and access units of video whose
journal was lost, and removes entries of what is gone. The job may run while the site writes, and again after a kill:
correct entries stay unchanged.

What an entry says of a frame is read from its payload. The payload of an access unit that is no key frame does not tell
its width and height: they are those of the key frame before it. Without that, the unit decodes for nobody, and is not
listed. Its presentation time and the camera's own time are nowhere but in its entry: one that is added has neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.errors import WireError
from engine.jobs.journal_rebuild import WITHOUT_TTL, drop_entries, list_camera, merge_entries
from engine.jobs.keyspace_scan import Ears, Named, Stored, look_at, scan_frames
from engine.jobs.stored_names import StoredNames
from engine.servers.redis.session import BATCH_MAX, Session
from engine.wire import keys
from engine.wire.journal import VIDEO_ENCODINGS, JournalEntry, entry_id, parse_entry, parse_entry_id


class CameraReindex(msgspec.Struct):
    """Counts of one camera's frames, or of its video: ``frames`` found by key, entries ``added`` for them, entries
    ``removed`` because their frames are gone, and frames ``deferred`` because they are too new for the journal of a
    running site. Access units ``without_key`` have lost their key frame, and are not listed."""

    camera: str
    frames: int = 0
    added: int = 0
    removed: int = 0
    deferred: int = 0
    video: bool = False
    without_key: int = 0

    @property
    def kind(self) -> str:
        """What was counted."""
        return "video" if self.video else "frames"


class Reindex:
    """One run over a tenant's frames and video under one prefix."""

    def __init__(self, session: Session, vhost: str, prefix: str, ears: Ears) -> None:
        self._session = session
        self._vhost = vhost
        self._prefix = prefix
        self._ears = ears

    def run(self) -> list[CameraReindex]:
        """Add and remove entries. Returns the counts per camera. Raises RedisUnavailable; it is safe to run again."""
        frames, video = (
            _KindReindex(self._session, StoredNames(self._vhost, self._prefix, video=video), self._ears).run()
            for video in (False, True)
        )
        # Cameras without video have no line for it.
        return sorted([*frames, *filter(_any_count, video)], key=lambda report: (report.camera, report.video))


def _any_count(report: CameraReindex) -> bool:
    return any((report.frames, report.added, report.removed, report.deferred, report.without_key))


class _KindReindex:
    """The frames of all cameras, or their video."""

    def __init__(self, session: Session, names: StoredNames, ears: Ears) -> None:
        self._session = session
        self._names = names
        self._ears = ears
        self._cameras: dict[str, CameraReindex] = {}

    def run(self) -> list[CameraReindex]:
        """Add, then remove."""
        parts = self._scan(self._ears)
        if parts > 1 and any(report.without_key for report in self._cameras.values()):
            # A key frame may have come in a later part than what needs it.
            for report in self._cameras.values():
                report.frames = report.without_key = report.deferred = 0
            self._scan(Ears())
        (listed,) = self._session.call(("HKEYS", keys.cameras_key(self._names.vhost, self._names.prefix)))
        for name in listed:
            camera = name.decode("utf-8", "replace")
            try:
                self._names.journal(camera)
            except WireError:
                # Such as "{cam1}", which a run without --key-tags has listed. No key holds it, so it has no journal.
                continue
            self._remove(self._report(camera))
        return list(self._cameras.values())

    def _scan(self, ears: Ears) -> int:
        """List what is not listed; returns the number of parts in which the keys were examined."""
        parts = 0
        for part in scan_frames(self._session, self._names.pattern, self._names.parse, ears):
            parts += 1
            for (_, camera), named in part.items():
                self._add(named, self._report(camera), ears)
        return parts

    def _report(self, camera: str) -> CameraReindex:
        return self._cameras.setdefault(camera, CameraReindex(camera, video=self._names.video))

    def _add(self, named: Named, report: CameraReindex, ears: Ears) -> None:
        report.frames += len(named)
        unlisted = self._unlisted(named, report.camera)
        frames, gone = look_at(self._session, unlisted, ears, video=self._names.video)
        report.frames -= len(gone)
        if len(gone) < len(named):
            list_camera(self._session, self._names, report.camera)
        if self._names.video:
            frames = self._sized(frames, report)
        if not frames:
            return
        lifetimes = [frame.ttl_ms for frame in frames]
        ttl_ms = WITHOUT_TTL if WITHOUT_TTL in lifetimes else max(lifetimes)
        merged = merge_entries(self._session, self._names, report.camera, [frame.entry for frame in frames], ttl_ms)
        report.added += merged.added
        report.deferred += sum(frame.identifier >= merged.limit for frame in frames)

    def _unlisted(self, named: Named, camera: str) -> Named:
        """The frames that the camera's journal does not list."""
        journal = self._names.journal(camera)
        ids = [entry_id(key.unix_nano, key.sequence) for _, key in named]
        commands = [("XRANGE", journal, identifier, identifier) for identifier in ids]
        listed = self._session.check(commands, self._session.call_many(commands))
        return [pair for pair, found in zip(named, listed, strict=True) if not found]

    def _sized(self, units: Sequence[Stored], report: CameraReindex) -> list[Stored]:
        """The units with width and height; those without a key frame before them are counted and left out. The unit
        before each one is the last of ``units`` before it, or the last entry before it, whichever is later."""
        ordered = sorted(units, key=lambda unit: unit.identifier)
        journal = self._names.journal(report.camera)
        asked = [("XREVRANGE", journal, f"({entry_id(*unit.identifier)}", "-", "COUNT", 1) for unit in ordered]
        found: list[Stored] = []
        before: JournalEntry | None = None
        for unit, listed in zip(ordered, self._session.call_many(asked), strict=True):
            before = _later(before, _unit_entry(listed))
            entry = unit.entry
            if not entry.keyframe:
                if before is None or before.encoding != entry.encoding or not before.width:
                    report.without_key += 1
                    before = None
                    continue
                entry = entry._replace(width=before.width, height=before.height)
            found.append(unit._replace(entry=entry))
            before = entry
        return found

    def _remove(self, report: CameraReindex) -> None:
        """Remove entries whose frames are gone. The site stores an entry together with its frame or behind it, so a
        frame that is missing now will not come."""
        journal = self._names.journal(report.camera)
        begin = "-"
        while True:
            (found,) = self._session.call(("XRANGE", journal, begin, "+", "COUNT", BATCH_MAX))
            if not found:
                return
            begin = f"({found[-1][0].decode()}"
            ids = [identifier for identifier, _ in found if _is_frame(identifier)]
            there = self._session.call(
                *(("EXISTS", self._names.key(report.camera, *parse_entry_id(identifier))) for identifier in ids)
            )
            gone = [identifier for identifier, exists in zip(ids, there, strict=True) if not exists]
            report.removed += drop_entries(self._session, journal, gone)


def _later(one: JournalEntry | None, other: JournalEntry | None) -> JournalEntry | None:
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda entry: (entry.unix_nano, entry.sequence))


def _unit_entry(reply: object) -> JournalEntry | None:
    """The entry of an XREVRANGE reply; None if it has none of an access unit."""
    try:
        identifier, fields = reply[0]  # type: ignore[index]
        entry = parse_entry(identifier, fields)
    except (IndexError, TypeError, WireError):
        return None
    return entry if entry.encoding in VIDEO_ENCODINGS else None


def _is_frame(identifier: bytes) -> bool:
    """False for an id that no frame can have."""
    unix_nano, sequence = parse_entry_id(identifier)
    return 10**18 <= unix_nano < 10**19 and 1 <= sequence <= keys.SEQUENCE_MAX
