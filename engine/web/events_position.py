"""Where a reader of events is: for each camera, the ids of the last frame and the last unit of video that it knows of.

Its text is the ``id:`` of an event, so a browser sends it back as ``Last-Event-ID``:
``{camera}={nano}-{sequence}``, joined by commas; ``v:`` stands before those of video. Names are percent-encoded.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from engine.client.journal_queries import check_name
from engine.client.times import NANO_MAX
from engine.errors import QueryError, WireError
from engine.wire.journal import parse_entry_id

#: Characters of a position. uvicorn's connection takes headers of 32 KB in all.
POSITION_CHARACTERS_MAX = 24_000
_VIDEO = "v:"


class Position:
    """Camera -> journal id, for frames and for video."""

    def __init__(self) -> None:
        self.frames: dict[str, str] = {}
        self.video: dict[str, str] = {}

    def __str__(self) -> str:
        parts = [f"{quote(camera, safe='')}={identifier}" for camera, identifier in self.frames.items()]
        parts += [f"{_VIDEO}{quote(camera, safe='')}={identifier}" for camera, identifier in self.video.items()]
        text = ",".join(parts)
        # Without an id the reader keeps its last one, and gets more again than it needs.
        return text if len(text) <= POSITION_CHARACTERS_MAX else ""

    @classmethod
    def parse(cls, text: str) -> Position:
        """Inverse of ``str``. Raises QueryError."""
        if len(text) > POSITION_CHARACTERS_MAX:
            raise QueryError(f"Last-Event-ID has {len(text):,} characters; at most {POSITION_CHARACTERS_MAX:,}")
        position = cls()
        for part in filter(None, text.split(",")):
            name, _, identifier = part.removeprefix(_VIDEO).partition("=")
            try:
                camera = unquote(name, errors="strict")
                check_name("camera", camera)
                if max(parse_entry_id(identifier)) > NANO_MAX:
                    raise WireError("it is out of range")
            except (WireError, QueryError, UnicodeDecodeError):
                raise QueryError(f"Last-Event-ID: {part[:80]!r} is no position of this API's") from None
            (position.video if part.startswith(_VIDEO) else position.frames)[camera] = identifier
        return position
