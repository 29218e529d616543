"""The nodes of a cluster that did not answer in time.

A question that needs such a node fails at once, with the error of the one that waited. Meanwhile a thread asks the node
until it answers. So a node that hangs costs its callers one timeout in all, and not one for each question.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from engine.errors import Cause, EngineError
from engine.servers.redis.attempt import Attempt
from engine.servers.redis.connection import open_answering
from engine.wire.cluster import Node
from engine.wire.redis_address import RedisAddress

#: Seconds after the last question that needs a node until it is asked no more. The next question waits for it again.
_ASKED_SECONDS = 60.0


class SilentNodes:
    """Those of the cluster at ``address``. Several threads may share it."""

    def __init__(self, address: RedisAddress, timeout_seconds: float) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._silences: dict[Node, _Silence] = {}

    def note(self, node: Node, error: EngineError) -> None:
        """A node has failed with ``error``: it is silent if that was a timeout."""
        if error.cause is not Cause.REDIS_HANGS:
            return
        with self._lock:
            if node not in self._silences:
                self._silences[node] = _Silence(self._address.node(*node), self._timeout_seconds, error)

    def error(self, node: Node) -> EngineError | None:
        """Why a node cannot answer; None if it is not silent."""
        # Most of the time there are none, and then nobody has to wait for a lock.
        if not self._silences:
            return None
        with self._lock:
            silence = self._silences.get(node)
            if silence is None:
                return None
            if silence.over():
                del self._silences[node]
                return None
            return type(silence.error).of(silence.error)

    def first_error(self, nodes: Iterable[Node]) -> tuple[Node, EngineError] | None:
        """The first of ``nodes`` that is silent, and why it cannot answer."""
        return next(((node, error) for node in nodes if (error := self.error(node))), None)


class _Silence:
    """One node's, which begins now."""

    def __init__(self, address: RedisAddress, timeout_seconds: float, error: EngineError) -> None:
        self.error = error
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._asked_at = time.monotonic()
        self._attempt = Attempt(self._ask)

    def over(self) -> bool:
        """True if the node has answered or is gone, or nobody needed it for a while."""
        self._asked_at = time.monotonic()
        return self._attempt.done()

    def _ask(self) -> None:
        """Ask until something other than a timeout comes of it."""
        while time.monotonic() - self._asked_at < _ASKED_SECONDS:
            try:
                open_answering(self._address, self._timeout_seconds).disconnect()
            except EngineError as error:
                if error.cause is Cause.REDIS_HANGS:
                    continue
            return
