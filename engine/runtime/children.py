"""Starts child processes, watches their heartbeats, restarts them with backoff, stops them.

Two processes use it: the supervisor of a site, and ``edge-video capture`` of several cameras. They block signals and
take them with ``sigtimedwait``, which is also the parent's pause, so no code runs in a handler. The first stop signal
drains, the second stops at once.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from engine.errors import EXIT_FAILED, EXIT_INPUT, EXIT_OK
from engine.runtime.agent import HANG_SECONDS
from engine.runtime.child import start_advice
from engine.runtime.child_process import Child
from engine.runtime.roles import Launch, Role

#: The parent's pause, in seconds, between two checks of heartbeats.
TICK_SECONDS = 0.1
#: Seconds after the removal of a child's status page before the child is restarted. By then captures have replaced
#: rings that were removed too, and the writer has emptied the old ones.
_UNSEEN_SECONDS = 3.0
#: Seconds that a child must live to reset its backoff.
_STABLE_SECONDS = 10.0
#: Seconds of a drain that a role with nothing to pass on may take. Its processes only have to notice the signal.
NOTICE_SECONDS = HANG_SECONDS + 0.5

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Children:
    """The child processes of this process. ``stops`` counts the stop signals that it got. ``fatal`` is an exit code
    once a child has failed in a way that a restart cannot fix.

    ``let_go`` is called in a child and closes what belongs to the parent. ``beat`` is called in every pause. With
    ``reloads``, SIGHUP sets ``reload`` and stops nothing.
    """

    def __init__(
        self,
        log: FilteringBoundLogger,
        heartbeat_seconds: float,
        let_go: Callable[[], None] = lambda: None,
        *,
        beat: Callable[[], None] = lambda: None,
        reloads: bool = False,
    ) -> None:
        self._log = log
        self._heartbeat_seconds = heartbeat_seconds
        self._let_go_parent = let_go
        self._beat = beat
        self._reloads = reloads
        self.all: list[Child] = []
        self.stops = 0
        self.reload = False
        self.fatal = EXIT_OK
        self._started_at = 0.0
        self._mask: set[int | signal.Signals] = set()
        # A site started with nohup must outlive its terminal. A signal that is ignored would arrive if it were blocked.
        ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
        self._signals = {*_STOP_SIGNALS, signal.SIGCHLD} - ignored
        #: CPU seconds of ended children, by role.
        self.cpu_seconds: dict[str, float] = defaultdict(float)

    def take_signals(self) -> None:
        """Block the signals that ``pause`` takes."""
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)

    def stopping(self) -> bool:
        """True if a stop signal is pending for ``pause``."""
        return bool(signal.sigpending() & set(_STOP_SIGNALS))

    def leave_signals(self) -> None:
        """Restore the signal mask of before ``take_signals``."""
        # Discard late stop signals, which would end the process after its last log line.
        while signal.sigtimedwait(self._signals, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def start(self, children: list[Child]) -> None:
        """Start all, in their given order."""
        self.all = children
        self._started_at = time.monotonic()
        for child in children:
            self._start(child)

    @property
    def running(self) -> int:
        """The number of children that run now."""
        return sum(bool(child.pid) for child in self.all)

    def add(self, child: Child) -> None:
        """Add a child and start it at once."""
        self.all.append(child)
        self._start(child)

    def release(self, child: Child) -> None:
        """Stop a child for good."""
        child.released = True
        child.signal(signal.SIGTERM)
        if not child.pid:
            self._forget(child)

    def renew(self, child: Child, launch: Launch) -> None:
        """Stop a child, then start it again with another ``launch``."""
        child.launch = launch
        child.renewed = bool(child.pid)
        child.finished = False
        child.restart_at = 0.0
        child.signal(signal.SIGTERM)

    def _forget(self, child: Child) -> None:
        child.page.close()
        self.all.remove(child)

    def close(self) -> None:
        """Unmap the status pages of all children."""
        for child in self.all:
            child.page.close()
        self.all = []

    def _let_go(self) -> None:
        """Called in a child: close the parent's mappings."""
        self._let_go_parent()
        for child in self.all:
            child.page.close()

    def pause(self, seconds: float) -> None:
        """Sleep for ``seconds``, or until a stop signal comes. Reaps children that end, counts stop signals."""
        self._beat()
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            info = signal.sigtimedwait(self._signals, left)
            if info is None:
                break
            if self._reloads and info.si_signo == signal.SIGHUP:
                self.reload = True
                break
            if info.si_signo in _STOP_SIGNALS:
                self.stops += 1
                self._log.info("stopping" if self.stops == 1 else "stopping at once")
                break
            self.reap()

    def watch(self) -> None:
        """Restart children that died, kill children that hang."""
        now = time.monotonic()
        for child in self.all:
            if child.pid:
                if child.killed:
                    continue
                silence = child.silent_seconds()
                if silence > self._heartbeat_seconds:
                    self._log.error("process hangs; killed", process=child.name, silent_seconds=round(silence, 1))
                    child.kill()
                elif child.unseen_seconds(now) > _UNSEEN_SECONDS:
                    self._log.warning("its status page was removed; the process is started again", process=child.name)
                    child.kill()
            elif not child.finished and now >= child.restart_at:
                child.page.restarts += 1
                self._start(child)

    def _start(self, child: Child) -> None:
        """Fork a child. If the machine grants no process, that counts as a child that ended at once."""
        try:
            child.start(self._let_go)
        except OSError as error:
            if child.refusal != error.errno:
                self._log.error(
                    "process cannot be started; trying again",
                    process=child.name,
                    error=f"{error.strerror} ({errno.errorcode.get(error.errno or 0, error.errno)})",
                    advice=start_advice(error),
                )
            child.refusal = error.errno
            child.code = EXIT_FAILED
            self._back_off(child)
            return
        if child.refusal:
            self._log.info("process could be started", process=child.name, tries=child.backoff.failures + 1)
            child.refusal = None

    def reap(self) -> None:
        """Collect children that have ended."""
        for child in list(self.all):
            if not child.pid:
                continue
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                self.cpu_seconds[child.role.name] += usage.ru_utime + usage.ru_stime
                child.pid = 0
                child.code = os.waitstatus_to_exitcode(status)
                self._ended(child)

    def _ended(self, child: Child) -> None:
        code = child.code
        if child.released:
            self._forget(child)
            return
        if self.stops or self.fatal:
            return
        if child.renewed:
            child.renewed, child.restart_at = False, 0.0
            child.backoff.reset()
            return
        if child.done:
            child.finished = True
            return
        lived = time.monotonic() - child.started_at
        if code == EXIT_INPUT and time.monotonic() - self._started_at < _STABLE_SECONDS:
            self.fatal = EXIT_INPUT
            self._log.error("process cannot start; ending the site", process=child.name)
            return
        if lived > _STABLE_SECONDS:
            child.backoff.reset()
        if code == EXIT_INPUT:
            # A person must fix something. Until then, a site that has already run continues with what works.
            child.backoff.use_longest()
        self._back_off(child)
        self._log.warning("process ended; starting it again", process=child.name, code=code, lived_seconds=round(lived))

    def _back_off(self, child: Child) -> None:
        """Delay the next start of a child."""
        child.restart_at = time.monotonic() + child.backoff.next_seconds()

    def drain(self, role: Role, deadline: float) -> bool:
        """Stop all children of a role; those that hold something pass it on first. False if that took longer than
        ``deadline`` (monotonic seconds)."""
        if not role.passes_on:
            deadline = min(deadline, time.monotonic() + NOTICE_SECONDS)
        stage = [child for child in self.all if child.role is role]
        self.reap()
        for child in stage:
            # A process that is down now, or ends before it is done, is started again.
            child.code = EXIT_OK if child.pid or not role.passes_on else EXIT_FAILED
            child.signal(signal.SIGTERM)
        while time.monotonic() < deadline and self.stops < 2:
            for child in stage:
                if self._needed(child):
                    self._start(child)
                    child.signal(signal.SIGTERM)
            if not any(child.pid or self._needed(child) for child in stage):
                break
            self.pause(TICK_SECONDS)
            self.reap()
        left = [child for child in stage if child.pid or self._needed(child)]
        for child in left:
            child.signal(signal.SIGKILL)
        if left and role.passes_on:
            self._log.warning("stage not drained in time", stage=role.name, processes=len(left))
        self._reap_killed(left)
        # Killing a process that passes on nothing, such as a capture that hung in its camera, loses no work.
        return not (left and role.passes_on)

    def _needed(self, child: Child) -> bool:
        """In a drain: True if a child is down and has not yet passed on what it holds."""
        return child.role.passes_on and not child.pid and child.code != EXIT_OK and not self.fatal

    def kill_all(self) -> None:
        """Send SIGKILL to all children that still run."""
        alive = [child for child in self.all if child.pid]
        for child in alive:
            child.signal(signal.SIGKILL)
        self._reap_killed(alive)

    def _reap_killed(self, children: list[Child]) -> None:
        for child in children:
            if child.pid:
                _, _, usage = os.wait4(child.pid, 0)
                self.cpu_seconds[child.role.name] += usage.ru_utime + usage.ru_stime
                child.pid = 0
