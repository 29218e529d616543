"""A message on its way through a consumer: the delivery, its verdict, and the counts."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from engine.client.frame import Frame
from engine.wire.events import OtherEvent
from engine.wire.metadata import Event, FrameEvent, GopEvent, StatusEvent

FrameCallback = Callable[[FrameEvent, Frame | None], object]
StatusCallback = Callable[[StatusEvent], object]
GopCallback = Callable[[GopEvent], object]


class ConsumerCounts(msgspec.Struct, frozen=True):
    """What a consumer has done so far.

    Messages: ``received``, of which ``redelivered``, ``malformed``, ``dead_lettered`` and ``dropped`` (after the last
    try, or malformed). Events that the callback accepted: ``frames``, ``missing`` (their frame was gone), ``statuses``,
    ``gops``. ``failed``: calls that raised. ``reconnects``: connections to the broker after the first. ``others``:
    events of unknown types, which no callback gets.
    """

    received: int = 0
    redelivered: int = 0
    frames: int = 0
    missing: int = 0
    statuses: int = 0
    failed: int = 0
    malformed: int = 0
    dead_lettered: int = 0
    dropped: int = 0
    reconnects: int = 0
    gops: int = 0
    others: int = 0


class Verdict(enum.Enum):
    """The outcome of a delivery, as reported to the broker."""

    ACCEPT = "ack"
    AGAIN = "nack"
    REFUSE = "reject"


class Delivery:
    """A message from the broker until it is settled. ``tries`` counts its deliveries before this one. ``offset`` is its
    place in a stream, None in other queues."""

    __slots__ = ("accepted", "body", "events", "failed", "generation", "offset", "redelivered", "tag", "todo", "tries")

    def __init__(
        self, generation: int, tag: int, body: bytes, redelivered: bool, tries: int, offset: int | None = None
    ) -> None:
        self.generation = generation
        self.tag = tag
        self.body = body
        self.redelivered = redelivered
        self.tries = tries
        self.offset = offset
        self.events: list[Event | OtherEvent] = []
        #: One bit for each event that the callback has accepted.
        self.accepted = 0
        #: Indexes of the events not yet called in this try.
        self.todo: deque[int] = deque()
        self.failed = False

    def begin(self) -> None:
        """Begin another try, with the events that were not accepted."""
        self.todo.extend(place for place in range(len(self.events)) if not self.accepted >> place & 1)
        self.failed = False


class Subscription(Protocol):
    """The broker's side, as the dispatcher sees it."""

    #: Counts connections, lost ones too; a delivery of another generation cannot be settled any more.
    generation: int

    def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """Send the verdict to the broker, unless the delivery's connection is lost."""

    def allow(self, consuming: bool) -> None:
        """Set whether a new connection may begin to consume."""


class Policy(NamedTuple):
    """What happens to messages that fail. ``counted`` is True for a quorum queue, whose broker counts deliveries, and
    ``lasting`` for every queue that outlives its consumer."""

    attempts: int
    retry_seconds: float
    dead_letter: str | None
    counted: bool
    lasting: bool
