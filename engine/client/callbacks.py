"""The functions of a consumer's user: which one gets an event, and what is counted."""

from __future__ import annotations

import logging

from engine.client.delivery import FrameCallback, GopCallback, StatusCallback
from engine.client.frame import Frame
from engine.wire.events import OtherEvent
from engine.wire.metadata import Event, FrameEvent, GopEvent, StatusEvent

logger = logging.getLogger("engine.client.consumer")


class Callbacks:
    """Calls for one event at a time, and adds to ``counts`` (``ConsumerCounts`` by name)."""

    def __init__(
        self, on_frame: FrameCallback, on_status: StatusCallback, on_gop: GopCallback, counts: dict[str, int]
    ) -> None:
        self._on_frame = on_frame
        self._on_status = on_status
        self._on_gop = on_gop
        self._counts = counts

    def call(self, event: Event | OtherEvent, frame: Frame | None, turn: str) -> bool:
        """Whether the function accepted the event. ``turn`` says in the log which delivery it is."""
        try:
            match event:
                case FrameEvent():
                    self._on_frame(event, frame)
                    self._counts["missing" if frame is None else "frames"] += 1
                case StatusEvent():
                    self._on_status(event)
                    self._counts["statuses"] += 1
                case GopEvent():
                    self._on_gop(event)
                    self._counts["gops"] += 1
                case OtherEvent():
                    self._counts["others"] += 1
        except Exception:
            self._counts["failed"] += 1
            logger.exception("the callback raised for %s, delivery %s", _what(event), turn)
            return False
        return True


def _what(event: Event | OtherEvent) -> str:
    """An event's name in the log."""
    match event:
        case FrameEvent():
            return event.redis_key
        case GopEvent():
            return f"the GOP {event.first_key}"
        case StatusEvent():
            return f"the status of {event.camera_id}"
    return f"an event of type {event.event_type!r}"
