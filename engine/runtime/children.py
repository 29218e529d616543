"""Child processes across their restarts: started, watched by their heartbeats, restarted with backoff, stopped.

Used by both processes that fork: the supervisor of a site, and ``edge-video capture`` of several cameras. Signals are
blocked and taken with ``sigtimedwait``, which is also the parent's pause: nothing runs in a handler. The first stop
signal drains, the second stops at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from structlog.typing import FilteringBoundLogger

from engine.backoff import Backoff
from engine.errors import EXIT_FAILED, EXIT_INPUT, EXIT_OK, InputError, RingError
from engine.runtime import roles
from engine.runtime.agent import HANG_SECONDS
from engine.runtime.child import fork, start_advice
from engine.shm import segment
from engine.shm.status_page import CaptureCount, StatusPage

RoleName = Literal["capture", "writer", "publisher"]
#: The parent's pause, in seconds: how often heartbeats are looked at.
TICK_SECONDS = 0.1
#: Pauses before a child is started again, in seconds.
_BACKOFF_SECONDS_MIN = 0.1
BACKOFF_SECONDS_MAX = 30.0
#: Seconds without a status page that anyone finds before a child is started again: by then captures whose rings were
#: removed as well have made new ones, and the writer has emptied the old.
_UNSEEN_SECONDS = 3.0
#: Seconds that a child must live for its next pause to be the shortest again.
_STABLE_SECONDS = 10.0
#: Share of a drain's time that captures may take: they only have to notice.
CAPTURE_DRAIN_SECONDS = HANG_SECONDS + 0.5

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Child:
    """One process of the site, across its restarts."""

    def __init__(self, role: RoleName, title: str, page: Path, main: roles.Role) -> None:
        self.role = role
        self.title = title
        self.main = main
        self._path = page
        StatusPage.create(page)
        self.page = StatusPage.watch(page)
        self.page.restarts = 0
        self.pid = 0
        #: How it ended last: its exit code, or the signal's number below 0.
        self.code = EXIT_OK
        self.finished = False
        #: True once it is to end for good, or to be started anew.
        self.released = False
        self.renewed = False
        self.backoff = Backoff(_BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX)
        #: The errno for which it could not be started, while it cannot.
        self.refusal: int | None = None
        self.started_at = 0.0
        self.restart_at = 0.0
        self._unseen_since = 0.0

    def start(self, let_go: Callable[[], None]) -> None:
        """Fork it; ``let_go`` closes, in the child, what is the supervisor's alone."""
        self._renew_page()
        self.started_at = time.monotonic()

        def main() -> int:
            let_go()
            return self.main()

        self.pid = fork(self.title, main)

    def _renew_page(self) -> None:
        """Look at the status page that the next process will have, should somebody have removed the one before."""
        with contextlib.suppress(OSError, RingError, InputError):
            segment.private_directory(self._path.parent)
            StatusPage.create(self._path)
            fresh = StatusPage.watch(self._path)
            if not fresh.pid:
                # Numbers and counts go on, though nobody finds the one before any more.
                fresh.counts[:] = self.page.counts
            fresh.restarts = self.page.restarts
            self.page.close()
            self.page = fresh

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self.pid:
            os.kill(self.pid, number)

    def silent_seconds(self) -> float:
        """Seconds since its last heartbeat, or since its start."""
        beat = self.page.heartbeat_nano / 1e9 if self.page.pid == self.pid else 0.0
        return time.monotonic() - max(beat, self.started_at)

    def unseen_seconds(self, now: float) -> float:
        """Seconds, as far as this was looked at, for which its status page has had no name, so that nobody else finds
        it."""
        if not self.page.removed:
            self._unseen_since = 0.0
            return 0.0
        self._unseen_since = self._unseen_since or now
        return now - self._unseen_since


class Children:
    """The processes of one parent. ``stops`` counts the stop signals that it got; ``fatal`` is an exit code once a
    child has failed in a way that no restart can mend.

    ``let_go`` closes, in a child, what is the parent's alone; ``beat`` is called in every pause. Where the parent
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
        # A site that was started with nohup is to outlive its terminal. Blocked, an ignored signal would arrive.
        ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
        self._signals = {*_STOP_SIGNALS, signal.SIGCHLD} - ignored
        #: CPU seconds of ended children, by role.
        self.cpu_seconds: dict[RoleName, float] = defaultdict(float)

    def take_signals(self) -> None:
        """Block the signals that ``pause`` takes."""
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)

    def stopping(self) -> bool:
        """True where a stop signal waits for ``pause``."""
        return bool(signal.sigpending() & set(_STOP_SIGNALS))

    def leave_signals(self) -> None:
        """Let signals do again what they did before."""
        # Taken here, a stop signal that came late does not end the process behind its last line.
        while signal.sigtimedwait(self._signals, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def start(self, children: list[Child]) -> None:
        """Start all, in their order."""
        self.all = children
        self._started_at = time.monotonic()
        for child in children:
            self._start(child)

    @property
    def running(self) -> int:
        """How many run now."""
        return sum(bool(child.pid) for child in self.all)

    def add(self, child: Child) -> None:
        """One more, started at once."""
        self.all.append(child)
        self._start(child)

    def release(self, child: Child) -> None:
        """Stop one for good."""
        child.released = True
        child.signal(signal.SIGTERM)
        if not child.pid:
            self._forget(child)

    def renew(self, child: Child, main: roles.Role) -> None:
        """Stop one, to start it again with another ``main``."""
        child.main = main
        child.renewed = bool(child.pid)
        child.finished = False
        child.restart_at = 0.0
        child.signal(signal.SIGTERM)

    def _forget(self, child: Child) -> None:
        child.page.close()
        self.all.remove(child)

    def close(self) -> None:
        """Unmap what is known of them."""
        for child in self.all:
            child.page.close()
        self.all = []

    def _let_go(self) -> None:
        """In a child: its parent's views of all processes are not its own."""
        self._let_go_parent()
        for child in self.all:
            child.page.close()

    def pause(self, seconds: float) -> None:
        """Sleep, or less when a child ends; stop signals are counted."""
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
        """Restart what died, kill what hangs."""
        now = time.monotonic()
        for child in self.all:
            if child.pid:
                silence = child.silent_seconds()
                if silence > self._heartbeat_seconds:
                    self._log.error("process hangs; killed", process=child.title, silent_seconds=round(silence, 1))
                    child.signal(signal.SIGKILL)
                elif child.unseen_seconds(now) > _UNSEEN_SECONDS:
                    self._log.warning("its status page was removed; the process is started again", process=child.title)
                    child.signal(signal.SIGKILL)
            elif not child.finished and now >= child.restart_at:
                child.page.restarts += 1
                self._start(child)

    def _start(self, child: Child) -> None:
        """Fork it. Where the machine gives no process, that counts as a child that ended at once."""
        try:
            child.start(self._let_go)
        except OSError as error:
            if child.refusal != error.errno:
                self._log.error(
                    "process cannot be started; trying again",
                    process=child.title,
                    error=f"{error.strerror} ({errno.errorcode.get(error.errno or 0, error.errno)})",
                    advice=start_advice(error),
                )
            child.refusal = error.errno
            child.code = EXIT_FAILED
            self._back_off(child)
            return
        if child.refusal:
            self._log.info("process could be started", process=child.title, tries=child.backoff.failures + 1)
            child.refusal = None

    def reap(self) -> None:
        """Take note of children that have ended."""
        for child in list(self.all):
            if not child.pid:
                continue
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                self.cpu_seconds[child.role] += usage.ru_utime + usage.ru_stime
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
        if code == EXIT_OK and child.role == "capture" and child.page.counts[CaptureCount.FINISHED]:
            child.finished = True
            return
        lived = time.monotonic() - child.started_at
        if code == EXIT_INPUT and time.monotonic() - self._started_at < _STABLE_SECONDS:
            self.fatal = EXIT_INPUT
            self._log.error("process cannot start; ending the site", process=child.title)
            return
        if lived > _STABLE_SECONDS:
            child.backoff.reset()
        if code == EXIT_INPUT:
            # A person must mend something. A site that has run goes on with what works until then.
            child.backoff.use_longest()
        self._back_off(child)
        self._log.warning(
            "process ended; starting it again", process=child.title, code=code, lived_seconds=round(lived)
        )

    def _back_off(self, child: Child) -> None:
        """Put off its next start."""
        child.restart_at = time.monotonic() + child.backoff.next_seconds()

    def drain_stage(self, role: str, deadline: float) -> bool:
        """Stop all children of a role, which pass on what they hold; False where that took longer than ``deadline``."""
        stage = [child for child in self.all if child.role == role]
        self.reap()
        for child in stage:
            # A process that is down when its turn comes, or ends before it is done, is started once more.
            child.code = EXIT_OK if child.pid or role == "capture" else EXIT_FAILED
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
        if left and role != "capture":
            self._log.warning("stage not drained in time", stage=role, processes=len(left))
        self._reap_killed(left)
        # A capture killed here hung in its camera; its ring holds all it had captured.
        return role == "capture" or not left

    def _needed(self, child: Child) -> bool:
        """In a drain: whether it is down before it has passed on what it holds."""
        return not child.pid and child.code != EXIT_OK and child.role != "capture" and not self.fatal

    def kill_all(self) -> None:
        """SIGKILL to whatever still runs."""
        alive = [child for child in self.all if child.pid]
        for child in alive:
            child.signal(signal.SIGKILL)
        self._reap_killed(alive)

    def _reap_killed(self, children: list[Child]) -> None:
        for child in children:
            if child.pid:
                _, _, usage = os.wait4(child.pid, 0)
                self.cpu_seconds[child.role] += usage.ru_utime + usage.ru_stime
                child.pid = 0
