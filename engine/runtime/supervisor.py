"""The supervisor: owns the site's shared memory and its processes.

Start: lock, broker asked, Redis (the embedded one started), shared memory, rings; then writers, publisher, captures.
Drain reverses the path of a frame under one deadline: captures, writers, publisher, the embedded server, shared
memory. A stage that happens to be dead is started again for its drain, since only it can pass on what it holds.

Signals are blocked and taken with ``sigtimedwait``, which is also the loop's pause: nothing runs in a handler. The
first SIGTERM or SIGINT drains, the second stops at once.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import EXIT_FAILED, EXIT_INPUT, EXIT_OK, InputError, RedisUnavailable, RingError
from engine.runtime import preflight, roles
from engine.runtime.agent import HANG_SECONDS
from engine.runtime.child import fork
from engine.runtime.embedded import EmbeddedServer
from engine.runtime.limits import allow_files, files_needed
from engine.runtime.lock import SiteLock
from engine.shm import site
from engine.shm.slate import CaptureCount, Slate
from engine.stages.journals import newest_numbers
from engine.stages.redis_link import connect

RoleName = Literal["capture", "writer", "publisher"]
#: The loop's pause, in seconds: how often heartbeats are looked at.
_TICK_SECONDS = 0.1
#: Pauses before a child is started again, in seconds: doubling, with jitter.
_BACKOFF_SECONDS_MIN = 0.1
_BACKOFF_SECONDS_MAX = 30.0
#: Failures in a row beyond which the pause grows no more.
_FAILURES_MAX = 12
#: Seconds that a child must live for its next pause to be the shortest again.
_STABLE_SECONDS = 10.0
#: Share of the drain's time that captures may take: they only have to notice.
_CAPTURE_DRAIN_SECONDS = HANG_SECONDS + 0.5

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SIGNALS = (*_STOP_SIGNALS, signal.SIGCHLD)


class Child:
    """One process of the site, across its restarts."""

    def __init__(self, role: RoleName, title: str, slate: Path, main: roles.Role) -> None:
        self.role = role
        self.title = title
        self.main = main
        self._path = slate
        Slate.create(slate)
        self.slate = Slate.watch(slate)
        self.slate.restarts = 0
        self.pid = 0
        #: How it ended last: its exit code, or the signal's number below 0.
        self.code = EXIT_OK
        self.finished = False
        self.failures = 0
        self.started_at = 0.0
        self.restart_at = 0.0

    def start(self, let_go: Callable[[], None]) -> None:
        """Fork it; ``let_go`` closes, in the child, what is the supervisor's alone."""
        self._renew_slate()
        self.started_at = time.monotonic()

        def main() -> int:
            let_go()
            return self.main()

        self.pid = fork(self.title, main)

    def _renew_slate(self) -> None:
        """Look at the slate that the next process will have, should somebody have removed the one before."""
        with contextlib.suppress(OSError, RingError):
            Slate.create(self._path)
            fresh = Slate.watch(self._path)
            fresh.restarts = self.slate.restarts
            self.slate.close()
            self.slate = fresh

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self.pid:
            os.kill(self.pid, number)

    def silent_seconds(self) -> float:
        """Seconds since its last heartbeat, or since its start."""
        beat = self.slate.heartbeat_nano / 1e9 if self.slate.pid == self.pid else 0.0
        return time.monotonic() - max(beat, self.started_at)


class Supervisor:
    """Runs a site. ``log`` is for itself; ``child_log`` is given to the children."""

    def __init__(self, config: Config, log: FilteringBoundLogger, child_log: FilteringBoundLogger) -> None:
        self._config = config
        self._log = log.bind(role="supervisor")
        self._child_log = child_log
        self._paths = site.SitePaths.of(config)
        self._lock: SiteLock | None = None
        self._server = EmbeddedServer(config) if config.embedded else None
        self._server_restart_at = 0.0
        self._slate: Slate | None = None
        self.children: list[Child] = []
        self._stops = 0
        self._started_at = 0.0
        self._fatal = EXIT_OK
        self._mask: set[int | signal.Signals] = set()
        #: CPU seconds of ended children, by role.
        self.cpu_seconds: dict[RoleName, float] = defaultdict(float)
        #: Redis as it presented itself.
        self.store = preflight.Server("redis", "")

    def start(self) -> None:
        """Check everything, then start everything. Raises InputError with nothing left behind."""
        config = self._config
        allow_files(files_needed(config), f"site {config.site.name}")
        for warning in config.warnings:
            self._log.warning("site file", warning=warning)
        self._lock = SiteLock(config, exclusive=True)
        try:
            site.make_directory(config)
        except BaseException:
            self._lock.release()
            raise
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            # Rings of a former run are reserved already; those that fit are adopted.
            site.check_space(config, reserved=_standing_bytes(self._paths.directory))
            preflight.check_broker(config, self._log)
            if self._server:
                self._server.start()
            self.store = preflight.check_redis(config)
            _preload()
            self._make_rings()
        except BaseException:
            self._leave(remove=not any(leftover.held for leftover in site.leftovers(config)))
            raise
        self.children = self._plan()
        self._started_at = time.monotonic()
        for child in self.children:
            child.start(self._let_go)
        self._slate = Slate.claim(self._paths.supervisor)
        self._log.info(
            "site started",
            site=config.site.name,
            cameras=len(config.cameras),
            store=str(self.store),
            redis=str(config.redis_address),
            vhost=config.vhost,
        )

    def run(self, on_tick: Callable[[], None] = lambda: None, until: Callable[[], bool] = lambda: False) -> int:
        """Watch over the site until a signal, a fatal failure, or ``until()``; then drain. Returns the exit code.

        ``on_tick`` is called about ten times a second.
        """
        try:
            while not (self._stops or self._fatal or until()):
                self._pause(_TICK_SECONDS)
                self._watch()
                on_tick()
            drained = self._drain()
            return self._fatal or drained
        finally:
            self._kill_all()

    def close(self) -> None:
        """After ``run``: remove shared memory, unless frames are left in it for the next start."""
        held = self._held()
        if held < 0:
            self._log.error("rings cannot be looked at; they are left for the next start")
        elif held:
            self._log.warning("frames left in shared memory for the next start", frames=held)
        self._leave(remove=not held)

    # Start

    def _let_go(self) -> None:
        """In a child: the supervisor's views of all processes are not its own."""
        if self._slate:
            self._slate.close()
        for child in self.children:
            child.slate.close()

    def _make_rings(self) -> None:
        config = self._config
        for leftover in site.sweep(config):
            self._log.warning(
                "ring of a former run removed",
                camera=leftover.camera,
                lost_frames=leftover.held,
                reason=leftover.reason,
            )
        adopted = {leftover.camera: leftover.held for leftover in site.leftovers(config)}
        try:
            connection = connect(config.redis_address, config.redis.timeout_seconds)
            for camera in config.cameras:
                if camera.id not in adopted:
                    last = newest_numbers(config.redis_address, connection, config.vhost, config.prefix, camera.id)
                    roles.ensure_ring(config, camera, *last)
            connection.disconnect()
        except RedisUnavailable as error:
            raise InputError(str(error)) from None
        if sum(adopted.values()):
            self._log.info("rings of a former run adopted", frames=sum(adopted.values()))

    def _plan(self) -> list[Child]:
        """All children in their order of start."""
        config, log, paths = self._config, self._child_log, self._paths
        children = []
        for number in range(config.writer.writers):
            title = f"writer {number}" if config.writer.writers > 1 else "writer"
            children.append(
                Child("writer", title, paths.writer(number), partial(roles.run_writer, config, number, log))
            )
        if config.publishes:
            children.append(Child("publisher", "publisher", paths.publisher, partial(roles.run_publisher, config, log)))
        for camera in config.cameras:
            main = partial(roles.run_capture, config, camera, log)
            children += [Child("capture", f"capture {camera.id}", paths.capture(camera.id), main)]
        return children

    # Watch

    def _pause(self, seconds: float) -> None:
        """Sleep, or less when a child ends; stop signals are counted."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            info = signal.sigtimedwait(_SIGNALS, left)
            if info is None:
                break
            if info.si_signo in _STOP_SIGNALS:
                self._stops += 1
                self._log.info("stopping" if self._stops == 1 else "stopping at once")
                break
            self._reap()

    def _watch(self) -> None:
        """Restart what died, kill what hangs."""
        now = time.monotonic()
        if self._slate:
            self._slate.beat()
        for child in self.children:
            if child.pid:
                silence = child.silent_seconds()
                if silence > self._config.site.heartbeat_seconds:
                    self._log.error("process hangs; killed", process=child.title, silent_seconds=round(silence, 1))
                    child.signal(signal.SIGKILL)
            elif not child.finished and now >= child.restart_at:
                child.slate.restarts += 1
                child.start(self._let_go)
        if self._server and self._server.exited() and now >= self._server_restart_at:
            self._server_restart_at = now + _BACKOFF_SECONDS_MAX
            self._log.error("embedded server ended; started again, what it held is gone")
            try:
                self._server.start()
            except InputError as error:
                self._log.error("embedded server does not start", error=str(error))

    def _reap(self) -> None:
        """Take note of children that have ended."""
        for child in self.children:
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
        if self._stops or self._fatal:
            return
        if code == EXIT_OK and child.role == "capture" and child.slate.counts[CaptureCount.FINISHED]:
            child.finished = True
            return
        lived = time.monotonic() - child.started_at
        if code == EXIT_INPUT and time.monotonic() - self._started_at < _STABLE_SECONDS:
            self._fatal = EXIT_INPUT
            self._log.error("process cannot start; ending the site", process=child.title)
            return
        child.failures = 1 if lived > _STABLE_SECONDS else child.failures + 1
        if code == EXIT_INPUT:
            # A person must mend something. A site that has run goes on with what works until then.
            child.failures = _FAILURES_MAX
        pause = min(_BACKOFF_SECONDS_MIN * 2.0 ** (min(child.failures, _FAILURES_MAX) - 1), _BACKOFF_SECONDS_MAX)
        child.restart_at = time.monotonic() + pause * random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret
        self._log.warning(
            "process ended; starting it again", process=child.title, code=code, lived_seconds=round(lived)
        )

    # Drain

    def _drain(self) -> int:
        """Stop stage by stage in a frame's order of travel; returns EXIT_FAILED where time ran out or frames are
        left."""
        self._stops = max(self._stops, 1)
        deadline = time.monotonic() + self._config.site.drain_seconds
        in_time = True
        for role, bound in (
            ("capture", min(deadline, time.monotonic() + _CAPTURE_DRAIN_SECONDS)),
            ("writer", deadline),
            ("publisher", deadline),
        ):
            in_time &= self._drain_stage([child for child in self.children if child.role == role], role, bound)
        return EXIT_OK if in_time and not self._held() else EXIT_FAILED

    def _drain_stage(self, stage: list[Child], role: str, deadline: float) -> bool:
        self._reap()
        for child in stage:
            # Whoever is down when its turn comes, or goes down before it is done, is needed once more.
            child.code = EXIT_OK if child.pid or role == "capture" else EXIT_FAILED
            child.signal(signal.SIGTERM)
        while time.monotonic() < deadline and self._stops < 2:
            for child in stage:
                if not child.pid and child.code != EXIT_OK and role != "capture" and not self._fatal:
                    child.start(self._let_go)
                    child.signal(signal.SIGTERM)
            if not any(child.pid for child in stage):
                break
            self._pause(_TICK_SECONDS)
            self._reap()
        left = [child for child in stage if child.pid]
        for child in left:
            child.signal(signal.SIGKILL)
        if left and role != "capture":
            self._log.warning("stage not drained in time", stage=role, processes=len(left))
        self._reap_killed(left)
        # A capture killed here hung in its camera; its ring holds all it had captured.
        return role == "capture" or not left

    def _kill_all(self) -> None:
        alive = [child for child in self.children if child.pid]
        for child in alive:
            child.signal(signal.SIGKILL)
        self._reap_killed(alive)

    def _reap_killed(self, children: list[Child]) -> None:
        for child in children:
            if child.pid:
                _, _, usage = os.wait4(child.pid, 0)
                self.cpu_seconds[child.role] += usage.ru_utime + usage.ru_stime
                child.pid = 0

    def _held(self) -> int:
        """Frames that are in rings now; -1 where nobody can tell."""
        try:
            return sum(leftover.held for leftover in site.leftovers(self._config))
        except InputError:
            return -1

    def _leave(self, *, remove: bool) -> None:
        if self._server:
            self._server.stop()
        if self._slate:
            self._slate.close()
            self._slate = None
        for child in self.children:
            child.slate.close()
        self.children = []
        if remove:
            site.remove(self._paths)
        if self._lock:
            self._lock.release()
            self._lock = None
        # Taken here, a stop signal that came late does not end the process behind its last line.
        while signal.sigtimedwait(_SIGNALS, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _standing_bytes(directory: Path) -> int:
    """Bytes that a former run's files take in shared memory."""
    return sum(path.stat().st_size for path in directory.glob("*.ring")) if directory.is_dir() else 0


def _preload() -> None:
    """Load what children need before the first fork, so that they share it."""
    import engine.stages.capture
    import engine.stages.pattern
    import engine.stages.publisher
    import engine.stages.source
    import engine.stages.writer  # noqa: F401
