"""``edge-video capture`` of several cameras: one process that forks a capture process for each and watches them.

It does for captures what ``run`` does, without the rest of a site. So systemd or supervisord can run writer, publisher
and captures separately, and a camera still costs only the memory that its process changes. SIGHUP reads the site file
again: added cameras start, removed ones stop, changed ones restart.

Rings outlive their captures. The ring of a removed camera is removed once the writer has emptied it.
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

#: Seconds between two checks of rings that must be emptied.
_SWEEP_SECONDS = 1.0
#: Sections of a site file that SIGHUP applies.
_TAKEN = ("cameras", "defaults", "warnings")


class Captures:
    """Captures the cameras that ``select`` picks from a site; ``read`` reads its file again."""

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
        # On a terminal, SIGHUP means that the terminal is gone.
        self._children = Children(
            self._log, config.site.heartbeat_seconds, beat=notifier.beat, reloads=not os.isatty(0)
        )
        self._cameras: dict[str, Camera] = {}
        #: Removed cameras whose rings must still be removed.
        self._left: set[str] = set()
        #: Cameras that no longer store video, and whose video rings must still be removed.
        self._without_video: set[str] = set()
        self._sweep_at = 0.0

    def run(self) -> int:
        """Run until a stop signal or a fatal failure; returns the exit code."""
        self._cameras = {camera.id: camera for camera in self._select(self._config)}
        children = self._children
        children.take_signals()
        try:
            rings.make_missing(self._config, list(self._cameras.values()), self._log)
            left = site.leftovers(self._config)
            if len(self._cameras) == len(self._config.cameras):
                self._left = {leftover.camera for leftover in left} - set(self._cameras)
            self._without_video = {
                leftover.camera
                for leftover in left
                if leftover.video and leftover.camera in self._cameras and not self._cameras[leftover.camera].video
            }
            preload(self._config, CAPTURE)
            children.start([self._child(camera) for camera in self._cameras.values()])
            self._notifier.ready(self._status())
            self._log.info("captures started", site=self._config.site.name, cameras=len(self._cameras))
            while not (children.stops or children.fatal):
                children.pause(TICK_SECONDS)
                self._notifier.status(self._status())
                children.watch()
                if children.reload:
                    children.reload = False
                    self._reload()
                self._sweep()
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
        """Read the site file again. An invalid file changes nothing."""
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
                if not self._change(camera, running[identifier]):
                    continue
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

    def _change(self, camera: Camera, child: Child) -> bool:
        try:
            # Video may have come.
            rings.make_missing(self._config, [camera], self._log)
        except (EngineError, OSError) as error:
            self._log.error("change of a camera refused", camera=camera.id, error=error)
            return False
        if camera.video:
            self._without_video.discard(camera.id)
        elif self._cameras[camera.id].video:
            self._without_video.add(camera.id)
        self._children.renew(child, self._launch())
        return True

    def _sweep(self) -> None:
        """Remove empty rings of removed cameras, and of video that is no longer stored."""
        now = time.monotonic()
        if not (self._left or self._without_video) or now < self._sweep_at:
            return
        self._sweep_at = now + _SWEEP_SECONDS
        for identifier in rings.remove_emptied(self._config, self._left):
            self._left.discard(identifier)
            self._log.info("ring of a camera that was let go removed", camera=identifier)
        for identifier in rings.remove_emptied_video(self._config, self._without_video):
            self._without_video.discard(identifier)
            self._log.info("video ring of a camera that stores no video removed", camera=identifier)
