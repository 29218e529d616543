"""One child process across its restarts: its fork, its status page, and its last exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from engine.backoff import Backoff
from engine.errors import EXIT_OK, InputError, RingError
from engine.runtime.child import fork
from engine.runtime.roles import Instance, Launch
from engine.shm import segment
from engine.shm.status_page import StatusPage

#: Pauses before a child is started again, in seconds.
_BACKOFF_SECONDS_MIN = 0.1
BACKOFF_SECONDS_MAX = 30.0


class Child:
    """``instance`` of a role, started with ``launch``. Raises OSError, RingError if its status page cannot be made."""

    def __init__(self, instance: Instance, launch: Launch) -> None:
        self.role, self.name, self.camera = instance.role, instance.name, instance.camera
        self.launch = launch
        self._instance = instance
        StatusPage.create(instance.page)
        self.page = StatusPage.watch(instance.page)
        self.page.restarts = 0
        self.pid = 0
        #: Its last exit code, or the negative number of the signal that killed it.
        self.code = EXIT_OK
        self.finished = False
        #: ``released``: it must end for good. ``renewed``: it must start again with another ``launch``.
        self.released = False
        self.renewed = False
        #: True from a kill until it is reaped, which takes a while on a loaded machine.
        self.killed = False
        self.backoff = Backoff(_BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX)
        #: The errno of the last failed start; None after a successful one.
        self.refusal: int | None = None
        self.started_at = 0.0
        self.restart_at = 0.0
        self._unseen_since = 0.0

    def start(self, let_go: Callable[[], None]) -> None:
        """Fork it. In the child, ``let_go`` closes what belongs to the supervisor."""
        self._renew_page()
        self.started_at = time.monotonic()

        def main() -> int:
            let_go()
            return self._instance.run(self.launch)

        self.pid = fork(self.name, main)
        self.killed = False

    def _renew_page(self) -> None:
        """Open the status page of the next process again, in case somebody has removed the file."""
        with contextlib.suppress(OSError, RingError, InputError):
            segment.private_directory(self._instance.page.parent)
            StatusPage.create(self._instance.page)
            fresh = StatusPage.watch(self._instance.page)
            if not fresh.pid:
                # Counts continue although the old page cannot be found any more.
                fresh.counts[:] = self.page.counts
            fresh.restarts = self.page.restarts
            self.page.close()
            self.page = fresh

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self.pid:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, if it runs."""
        self.signal(signal.SIGKILL)
        self.killed = True

    def silent_seconds(self) -> float:
        """Seconds since its last heartbeat, or since its start."""
        beat = self.page.heartbeat_nano / 1e9 if self.page.pid == self.pid else 0.0
        return time.monotonic() - max(beat, self.started_at)

    def unseen_seconds(self, now: float) -> float:
        """Seconds since a call first found that its status page was removed, so that nobody else can find it; 0 if it
        was not."""
        if not self.page.removed:
            self._unseen_since = 0.0
            return 0.0
        self._unseen_since = self._unseen_since or now
        return now - self._unseen_since

    @property
    def done(self) -> bool:
        """True if it ended because its work is done for good, such as a file that was played to its end."""
        finished = self.role.finished
        return self.code == EXIT_OK and finished is not None and bool(self.page.counts[finished])
