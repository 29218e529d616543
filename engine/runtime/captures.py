"""``edge-video capture`` of several cameras: one process that forks a capture for each and watches over them.

What ``run`` does for captures, without the rest of a site, so that a supervisor of the machine can keep writer,
publisher and captures apart and a camera still costs only the memory that its process changes. At SIGHUP the site file
is read again: cameras that were added start, those that are gone stop, those that changed start anew.

Rings outlive their captures. One whose camera has left the site file is removed once the writer has emptied it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import msgspec
from structlog.typing import FilteringBoundLogger

from engine.config import Camera, Config
from engine.errors import EngineError, RingError, RingMismatch
from engine.runtime import roles
from engine.runtime.children import CAPTURE_DRAIN_SECONDS, TICK_SECONDS, Child, Children
from engine.runtime.notify import Notifier
from engine.servers.redis.connect import connect
from engine.shm import ring_place, site
from engine.shm.ring_file import Observer
from engine.shm.status_page import StatusPage
from engine.stages.publisher.journals import newest_numbers

#: Seconds that Redis may take to answer who is only asked for a camera's last number.
_NUMBERS_SECONDS_MAX = 2.0
#: Seconds between two looks at rings that wait to be emptied.
_SWEEP_SECONDS = 1.0
#: Sections of a site file that are taken anew at SIGHUP.
_TAKEN = ("cameras", "defaults", "warnings")


class Captures:
    """Captures the cameras that ``select`` picks of a site; ``read`` reads its file again."""

    def __init__(
        self,
        config: Config,
        select: Callable[[Config], Iterable[Camera]],
        read: Callable[[], Config],
        log: FilteringBoundLogger,
        notifier: Notifier,
    ) -> None:
        self._config = config
        self._select = select
        self._read = read
        self._child_log = log
        self._log = log.bind(role="captures")
        self._notifier = notifier
        self._paths = site.SitePaths.of(config)
        # SIGHUP of a terminal says that it has gone.
        self._children = Children(
            self._log, config.site.heartbeat_seconds, beat=notifier.beat, reloads=not os.isatty(0)
        )
        self._cameras: dict[str, Camera] = {}
        #: Cameras that were let go, whose rings are to be removed.
        self._left: set[str] = set()
        self._sweep_at = 0.0

    def run(self) -> int:
        """Until a stop signal or a fatal failure; returns the exit code."""
        self._cameras = {camera.id: camera for camera in self._select(self._config)}
        children = self._children
        children.take_signals()
        try:
            ensure_rings(self._config, list(self._cameras.values()), self._log)
            if len(self._cameras) == len(self._config.cameras):
                self._left = {leftover.camera for leftover in site.leftovers(self._config)} - set(self._cameras)
            _preload()
            children.start([self._child(camera) for camera in self._cameras.values()])
            self._notifier.ready(self._status())
            self._log.info("captures started", site=self._config.site.name, cameras=len(self._cameras))
            while not (children.stops or children.fatal):
                children.pause(TICK_SECONDS)
                children.watch()
                if children.reload:
                    children.reload = False
                    self._reload()
                self._sweep()
                self._notifier.status(self._status())
            self._notifier.stopping()
            children.drain_stage("capture", time.monotonic() + CAPTURE_DRAIN_SECONDS)
            return children.fatal
        finally:
            children.kill_all()
            children.close()
            children.leave_signals()

    def _child(self, camera: Camera) -> Child:
        return Child("capture", f"capture {camera.id}", self._paths.capture(camera.id), self._main(camera))

    def _main(self, camera: Camera) -> roles.Role:
        return partial(roles.run_capture, self._config, camera, self._child_log)

    def _status(self) -> str:
        return f"{self._children.running} of {len(self._cameras)} capture processes run"

    # Reload

    def _reload(self) -> None:
        """Read the site file again; one that is wrong changes nothing."""
        self._notifier.reloading()
        try:
            fresh = self._read()
            selected = list(self._select(fresh))
        except EngineError as error:
            self._log.error("site file not taken; nothing changes", error=error)
        else:
            for warning in fresh.warnings:
                self._log.warning("site file", warning=warning)
            self._take(fresh, selected)
        self._notifier.ready(self._status())

    def _take(self, fresh: Config, selected: list[Camera]) -> None:
        kept = [name for name in Config.__struct_fields__ if name not in _TAKEN]
        if changed := [name for name in kept if getattr(fresh, name) != getattr(self._config, name)]:
            self._log.warning("these sections are taken when all roles are restarted", sections=", ".join(changed))
        self._config = msgspec.structs.replace(self._config, cameras=fresh.cameras)
        wanted = {camera.id: camera for camera in selected}
        running = {child.title: child for child in self._children.all}
        for identifier in set(self._cameras) - set(wanted):
            del self._cameras[identifier]
            self._left.add(identifier)
            self._children.release(running[f"capture {identifier}"])
            self._log.info("camera let go", camera=identifier)
        for identifier, camera in wanted.items():
            before = self._cameras.get(identifier)
            if before == camera:
                continue
            if before:
                self._children.renew(running[f"capture {identifier}"], self._main(camera))
            elif not self._add(camera):
                continue
            self._cameras[identifier] = camera
            self._log.info("camera changed" if before else "camera added", camera=identifier)

    def _add(self, camera: Camera) -> bool:
        try:
            ensure_rings(self._config, [camera], self._log)
            child = self._child(camera)
        except (EngineError, OSError) as error:
            self._log.error("camera refused", camera=camera.id, error=error)
            return False
        self._left.discard(camera.id)
        self._children.add(child)
        return True

    def _sweep(self) -> None:
        """Remove rings of cameras that were let go, once they are empty."""
        now = time.monotonic()
        if not self._left or now < self._sweep_at:
            return
        self._sweep_at = now + _SWEEP_SECONDS
        for identifier in list(self._left):
            ring, page = self._paths.ring(identifier), self._paths.capture(identifier)
            if not _in_use(page) and not _held(ring, identifier):
                ring.unlink(missing_ok=True)
                page.unlink(missing_ok=True)
                self._left.discard(identifier)
                self._log.info("ring of a camera that was let go removed", camera=identifier)


def ensure_rings(config: Config, cameras: Sequence[Camera], log: FilteringBoundLogger) -> None:
    """Make the rings that are missing, their numbers going on behind the last that Redis knows, if it answers.

    A ring that stands and cannot be used (another version's, damaged) is replaced. Raises NoSpace.
    """
    paths = site.SitePaths.of(config)
    for camera in cameras:
        _remove_unusable(paths, camera.id, log)
    missing = [camera for camera in cameras if not paths.ring(camera.id).exists()]
    if not missing:
        return
    last = dict.fromkeys((camera.id for camera in missing), (0, 0))
    address = config.redis_address
    try:
        connection = connect(address, min(config.redis.timeout_seconds, _NUMBERS_SECONDS_MAX))
        for camera in missing:
            last[camera.id] = newest_numbers(address, connection, config.vhost, config.prefix, camera.id)
        connection.disconnect()
    except EngineError as error:
        log.warning(
            "redis cannot be asked for the last numbers; those of new rings may begin anew",
            cameras=len(missing),
            error=error,
        )
    for camera in missing:
        ring_place.ensure(config, camera.id, *last[camera.id])


def _remove_unusable(paths: site.SitePaths, camera: str, log: FilteringBoundLogger) -> None:
    path = paths.ring(camera)
    try:
        Observer(path, camera).close()
    except RingMismatch as error:
        if not _in_use(paths.capture(camera)):
            path.unlink(missing_ok=True)
            log.warning("ring of a former run removed", camera=camera, reason=str(error))
    except FileNotFoundError:
        pass


def _in_use(page: Path) -> bool:
    """True where a live process holds a camera's status page."""
    with suppress(OSError, RingError), closing(StatusPage.watch(page)) as watched:
        return watched.owned
    return False


def _held(ring: Path, camera: str) -> int:
    """Frames in a ring; 0 for one that is gone or that nobody can read."""
    with suppress(OSError, RingError), closing(Observer(ring, camera)) as observer:
        return observer.counts().held
    return 0


def _preload() -> None:
    """Load what captures need before the first fork, so that they share it."""
