"""The loop that an agent runs in: work, heartbeat, idle, and the drain when it is told to stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Protocol

from engine.errors import EXIT_OK
from engine.shm.slate import Slate

#: Seconds that a stopped agent whose native code does not return may hang before its process ends all the same.
HANG_SECONDS = 2.0


class Agent(Protocol):
    """One stage of the pipeline, turned by ``run_agent``. All methods run in the agent's own process."""

    role_name: str
    #: True once there is nothing left to do, ever.
    finished: bool

    def on_start(self) -> None:
        """Once, before the first round."""
        ...

    def do_work(self) -> int:
        """One round; 0 where there was nothing to do."""
        ...

    def idle(self) -> None:
        """After a round without work: wait for some, a quarter of a second at most."""
        ...

    def drained(self) -> bool:
        """While stopping: True when nothing is left that this stage must pass on."""
        ...

    def on_close(self) -> None:
        """Once, after the last round."""
        ...


class StopSignal:
    """Becomes ``requested`` when the process gets SIGTERM. Make it before any other thread.

    The signal is taken by a thread that waits for it, because a handler would not run while native code (a camera's
    read) holds the main thread. ``interrupts`` says that such a hang may be cut short: a producer killed at any moment
    leaves its ring whole.
    """

    def __init__(self, *, interrupts: bool = False) -> None:
        self.requested = False
        self._interrupts = interrupts
        signals = {signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        threading.Thread(target=self._wait, args=(signals,), name="signals", daemon=True).start()

    def _wait(self, signals: set[signal.Signals]) -> None:
        signal.sigwait(signals)
        self.requested = True
        if self._interrupts:
            time.sleep(HANG_SECONDS)
            os._exit(EXIT_OK)


def run_agent(agent: Agent, slate: Slate, stop: StopSignal, drain_seconds: float) -> int:
    """Turn ``agent`` until it is finished, or stopped and drained or out of time; returns the exit code."""
    agent.on_start()
    deadline = 0.0
    while not agent.finished:
        slate.beat()
        work = agent.do_work()
        if stop.requested:
            deadline = deadline or time.monotonic() + drain_seconds
            if agent.drained() or time.monotonic() > deadline:
                break
        if not work:
            agent.idle()
    slate.beat()
    agent.on_close()
    return EXIT_OK
