"""The publisher's read of a cluster's journals, which waits for entries as ``BlockingRead`` does at one server.

A node refuses one XREAD of several journals, unless all are in one slot, and a connection waits for one command at a
time. To wait at Redis would therefore take a connection a camera. So this read asks all nodes for all journals, side by
side, and again after a pause until there are entries. A question about one journal takes Redis 1 to 2 µs. The pause
grows with the number of journals, so that questions never take most of a core.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

import hiredis
from redis.exceptions import ResponseError

from engine.servers.overrides.redis import NodeAway
from engine.stages.publisher.blocking_read import NOT_YET
from engine.stages.publisher.cluster_calls import ClusterCalls, Question
from engine.wire.cluster import slot_of
from engine.wire.journal import EntryId

#: Seconds between two questions about the same journals, at least, and for each journal.
_PAUSE_SECONDS = 0.005
_JOURNAL_SECONDS = 0.000_03
#: Framed questions about journals that are not asked for, before they are forgotten.
_FORGOTTEN_MIN = 100


class PollingRead:
    """One read at a time, over the connections of ``calls``. ``take`` raises as ``ClusterCalls.ask``."""

    #: It does not know whether an entry came while it waited.
    waited = False

    def __init__(self, calls: ClusterCalls) -> None:
        #: True from ``ask`` until the answer is taken.
        self.pending = False
        #: The journals that the last answer knows nothing of, because their nodes are away.
        self.unread: frozenset[bytes] = frozenset()
        self._calls = calls
        self._framing = StreamQuestions()
        self._questions: list[Question] = []
        self._streams: list[bytes] = []
        self._until = self._next_at = 0.0

    def ask(self, positions: Mapping[bytes, EntryId], count: int, wait_seconds: float) -> None:
        """Begin to ask for up to ``count`` entries of each stream behind its position, for ``wait_seconds``."""
        assert not self.pending, "one read at a time"
        self.pending, self.unread = True, frozenset()
        self._streams = list(positions)
        self._framing.keep(positions)
        self._questions = [self._framing.question(stream, at, count) for stream, at in positions.items()]
        self._until = time.monotonic() + wait_seconds

    def wait(self, seconds: float) -> None:
        """Sleep until the next question is due, at most ``seconds``."""
        time.sleep(max(min(self._next_at - time.monotonic(), seconds), 0.0))

    def take(self) -> Any:
        """Streams and their entries; an error as ResponseError; None if none came in time; NOT_YET before that."""
        begun = time.monotonic()
        if begun < self._next_at:
            return NOT_YET
        replies = self._calls.ask(self._questions)
        now = time.monotonic()
        # After a question that took long, others get as much time.
        pause = max(_PAUSE_SECONDS, len(replies) * _JOURNAL_SECONDS, now - begun)
        self._next_at = now + pause
        found: list[Any] = []
        for reply in replies:
            if isinstance(reply, ResponseError):
                if not isinstance(reply, NodeAway):
                    self.pending = False
                    return reply
            elif reply:
                found += reply
        if not found and now < self._until:
            return NOT_YET
        self.pending = False
        away = (stream for stream, reply in zip(self._streams, replies, strict=True) if isinstance(reply, NodeAway))
        self.unread = frozenset(away)
        return found or None

    def close(self) -> None:
        """End the read under way. The connections belong to others."""
        self.pending = False


class StreamQuestions:
    """Frames ``XREAD COUNT n STREAMS stream id``. What it framed before is used again."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[EntryId, int, Question]] = {}

    def keep(self, streams: Collection[bytes]) -> None:
        """Forget what was framed for streams that are not among these, unless they are few."""
        if len(self._known) > 2 * len(streams) + _FORGOTTEN_MIN:
            self._known = {stream: known for stream, known in self._known.items() if stream in streams}

    def question(self, stream: bytes, at: EntryId, count: int) -> Question:
        """The question for up to ``count`` entries of a stream behind a position."""
        known = self._known.get(stream)
        if known and known[0] == at and known[1] == count:
            return known[2]
        words: tuple[Any, ...] = ("XREAD", "COUNT", count, "STREAMS", stream, b"%d-%d" % at)
        made = Question(words, hiredis.pack_command(words), known[2].slot if known else slot_of(stream))
        self._known[stream] = at, count, made
        return made
