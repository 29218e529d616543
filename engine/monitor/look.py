"""Collects the facts that the rules judge: status pages, rings, Redis, file systems, clocks."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, defaultdict

from engine.config import Camera, Config, Url
from engine.errors import RingError
from engine.monitor.facts import CameraFacts, DiskFacts, Facts, ProcessFacts, RedisFacts
from engine.monitor.redis_watch import Answer
from engine.monitor.window import Expiry, Windowed
from engine.runtime.roles import CHILD_ROLES, PUBLISHER, SUPERVISOR, Instance
from engine.runtime.site_report import OutageReport
from engine.runtime.status_cameras import CameraReport, look_at
from engine.runtime.status_outages import read_outages
from engine.runtime.status_processes import publisher_report
from engine.servers.redis.figures import RedisFigures
from engine.shm.camera_list import CameraList
from engine.shm.site import SitePaths, shared_memory_need
from engine.shm.status_page import StatusPage

#: Steps of the clock below this many seconds are slewing, or the time that a look takes.
_STEP_SECONDS_MIN = 0.1
_DOWN_STATES = ("stalled", "offline")


class Looker:
    """Looks at one site, again and again, and keeps what counters were before."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._paths = SitePaths.of(config)
        self._window = config.alerts.window_seconds
        self._instances = [one for role in CHILD_ROLES for one in role.instances(config)]
        self._telling = [one for one in self._instances if one.role.tells_outages]
        #: Cameras may come and go while captures run (SIGHUP to ``edge-video capture --all``).
        self._listed = CameraList(self._paths, lambda _path, _reason: None)
        self._started: float | None = None
        self._drops: defaultdict[tuple[str, str], Windowed] = defaultdict(self._windowed)
        self._restarts: defaultdict[str, Windowed] = defaultdict(self._windowed)
        self._lookups: defaultdict[str, Windowed] = defaultdict(self._windowed)
        self._steps: list[tuple[float, float]] = []
        self._expiry = Expiry(config.redis.ttl_seconds)
        #: Since when cameras and processes are down, in monotonic seconds.
        self._down: dict[str, float] = {}
        self._dead: dict[str, float] = {}
        self._clock_offset = _clock_offset()

    def look(self, now: float, redis: Answer) -> Facts:
        """The facts at ``now`` (monotonic seconds)."""
        config, outages = self._config, read_outages(self._telling)
        self._started = now if self._started is None else self._started
        watched = self._watched()
        reports = [look_at(config, self._paths, camera).report for camera in watched]
        cameras = tuple(self._camera(camera, report, now) for camera, report in zip(watched, reports, strict=True))
        names = {camera.id for camera in watched}
        publishing = any(_alive_and_restarts(instance)[0] for instance in PUBLISHER.instances(config))
        publisher = publisher_report(config)
        redis_away, redis_error = _longest(outages, "redis")
        if redis.away_seconds > redis_away:
            redis_away, redis_error = redis.away_seconds, redis.error
        broker_away, broker_error = _longest(outages, "rabbitmq")
        stored = sum(report.stored_total for report in reports)
        return Facts(
            window_seconds=self._window,
            ttl_seconds=config.redis.ttl_seconds,
            cameras=cameras,
            processes=tuple(self._processes(now, names)),
            redis=self._redis(redis.figures, stored, now) if redis.figures else None,
            redis_away_seconds=redis_away,
            redis_error=redis_error,
            publishes=config.publishes,
            broker_away_seconds=broker_away if publishing else None,
            broker_error=broker_error,
            lag_seconds=publisher.lag_seconds if publisher and publishing else None,
            disks=tuple(self._disks()),
            clock_step_seconds=self._clock_step(now),
            window_full=now - self._started >= self._window,
        )

    def _watched(self) -> list[Camera]:
        """The cameras of the site. Without a supervisor, captures may have taken others and left some since the monitor
        started: then those that have a ring."""
        if _alive_and_restarts(SUPERVISOR.instance(self._config))[0]:
            return list(self._config.cameras)
        self._listed.look()
        rings = self._listed.rings
        known = {camera.id for camera in self._config.cameras}
        return [
            *(camera for camera in self._config.cameras if camera.id in rings),
            *(Camera(id=name, url=Url()) for name in rings if name not in known),
        ]

    def _windowed(self) -> Windowed:
        return Windowed(self._window)

    def _camera(self, camera: Camera, report: CameraReport, now: float) -> CameraFacts:
        down = report.state in _DOWN_STATES and not report.finished
        if down and camera.id not in self._down:
            # What was down before this process started stays down for as long. A clock that was set meanwhile is wrong
            # about that.
            before = (time.time_ns() - report.since) / 1e9 if report.since else 0.0
            self._down[camera.id] = now - max(before, 0.0)
        elif report.state == "active" or report.finished:
            self._down.pop(camera.id, None)
        counts = Counter(report.dropped)
        fill = report.ring.fill
        if report.video:
            counts.update(report.video.dropped)
            fill = max(fill, report.video.ring.fill)
        dropped = {reason: self._drops[camera.id, reason].take(now, count) for reason, count in counts.items()}
        since = self._down.get(camera.id)
        return CameraFacts(
            camera.id,
            0.0 if since is None else now - since,
            report.state,
            report.last_error,
            fill,
            dropped,
            report.clock_offset_seconds,
        )

    def _processes(self, now: float, cameras: set[str]) -> list[ProcessFacts]:
        found = []
        for instance in self._instances:
            if instance.camera and instance.camera not in cameras:
                # Its camera was taken off the site.
                continue
            alive, restarts = _alive_and_restarts(instance)
            if alive is None:
                continue
            if alive:
                self._dead.pop(instance.name, None)
            since = now if alive else self._dead.setdefault(instance.name, now)
            found.append(ProcessFacts(instance.name, now - since, self._restarts[instance.name].take(now, restarts)))
        return found

    def _redis(self, figures: RedisFigures, stored: int, now: float) -> RedisFacts:
        return RedisFacts(
            figures.used_memory_bytes,
            figures.maxmemory_bytes,
            figures.connected_clients,
            self._lookups["hits"].take(now, figures.keyspace_hits),
            self._lookups["misses"].take(now, figures.keyspace_misses),
            self._expiry.take(now, stored, figures.expired_keys + figures.evicted_keys),
        )

    def _disks(self) -> list[DiskFacts]:
        """The file systems of shared memory and run directory, each once. The site's rings, which have their room, do
        not count: shared memory may be just large enough for them."""
        found: dict[int, DiskFacts] = {}
        need = shared_memory_need(self._config)
        for path, own in ((self._config.ring.directory, need), (str(self._config.run_directory), 0)):
            with contextlib.suppress(OSError):
                space, device = os.statvfs(path), os.stat(path).st_dev  # noqa: PTH116 - a path as text
                share = used_share(
                    (space.f_blocks - space.f_bfree) * space.f_frsize - own, space.f_bavail * space.f_frsize
                )
                found.setdefault(device, DiskFacts(path, share, space.f_bavail * space.f_frsize))
        return list(found.values())

    def _clock_step(self, now: float) -> float:
        """The largest step of the wall clock within the window, with its sign."""
        before, self._clock_offset = self._clock_offset, _clock_offset()
        step = self._clock_offset - before
        if abs(step) >= _STEP_SECONDS_MIN:
            self._steps.append((now, step))
        self._steps = [(at, step) for at, step in self._steps if at > now - self._window]
        return max((step for _, step in self._steps), key=abs, default=0.0)


def used_share(used_bytes: int, free_bytes: int) -> float:
    """The share of a file system that is in use; 0 for one without any space, which nothing can fill."""
    used = max(used_bytes, 0)
    return used / (used + free_bytes) if used + free_bytes else 0.0


def _clock_offset() -> float:
    """Seconds by which the wall clock is ahead of one that is never set, and that counts while the machine sleeps."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _longest(outages: list[OutageReport], server: str) -> tuple[float, str]:
    return max(((one.seconds, one.error) for one in outages if one.server == server), default=(0.0, ""))


def _alive_and_restarts(instance: Instance) -> tuple[bool | None, int]:
    """Whether a process lives, and how often it was started again. None if it never ran, or has ended for good."""
    with contextlib.suppress(OSError, RingError), contextlib.closing(StatusPage.watch(instance.page)) as page:
        finished = instance.role.finished
        if finished is not None and page.counts[finished]:
            return None, page.restarts
        return page.owned, page.restarts
    return None, 0
