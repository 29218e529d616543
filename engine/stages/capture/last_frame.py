"""The last frame that Redis knows of: a camera's time stamps and sequences continue from it."""

from __future__ import annotations

from engine.servers.redis.session import Session
from engine.stages.capture.clock import latest_floor
from engine.wire import keys
from engine.wire.journal import entry_id
from engine.wire.marks import parse_mark
from engine.wire.replies import first_numbers


def last_frame_id(session: Session, vhost: str, prefix: str, camera: str, *, video: bool = False) -> tuple[int, int]:
    """(unix_nano, sequence) of the last frame, or access unit, that Redis knows of; (0, 0) if there is none. Raises
    RedisUnavailable.

    It is the newest of the journal's last entry, the writer's mark and the publisher's cursor. Journals expire; marks
    and cursors do not. Values that this user may not read are ignored. So are values so far ahead of the clock that no
    camera wrote them.
    """
    if video:
        journal = keys.video_journal_key(vhost, prefix, camera)
        hashes = (keys.video_written_key(vhost, prefix), keys.video_cursor_key(vhost, prefix))
    else:
        journal = keys.journal_key(vhost, prefix, camera)
        hashes = (keys.written_key(vhost, prefix), keys.cursor_key(vhost, prefix))
    floor = latest_floor()
    last, *marks = session.try_call(
        ("XREVRANGE", journal, floor, "-", "COUNT", 1),
        *(("HMGET", key, camera) for key in hashes),
    )
    found = [first_numbers(last)]
    for values in marks:
        mark = parse_mark(values[0] or b"") if isinstance(values, list) else None
        found.append(first_numbers([[entry_id(*mark.at).encode()]]) if mark else (0, 0))
    return max(numbers if numbers[0] <= floor else (0, 0) for numbers in found)
