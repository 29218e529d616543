"""The roles of a site: one table. Supervisor, ``captures``, ``status`` and the command line iterate over it.

ROLES is in the order of start. A drain goes through it backwards, which is a frame's order of travel: each role passes
what it holds to the role that stops next. A role's agent (``engine/stages``) defines what it does. This table defines
how its processes are named, found, started and stopped.

The command line lists the roles, so the table loads little. What a process needs is loaded when it starts; what all
processes share stands in ``modules``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from engine.errors import EXIT_OK, EngineError
from engine.shm.status_page import CaptureCount, Count, MonitorCount, PublisherCount, StatusPage, WriterCount

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from engine.config import Config
    from engine.runtime.agent import Agent
    from engine.runtime.notify import Notifier
    from engine.shm.site import SitePaths
    from engine.wire.lease import Lease

#: Scheduling of captures, of the web process and of the monitor, as ``nice`` counts. With more work than CPU, each
#: process gets an equal share, and a hundred captures left the one writer too little: frames waited for seconds in
#: their rings. At 10 a process weighs 1/9 of one at 0 (``sched_prio_to_weight`` in the kernel), so the writer is served
#: first, and captures share what is left.
_LOW_NICE = 10

RoleName = Literal["supervisor", "web", "publisher", "writer", "capture", "monitor"]


class Launch(NamedTuple):
    """What a process gets at its start. ``lease`` is the content of its site's leases, None if it takes none.
    ``notifier`` sends messages to systemd; only a process without a supervisor has one."""

    config: Config
    log: FilteringBoundLogger
    lease: Lease | None = None
    notifier: Notifier | None = None


@dataclass(frozen=True)
class Role:
    """A kind of process. A key tells its instances apart: a writer's number, a camera's id, or "" if the site has only
    one."""

    name: RoleName
    #: The keys of the instances that a site runs.
    keys: Callable[[Config], Sequence[str]]
    #: The path of an instance's status page, by its key.
    page: Callable[[SitePaths, str], Path]
    #: The counters in an instance's status page.
    counts: type[Count] | None = None
    #: Makes the agent that an instance runs; None for the supervisor, which is its own main program.
    agent: Callable[[Instance, Launch, StatusPage], Agent] | None = None
    #: The modules to load before the first fork of a site's processes, so that all share them.
    modules: Callable[[Config], Iterable[str]] = lambda _: ()
    #: True if a drain must let it finish, and start it again if it is down, because other roles left it something to
    #: pass on. Other processes hold nothing and may be killed at any moment.
    passes_on: bool = False
    #: By how much the scheduler ranks its processes lower than others (``nice``).
    nice: int = 0
    #: True if the text of the status page lists the servers that are away.
    tells_outages: bool = False
    #: True if the text of the status page is a note about what the process does, for ``status``.
    tells_note: bool = False
    #: The counter that is not 0 once an instance has done its work for good and must not be started again.
    finished: Count | None = None
    #: The help text of the command that runs it alone, and the error if the site file has no instance.
    help: str = ""
    absent: str = ""

    def instance(self, config: Config, key: str = "") -> Instance:
        """The instance with a key."""
        from engine.shm.site import SitePaths

        return Instance(self, key, self.page(SitePaths.of(config), key))

    def instances(self, config: Config) -> list[Instance]:
        """All instances of this role that a site runs."""
        from engine.shm.site import SitePaths

        paths = SitePaths.of(config)
        return [Instance(self, key, self.page(paths, key)) for key in self.keys(config)]


class Instance(NamedTuple):
    """One process of a site, across its restarts."""

    role: Role
    key: str
    page: Path

    @property
    def name(self) -> str:
        """Its name in ``status``, process titles and logs: ``writer 1``, ``capture cam3``, ``publisher``."""
        return f"{self.role.name} {self.key}".strip()

    @property
    def camera(self) -> str:
        """The camera that it captures; empty for roles other than capture."""
        return self.key if self.role is CAPTURE else ""

    def run(self, launch: Launch) -> int:
        """Run the agent in this process until it is finished or stopped; returns the exit code.

        Raises EngineError if it cannot begin, SiteInUse if this instance is running already.
        """
        from engine.runtime.agent import StopSignal, run_agent
        from engine.shm import site

        assert self.role.agent
        config, notifier = launch.config, launch.notifier
        with contextlib.suppress(OSError):
            # A sandbox may forbid it. The site works without.
            os.nice(self.role.nice)
        stop = StopSignal(interrupts=not self.role.passes_on)
        site.make_directory(config)
        page = StatusPage.claim(self.page)
        log = launch.log.bind(
            **({"role": self.role.name, "camera": self.camera} if self.camera else {"role": self.name})
        )
        agent = self.role.agent(self, launch._replace(log=log), page)
        log.debug("started")
        try:
            code = run_agent(agent, self.name, page, stop, config.site.drain_seconds, notifier)
        except EngineError as error:
            log.error("cannot continue", error=error)
            return error.exit_code
        log.debug("stopped")
        return code if code else EXIT_OK


def _web(_: Instance, launch: Launch, page: StatusPage) -> Agent:
    """The agent of the web process. Named here only when it starts, because it reads the reports that are made from
    this table."""
    # With a supervisor, the site runs here. Without one, it may run here, later, or on another machine.
    local = None if launch.notifier else True
    agent: Agent = import_module("engine.web.agent").WebAgent(launch.config, page, launch.log, local=local)
    return agent


def _publisher(instance: Instance, launch: Launch, page: StatusPage) -> Agent:
    from engine.stages.publisher.agent import PublisherAgent

    return PublisherAgent(launch.config, page, launch.log, process_number(instance.key))


def _writer(instance: Instance, launch: Launch, page: StatusPage) -> Agent:
    from engine.stages.writer.choose import writer_agent

    return writer_agent(launch.config, process_number(instance.key), page, launch.log, launch.lease)


def _capture(instance: Instance, launch: Launch, page: StatusPage) -> Agent:
    """The agent of a capture. Makes the camera's ring if it is missing."""
    from engine.shm import ring_place
    from engine.shm.doorbell import Bell
    from engine.shm.site import SitePaths
    from engine.shm.turnstile import Turnstile
    from engine.sources.choose import open_source
    from engine.stages.capture.agent import CaptureAgent

    config, log, camera = launch.config, launch.log, launch.config.camera(instance.key)
    for kind in (False, True) if camera.video else (False,):
        removed = ring_place.ensure(config, camera.id, video=kind)
        if removed:
            log.warning("ring that cannot be used removed", lost_frames=removed.held, reason=removed.reason)
    paths, number = SitePaths.of(config), config.writer_of(camera.id)
    StatusPage.create(paths.writer(number))
    bell = Bell(paths.doorbell(number), StatusPage.watch(paths.writer(number)))
    producer = ring_place.open_producer(config, camera.id, page)
    if not camera.video:
        # The writer may let go of the video ring of a former configuration.
        page.counts[CaptureCount.VIDEO_RING] = 0
    video = ring_place.open_producer(config, camera.id, page, video=True) if camera.video else None

    renew = partial(ring_place.renewed, config)
    agent = CaptureAgent(
        camera,
        producer,
        bell,
        page,
        lambda: open_source(camera, agent.captured, agent),
        log,
        renew=renew,
        video=video,
        turnstile=Turnstile(paths.turnstile) if camera.kind in ("rtsp", "http") else None,
    )
    return agent


def _monitor(_: Instance, launch: Launch, page: StatusPage) -> Agent:
    """The agent of the monitor. It looks at all processes of this table, so the table names it as the web agent."""
    agent: Agent = import_module("engine.monitor.agent").MonitorAgent(launch.config, page, launch.log)
    return agent


def _capture_modules(config: Config) -> Iterable[str]:
    """The agent, and the sources that the site's cameras need."""
    from engine.sources.choose import modules_of

    sources = {module for camera in config.cameras for module in modules_of(camera)}
    return ["engine.stages.capture.agent", *sorted(sources)]


def _numbers(processes: int) -> Sequence[str]:
    """The keys of processes that share the cameras: numbers from 0. A single one has none."""
    return [str(number) for number in range(processes)] if processes > 1 else [""]


def process_number(key: str) -> int:
    """The number of the writer or publisher with a key."""
    return int(key or 0)


SUPERVISOR = Role("supervisor", keys=lambda _: [""], page=lambda paths, _: paths.supervisor)
WEB = Role(
    "web",
    keys=lambda config: [""] if config.web.listen else [],
    page=lambda paths, _: paths.web,
    agent=_web,
    nice=_LOW_NICE,
    tells_note=True,
    help="Run the web process alone: metrics, health, API, dashboard. Beside a running site or on another machine, "
    "where it has the frames and video of Redis, but no counters of the site.",
    absent='web.listen is empty: set it, such as to "127.0.0.1:8080"',
)
PUBLISHER = Role(
    "publisher",
    keys=lambda config: _numbers(config.publisher.publishers) if config.publishes else [],
    page=lambda paths, key: paths.publisher(process_number(key)),
    counts=PublisherCount,
    agent=_publisher,
    modules=lambda _: ("engine.stages.publisher.agent",),
    passes_on=True,
    tells_outages=True,
    help="Run a publisher process alone, for supervisord or systemd.",
    absent="nothing to publish to: set amqp.amqp_url or AMQP_URL (or amqp.amqp_urls), and metadata.enabled = true",
)
WRITER = Role(
    "writer",
    keys=lambda config: _numbers(config.writer.writers),
    page=lambda paths, key: paths.writer(process_number(key)),
    counts=WriterCount,
    agent=_writer,
    modules=lambda _: ("engine.stages.writer.choose",),
    passes_on=True,
    tells_outages=True,
    help="Run a writer process alone, for supervisord or systemd.",
)
CAPTURE = Role(
    "capture",
    keys=lambda config: [camera.id for camera in config.cameras],
    page=lambda paths, key: paths.capture(key),
    counts=CaptureCount,
    agent=_capture,
    modules=_capture_modules,
    nice=_LOW_NICE,
    finished=CaptureCount.FINISHED,
    help="Run captures alone, for systemd or supervisord: one camera in this process, or several in child processes. "
    "With several, SIGHUP reads the site file again for added and removed cameras.",
)
#: Started last and stopped first: a site that starts or stops is no reason for alerts.
MONITOR = Role(
    "monitor",
    keys=lambda config: [""] if config.alerts.enabled else [],
    page=lambda paths, _: paths.monitor,
    counts=MonitorCount,
    agent=_monitor,
    modules=lambda config: ["engine.monitor.agent", *(["engine.monitor.webhook"] if config.alerts.webhook else [])],
    nice=_LOW_NICE,
    help="Run the monitor process alone, for supervisord or systemd: it raises and clears alerts.",
    absent="alerts.enabled is false: set it to true",
)

#: All roles, in the order of start.
ROLES = (SUPERVISOR, WEB, PUBLISHER, WRITER, CAPTURE, MONITOR)
#: The roles that a supervisor starts.
CHILD_ROLES = tuple(role for role in ROLES if role.agent)


def instances(config: Config) -> Iterator[Instance]:
    """All processes that a site's supervisor starts, in their order of start."""
    for role in CHILD_ROLES:
        yield from role.instances(config)


def preload(config: Config, *roles: Role) -> None:
    """Load the modules that a site's processes of these roles need. Call it before the first fork."""
    for role in roles:
        for module in role.modules(config):
            import_module(module)
