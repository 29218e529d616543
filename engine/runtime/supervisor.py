"""The supervisor: owns the site's shared memory and its processes.

``start`` has the order of start: lock, shared memory, check of the broker, Redis (the embedded one is started), leases,
rings, then the processes in the order of the table of roles (``engine/runtime/roles.py``). ``_drain`` and ``_leave``
reverse it: processes under one deadline, the embedded server, shared memory, lock. A dead process is started again for
its drain, because only it can pass on what it holds.

The first SIGTERM or SIGINT drains, the second stops at once (``engine/runtime/children.py``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import EXIT_FAILED, EXIT_OK, InputError
from engine.runtime import claims, preflight, rings, roles, running_site
from engine.runtime.child_process import BACKOFF_SECONDS_MAX, Child
from engine.runtime.children import TICK_SECONDS, Children
from engine.runtime.embedded_pids import running_pids
from engine.runtime.embedded_servers import EmbeddedServers
from engine.runtime.limits import allow_files, files_needed
from engine.runtime.lock import SiteLock
from engine.runtime.notify import Notifier
from engine.runtime.roles import CHILD_ROLES, SUPERVISOR, Launch
from engine.shm import site
from engine.shm.status_page import StatusPage


class Supervisor:
    """Runs a site. ``log`` is its own, the children get ``child_log``, ``notifier`` sends messages to systemd. An
    embedded server outlives a supervisor that is killed, unless ``server_outlives`` is False."""

    def __init__(
        self,
        config: Config,
        log: FilteringBoundLogger,
        child_log: FilteringBoundLogger,
        notifier: Notifier | None = None,
        *,
        server_outlives: bool = True,
    ) -> None:
        self._config = config
        self._log = log.bind(role=SUPERVISOR.name)
        self._child_log = child_log
        self._paths = site.SitePaths.of(config)
        self._lock: SiteLock | None = None
        self._server = EmbeddedServers(config, outlives=server_outlives) if config.embedded else None
        self._server_restart_at = 0.0
        self._page: StatusPage | None = None
        self._notifier = notifier or Notifier()
        self._children = Children(self._log, config.site.heartbeat_seconds, self._let_go, beat=self._notifier.beat)
        #: Kind and version of Redis, as it reports them.
        self.store = preflight.Server("redis", "")

    # The order of start, and the drain that reverses it

    def start(self) -> None:
        """Check everything, then start everything. Raises InputError; then nothing runs, and only what a former run
        left remains."""
        config = self._config
        allow_files(files_needed(config), f"site {config.site.name}")
        for warning in config.warnings:
            self._log.warning("site file", warning=warning)
        self._lock_site()
        self._children.take_signals()
        server_stands = False
        try:
            server_stands = self._server is not None and bool(running_pids(config))
            # Rings of a former run have their space already; those that fit are adopted.
            site.check_space(config, reserved=rings.standing_bytes(self._paths.directory))
            preflight.check_broker(config, self._log)
            self._start_server()
            self.store = preflight.check_redis(config)
            roles.preload(config, *CHILD_ROLES)
            self._claim_and_make_rings()
            running_site.write(config, os.environ)
        except BaseException:
            # Rings without frames still know what the servers of a former run must have.
            remove = not server_stands and not any(leftover.held for leftover in site.leftovers(config))
            self._leave(remove=remove, keep_server=self._adopted)
            raise
        launch = Launch(config, self._child_log, self._own)
        self._children.start([Child(instance, launch) for instance in roles.instances(config)])
        self._page = StatusPage.claim(SUPERVISOR.instance(config).page)
        self._say_started()

    def _drain(self) -> int:
        """Stop role by role in a frame's order of travel; returns EXIT_FAILED if time ran out or frames are left."""
        self._notifier.stopping()
        self._children.stops = max(self._children.stops, 1)
        deadline = time.monotonic() + self._config.site.drain_seconds
        in_time = True
        for role in reversed(CHILD_ROLES):
            in_time &= self._children.drain(role, deadline)
        return EXIT_OK if in_time and not self._held() else EXIT_FAILED

    def _leave(self, *, remove: bool, keep_server: bool = False) -> None:
        """Release everything: shared memory if ``remove``, the server unless ``keep_server``, the lock."""
        if self._server and keep_server:
            self._server.leave()
        elif self._server:
            self._server.stop()
        if self._page:
            self._page.close()
            self._page = None
        self._children.close()
        if remove:
            site.remove(self._paths)
        if self._lock:
            self._lock.release()
            self._lock = None
        self._children.leave_signals()

    # The run

    def run(self, on_tick: Callable[[], None] = lambda: None, until: Callable[[], bool] = lambda: False) -> int:
        """Watch the site until a signal, a fatal failure or ``until()``, then drain it. Returns the exit code.

        ``on_tick`` is called about ten times a second.
        """
        children = self._children
        try:
            while not (children.stops or children.fatal or until()):
                children.pause(TICK_SECONDS)
                self._watch()
                on_tick()
            drained = self._drain()
            return children.fatal or drained
        finally:
            children.kill_all()

    def close(self) -> None:
        """Call this after ``run``: removes shared memory, unless frames are left in it for the next start."""
        held = self._held()
        if held < 0:
            self._log.error("rings cannot be read; they are left for the next start")
        elif held:
            self._log.warning("frames left in shared memory for the next start", frames=held)
        self._leave(remove=not held, keep_server=bool(self._children.fatal) and self._adopted)

    @property
    def cpu_seconds(self) -> dict[str, float]:
        """CPU seconds of ended children, by role."""
        return self._children.cpu_seconds

    def _watch(self) -> None:
        """Restart processes that died, kill processes that hang."""
        now = time.monotonic()
        if self._page:
            self._page.beat()
        # First, or the end of a process that is started again at once would be reported only now and then.
        self._notifier.status(self._status())
        self._children.watch()
        ended = self._server.exited() if self._server and now >= self._server_restart_at else []
        for server in ended:
            self._server_restart_at = now + BACKOFF_SECONDS_MAX
            self._log.error("embedded server ended; starting it again, its frames are lost", socket=server.address.path)
            try:
                server.start()
            except InputError as error:
                self._log.error("embedded server does not start", error=error)

    def _status(self) -> str:
        return f"{self._children.running} of {len(self._children.all)} processes run"

    # Details of the start

    def _lock_site(self) -> None:
        """Take the site's lock and its directory in shared memory."""
        self._lock = SiteLock(self._config, exclusive=True)
        try:
            site.make_directory(self._config)
            site.check_owner(self._config)
        except BaseException:
            self._lock.release()
            raise
        self._own = claims.identity(self._config)

    def _start_server(self) -> None:
        server = self._server
        if server is None:
            for pid in running_pids(self._config):
                advice = "stop the site and run edge-video clean, or set redis.address to embedded"
                self._log.warning("embedded server of a former run still runs", pid=pid, advice=advice)
            return
        server.start()
        for one in server.adopted:
            self._log.info("embedded server of a former run adopted", pid=one.pid, frames=one.frames())
        for why in server.replaced:
            self._log.error("embedded server of a former run replaced; its frames are lost", error=why)

    @property
    def _adopted(self) -> bool:
        """True if an embedded server was adopted. A start that fails leaves it running."""
        return self._server is not None and bool(self._server.adopted)

    def _let_go(self) -> None:
        """Called in a child: close the supervisor's status page."""
        if self._page:
            self._page.close()

    def _claim_and_make_rings(self) -> None:
        config, names, own = self._config, [camera.id for camera in self._config.cameras], self._own
        claims.claim(config, names, own, self._log, self._children.stopping)
        try:
            claims.claim_name(config, own, self._log, self._children.stopping)
            rings.adopt_or_make(config, self._log)
        except BaseException:
            claims.release(config, names, own, self._log)
            raise

    def _say_started(self) -> None:
        config = self._config
        self._log.info(
            "site started",
            site=config.site.name,
            cameras=len(config.cameras),
            store=str(self.store),
            redis=str(config.redis_address),
            vhost=config.vhost,
        )
        self._notifier.ready(self._status())

    def _held(self) -> int:
        """Frames in the rings now; -1 if unknown."""
        try:
            return sum(leftover.held for leftover in site.leftovers(self._config))
        except InputError:
            return -1
