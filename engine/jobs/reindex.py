"""Repairs journals from frame keys: lists frames that the Go edition or a script stored, and removes entries whose
frames are gone. The job may run while the site writes, and again after a kill: correct entries stay unchanged.
"""

from __future__ import annotations

import msgspec

from engine.jobs.journal_rebuild import WITHOUT_TTL, drop_entries, list_camera, merge_entries
from engine.jobs.keyspace_scan import Ears, Named, look_at, scan_frames
from engine.servers.redis.session import BATCH_MAX, Session, glob_literal
from engine.wire import keys
from engine.wire.journal import entry_id, parse_entry_id


class CameraReindex(msgspec.Struct):
    """Counts of one camera: ``frames`` found by key, entries ``added`` for them, entries ``removed`` because their
    frames are gone, and frames ``deferred`` because they are too new for the journal of a running site."""

    camera: str
    frames: int = 0
    added: int = 0
    removed: int = 0
    deferred: int = 0


class Reindex:
    """One run over a tenant's frames under one prefix."""

    def __init__(self, session: Session, vhost: str, prefix: str, ears: Ears) -> None:
        self._session = session
        self._vhost = vhost
        self._prefix = prefix
        self._ears = ears
        self._cameras: dict[str, CameraReindex] = {}

    def run(self) -> list[CameraReindex]:
        """Add and remove entries. Returns the counts per camera. Raises RedisUnavailable; it is safe to run again."""
        pattern = f"{glob_literal(keys.encode_part(self._vhost))}:{glob_literal(keys.encode_part(self._prefix))}:*"
        for part in scan_frames(self._session, pattern, keys.parse_frame_key, self._ears):
            for (_, camera), named in part.items():
                self._add(named, self._report(camera))
        (listed,) = self._session.call(("HKEYS", keys.cameras_key(self._vhost, self._prefix)))
        for name in listed:
            self._remove(self._report(name.decode("utf-8", "replace")))
        return [report for _, report in sorted(self._cameras.items())]

    def _report(self, camera: str) -> CameraReindex:
        return self._cameras.setdefault(camera, CameraReindex(camera))

    def _add(self, named: Named, report: CameraReindex) -> None:
        report.frames += len(named)
        unlisted = self._unlisted(named, report.camera)
        frames, gone = look_at(self._session, unlisted, self._ears)
        report.frames -= len(gone)
        if len(gone) < len(named):
            list_camera(self._session, self._vhost, self._prefix, report.camera)
        if not frames:
            return
        lifetimes = [frame.ttl_ms for frame in frames]
        ttl_ms = WITHOUT_TTL if WITHOUT_TTL in lifetimes else max(lifetimes)
        entries = [frame.entry for frame in frames]
        merged = merge_entries(self._session, self._vhost, self._prefix, report.camera, entries, ttl_ms)
        report.added += merged.added
        report.deferred += sum(frame.identifier >= merged.limit for frame in frames)

    def _unlisted(self, named: Named, camera: str) -> Named:
        """The frames that the camera's journal does not list."""
        journal = keys.journal_key(self._vhost, self._prefix, camera)
        ids = [entry_id(key.unix_nano, key.sequence) for _, key in named]
        listed = self._session.call_many([("XRANGE", journal, identifier, identifier) for identifier in ids])
        return [pair for pair, found in zip(named, listed, strict=True) if not found]

    def _remove(self, report: CameraReindex) -> None:
        """Remove entries whose frames are gone. The site stores a frame and its entry in one transaction, so a frame
        that is missing now will not come."""
        journal = keys.journal_key(self._vhost, self._prefix, report.camera)
        prefix = keys.frame_key_prefix(self._vhost, self._prefix, report.camera)
        begin = "-"
        while True:
            (found,) = self._session.call(("XRANGE", journal, begin, "+", "COUNT", BATCH_MAX))
            if not found:
                return
            begin = f"({found[-1][0].decode()}"
            ids = [identifier for identifier, _ in found if _is_frame(identifier)]
            there = self._session.call(
                *(("EXISTS", prefix + keys.frame_key_suffix(*parse_entry_id(identifier))) for identifier in ids)
            )
            gone = [identifier for identifier, exists in zip(ids, there, strict=True) if not exists]
            report.removed += drop_entries(self._session, journal, gone)


def _is_frame(identifier: bytes) -> bool:
    """False for an id that no frame can have."""
    unix_nano, sequence = parse_entry_id(identifier)
    return 10**18 <= unix_nano < 10**19 and 1 <= sequence <= keys.SEQUENCE_MAX
