"""The loop that runs an agent: work, heartbeat, idle, and a drain after a stop signal."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Protocol

from engine.errors import EXIT_OK, EngineError
from engine.runtime.notify import Notifier
from engine.shm.status_page import StatusPage

#: Seconds after a stop signal before the process of an agent ends although its native code has not returned.
HANG_SECONDS = 2.0
#: What to do if the kernel grants no process or thread (EAGAIN).
MORE_PROCESSES = "raise the limit on processes (ulimit -u; systemd: TasksMax, LimitNPROC; docker: --pids-limit)"


class Agent(Protocol):
    """One stage of the pipeline, run by ``run_agent``. All methods run in the agent's own process."""

    #: True once there will never be work again.
    finished: bool

    def on_start(self) -> None:
        """Called once, before the first round."""
        ...

    def do_work(self) -> int:
        """Do one round; returns 0 if there was nothing to do."""
        ...

    def idle(self) -> None:
        """Called after a round without work: wait for work, at most a quarter of a second."""
        ...

    def drained(self) -> bool:
        """Called while stopping: True when this stage has nothing left to pass on."""
        ...

    def on_close(self) -> None:
        """Called once, after the last round."""
        ...


class StopSignal:
    """Sets ``requested`` when the process gets SIGTERM, or SIGINT or SIGHUP unless it ignores them. Create it before
    any other thread.

    A thread waits for the signals, because a handler does not run while native code (a camera's read) blocks the main
    thread. With ``interrupts``, the process ends if such a call does not return. That is safe for a producer: if it is
    killed at any moment, its ring stays intact.
    """

    def __init__(self, *, interrupts: bool = False) -> None:
        self.requested = False
        self._interrupts = interrupts
        # Children of a supervisor, and processes started by nohup, ignore some of the others.
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
    """Run ``agent`` until it is finished, or until it is stopped and drained or out of time; returns the exit code.

    ``notifier`` tells systemd that ``name`` runs. Only a process without a supervisor has one.
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
