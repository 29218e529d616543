"""Asks Redis for its figures, in a thread of its own: a look-up of a name, or a connection, may take any time; the
monitor's heartbeat continues."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import Audience, RedisUnavailable, ServerRefused, explain
from engine.servers.redis.errors import forbidden
from engine.servers.redis.figures import RedisFigures, figures_of
from engine.servers.redis.masters import of_the_fullest
from engine.servers.redis.session import Session, is_error
from engine.wire.urls import mask

#: Seconds that Redis may take for one step of an answer; less if ``redis.timeout_seconds`` says so.
_TIMEOUT_SECONDS = 2.0
#: Seconds without an answer after which Redis counts as away, though no step has failed yet.
_STUCK_SECONDS = 5.0
#: Seconds between two questions.
PERIOD_SECONDS = 2.0


class Answer(NamedTuple):
    """What is known about Redis: its figures, None if they are unknown; for how long it has been away, 0 if it
    answers; and why."""

    figures: RedisFigures | None
    away_seconds: float
    error: str


class RedisWatch:
    """The newest answer of Redis. ``answer`` never waits. If this user may not send INFO, there are no figures, and the
    log says so once. A cluster is away if one of its masters is: a part of the frames cannot be stored."""

    def __init__(self, config: Config, log: FilteringBoundLogger) -> None:
        self._session = Session(config.redis_address, min(_TIMEOUT_SECONDS, config.redis.timeout_seconds))
        self._log = log
        self._figures: RedisFigures | None = None
        self._error = ""
        self._heard = time.monotonic()
        self._denied = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="redis", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def end(self) -> None:
        """Ask no more. The thread ends by itself, or with the process."""
        self._ended.set()

    def answer(self, now: float) -> Answer:
        """What is known at ``now`` (monotonic seconds)."""
        error, silence = self._error, now - self._heard
        if not error and silence > PERIOD_SECONDS + _STUCK_SECONDS:
            error = f"no answer for {silence:,.0f} s"
        return Answer(None, silence, error) if error else Answer(self._figures, 0.0, "")

    def _watch(self) -> None:
        # Whatever the answer was, a pause follows: a server may refuse INFO for a while, such as during a long script.
        while not self._ended.is_set():
            try:
                self._ask()
            except (RedisUnavailable, ServerRefused) as error:
                self._error = mask(explain(error, Audience.SITE))
            self._ended.wait(PERIOD_SECONDS)
        self._session.close()

    def _ask(self) -> None:
        """One question. Raises as ``Session``."""
        command = ("PING",) if self._denied else ("INFO",)
        replies = [server.try_call(command)[0] for server in self._session.masters()]
        # A server that refuses a question answers.
        self._error, self._heard = "", time.monotonic()
        if self._denied:
            return
        refused = [reply for reply in replies if is_error(reply)]
        if refused:
            self._figures = None
            if any(map(forbidden, refused)):
                self._denied = True
                self._log.warning(
                    "this Redis user may not send INFO; there are no alerts on Redis's memory, look-ups, clients and "
                    "expiry",
                    advice="give the user +info, or set redis_memory_percent, redis_misses_percent, redis_clients and "
                    "redis_expiry_seconds of [alerts] to 0",
                )
        elif replies and all(isinstance(reply, bytes) for reply in replies):
            self._figures = of_the_fullest([figures_of(reply) for reply in replies])
