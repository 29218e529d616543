"""The loop that an agent runs in: work, heartbeat, idle, and the drain when it is told to stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Protocol

from engine.errors import EXIT_OK, EngineError
from engine.runtime.notify import Notifier
from engine.shm.status_page import StatusPage

#: Seconds that a stopped agent whose native code does not return may hang before its process ends all the same.
HANG_SECONDS = 2.0
#: What to do where the kernel gives no process or thread (EAGAIN).
MORE_PROCESSES = "raise the limit on processes (ulimit -u; systemd: TasksMax, LimitNPROC; docker: --pids-limit)"


class Agent(Protocol):
    """One stage of the pipeline, turned by ``run_agent``. All methods run in the agent's own process."""

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
    """Becomes ``requested`` when the process gets SIGTERM, or SIGINT or SIGHUP that it does not ignore. Make it before
    any other thread.

    A signal is taken by a thread that waits for it, because a handler would not run while native code (a camera's
    read) holds the main thread. ``interrupts`` says that such a hang may be cut short: a producer killed at any moment
    leaves its ring whole.
    """

    def __init__(self, *, interrupts: bool = False) -> None:
        self.requested = False
        self._interrupts = interrupts
        # Children of a supervisor, and what nohup starts, ignore the others.
        others = {signal.SIGINT, signal.SIGHUP}
        signals = {signal.SIGTERM, *(number for number in others if signal.getsignal(number) != signal.SIG_IGN)}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            threading.Thread(target=self._wait, args=(signals,), name="signals", daemon=True).start()
        except RuntimeError:
            raise EngineError(f"no thread can be started; {MORE_PROCESSES}") from None

    def _wait(self, signals: set[signal.Signals]) -> None:
        signal.sigwait(signals)
        self.requested = True
        if self._interrupts:
            time.sleep(HANG_SECONDS)
            os._exit(EXIT_OK)


def run_agent(
    agent: Agent, name: str, page: StatusPage, stop: StopSignal, drain_seconds: float, notifier: Notifier | None = None
) -> int:
    """Turn ``agent`` until it is finished, or stopped and drained or out of time; returns the exit code.

    ``notifier`` tells systemd, for a process that no supervisor of ours has started, that ``name`` runs.
    """
    agent.on_start()
    if notifier:
        notifier.ready(f"{name} runs")
    deadline = 0.0
    while not agent.finished:
        page.beat()
        if notifier:
            notifier.beat()
        work = agent.do_work()
        if stop.requested:
            if notifier and not deadline:
                notifier.stopping()
            deadline = deadline or time.monotonic() + drain_seconds
            if agent.drained() or time.monotonic() > deadline:
                break
        if not work:
            agent.idle()
    page.beat()
    agent.on_close()
    return EXIT_OK
