"""``edge-video capture`` of several cameras: one process that forks a capture for each and watches over them.

What ``run`` does for captures, without the rest of a site, so that a supervisor of the machine can keep writer,
publisher and captures apart and a camera still costs only the memory that its process changes. At SIGHUP the site file
is read again: cameras that were added start, those that are gone stop, those that changed start anew.

Rings outlive their captures. One whose camera has left the site file is removed once the writer has emptied it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable

import msgspec
from structlog.typing import FilteringBoundLogger

from engine.config import Camera, Config
from engine.errors import EngineError
from engine.runtime import rings
from engine.runtime.child_process import Child
from engine.runtime.children import TICK_SECONDS, Children
from engine.runtime.notify import Notifier
from engine.runtime.roles import CAPTURE, Launch, preload
from engine.shm import site

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
            rings.make_missing(self._config, list(self._cameras.values()), self._log)
            if len(self._cameras) == len(self._config.cameras):
                self._left = {leftover.camera for leftover in site.leftovers(self._config)} - set(self._cameras)
            preload(CAPTURE)
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
            children.drain(CAPTURE, math.inf)
            return children.fatal
        finally:
            children.kill_all()
            children.close()
            children.leave_signals()

    def _child(self, camera: Camera) -> Child:
        return Child(CAPTURE.instance(self._config, camera.id), self._launch())

    def _launch(self) -> Launch:
        return Launch(self._config, self._child_log)

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
        running = {child.camera: child for child in self._children.all}
        for identifier in set(self._cameras) - set(wanted):
            del self._cameras[identifier]
            self._left.add(identifier)
            self._children.release(running[identifier])
            self._log.info("camera let go", camera=identifier)
        for identifier, camera in wanted.items():
            before = self._cameras.get(identifier)
            if before == camera:
                continue
            if before:
                self._children.renew(running[identifier], self._launch())
            elif not self._add(camera):
                continue
            self._cameras[identifier] = camera
            self._log.info("camera changed" if before else "camera added", camera=identifier)

    def _add(self, camera: Camera) -> bool:
        try:
            rings.make_missing(self._config, [camera], self._log)
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
        for identifier in rings.remove_emptied(self._config, self._left):
            self._left.discard(identifier)
            self._log.info("ring of a camera that was let go removed", camera=identifier)
