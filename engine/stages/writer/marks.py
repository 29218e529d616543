"""The writer's marks in Redis: the number of entries of each journal so far, and the last sequence of its camera.

Journals are trimmed and expire; the marks stay. They show the publisher which entries disappeared before it read them,
even with their whole journal. They show the next start where numbers continue (``engine/wire/marks.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import hiredis

from engine.errors import WireError
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.store import Caller, Refused
from engine.wire import keys, resp
from engine.wire.journal import parse_entry
from engine.wire.marks import ENTRIES_MAX, format_mark, parse_mark
from engine.wire.replies import foreign_key, shown

#: Seconds between marks. A journal outlives its last entry by the TTL, which is longer.
_MARK_SECONDS = 0.5
#: Seconds between writes of unchanged marks too: somebody may have removed them.
_REPEAT_SECONDS = 10.0
#: Errors that waiting does not cure; any other error is an outage.
_FINAL = ("NOPERM", "WRONGTYPE")


class WrittenMarks:
    """Reads and writes the marks of frames, or of video, through ``store``, while no batch is in flight. Methods pass
    over writers of the other kind.

    ``warn_once(camera, event, error)`` is called for refusals. All methods raise RedisUnavailable, and may then be
    called again.
    """

    def __init__(
        self,
        store: Caller,
        vhost: str,
        prefix: str,
        warn_once: Callable[[str, str, str], None],
        *,
        video: bool = False,
    ) -> None:
        self._store = store
        self._video = video
        self._key = (keys.video_written_key if video else keys.written_key)(vhost, prefix).encode()
        self._warn_once = warn_once
        self._written: dict[str, str] = {}
        self._write_at = self._repeat_at = 0.0

    def begin(self, writers: Sequence[CameraWriter]) -> None:
        """Find out where the entry numbers of new rings continue. Writes a mark with that number before any entry of
        such a ring."""
        new = [writer for writer in self._mine(writers) if writer.consumer.entries_before is None]
        if not new:
            return
        asked = [resp.command(b"HMGET", self._key, *(writer.camera.encode() for writer in new))]
        marks, *newest = self._store.call(asked + [writer.framing.newest() for writer in new])
        if self._final(marks):
            marks = [None] * len(new)
        if not isinstance(marks, list) or len(marks) != len(new):
            raise Refused(f"Redis at {self._store.address} answered {shown(marks)} to HMGET")
        for writer, mark, entries in zip(new, marks, newest, strict=True):
            known = parse_mark(mark) if isinstance(mark, bytes) else None
            writer.consumer.number_from(max(known.entries or 0 if known else 0, _last_number(entries)))
        self.write(new)

    def look(self, writers: Sequence[CameraWriter]) -> None:
        """Write marks if it is time; called regularly while Redis works."""
        self.begin(writers)
        now = time.monotonic()
        if now >= self._write_at:
            if now >= self._repeat_at:
                self._repeat_at = now + _REPEAT_SECONDS
                self._written.clear()
            self._write_at = now + _MARK_SECONDS
            self.write(writers)

    def write(self, writers: Sequence[CameraWriter]) -> None:
        """Write the changed marks of cameras without doubts."""
        marks = {writer.camera: format_mark(mark) for writer in self._mine(writers) if (mark := writer.mark())}
        changed = {camera: mark for camera, mark in marks.items() if self._written.get(camera) != mark}
        if changed:
            words = [word.encode() for pair in changed.items() for word in pair]
            if not self._final(self._store.call([resp.command(b"HSET", self._key, *words)])[0]):
                self._written |= changed

    def _mine(self, writers: Sequence[CameraWriter]) -> list[CameraWriter]:
        return [writer for writer in writers if writer.consumer.video == self._video]

    def _final(self, reply: object) -> bool:
        """True for a permanent error. Raises Refused for one that waiting can cure."""
        if not isinstance(reply, hiredis.ReplyError):
            return False
        if not str(reply).startswith(_FINAL):
            raise Refused(f"Redis at {self._store.address} takes no marks: {reply}")
        key = self._key.decode()
        if str(reply).startswith("WRONGTYPE"):
            why = foreign_key(key)
        else:
            why = f"{key}: {reply}; renew this user's rights with edge-video tenants acl"
        error = f"numbers may restart after a stop: {why}"
        self._warn_once("", "numbers of entries are not kept", error)
        return True


def _last_number(entries: object) -> int:
    """The number of the entry in an XREVRANGE reply; 0 if there is none."""
    try:
        number = parse_entry(*entries[0]).number  # type: ignore[index]
    except (IndexError, TypeError, WireError):
        return 0
    return number if number < ENTRIES_MAX else 0
