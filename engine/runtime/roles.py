"""What each process runs: its agent with all that it needs, for a supervised child and for a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from structlog.typing import FilteringBoundLogger

from engine.config import Camera, Config
from engine.errors import EXIT_OK, EngineError
from engine.runtime.agent import Agent, StopSignal, run_agent
from engine.runtime.notify import Notifier
from engine.shm import ring_place, site
from engine.shm.doorbell import Bell
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage
from engine.wire.lease import Lease

Role = Callable[[], int]


def run_capture(config: Config, camera: Camera, log: FilteringBoundLogger, notifier: Notifier | None = None) -> int:
    """The capture process of ``camera``, until it is stopped or its source ends; its ring is made where it is
    missing."""
    from engine.sources.pattern import PatternSource
    from engine.sources.video import Source, VideoSource, prepare_process
    from engine.stages.capture.agent import CaptureAgent

    paths = SitePaths.of(config)
    stop = StopSignal(interrupts=True)
    site.make_directory(config)
    page = StatusPage.claim(paths.capture(camera.id))
    prepare_process()
    log = log.bind(role="capture", camera=camera.id)
    removed = ring_place.ensure(config, camera.id)
    if removed:
        log.warning("ring that cannot be used removed", lost_frames=removed.held, reason=removed.reason)
    writer = paths.writer(config.writer_of(camera.id))
    StatusPage.create(writer)
    bell = Bell(paths.doorbell(config.writer_of(camera.id)), StatusPage.watch(writer))
    producer = ring_place.open_producer(config, camera.id, page)

    def open_source() -> Source:
        if camera.kind == "test":
            return PatternSource(camera, agent.captured)
        return VideoSource(camera)

    agent = CaptureAgent(camera, producer, bell, page, open_source, log, renew=partial(ring_place.renewed, config))
    return _run(agent, page, stop, config, log, notifier)


def run_writer(
    config: Config, number: int, log: FilteringBoundLogger, own: Lease, notifier: Notifier | None = None
) -> int:
    """Writer ``number``, until it is stopped and its rings are empty. ``own`` is what its leases say."""
    from engine.stages.writer.agent import WriterAgent

    stop = StopSignal()
    site.make_directory(config)
    page = StatusPage.claim(SitePaths.of(config).writer(number))
    log = log.bind(role=f"writer {number}" if config.writer.writers > 1 else "writer")
    return _run(WriterAgent(config, number, page, log, own), page, stop, config, log, notifier)


def run_publisher(config: Config, log: FilteringBoundLogger, notifier: Notifier | None = None) -> int:
    """The publisher, until it is stopped and what stood in the journals then is confirmed."""
    from engine.stages.publisher.agent import PublisherAgent

    stop = StopSignal()
    site.make_directory(config)
    page = StatusPage.claim(SitePaths.of(config).publisher)
    log = log.bind(role="publisher")
    return _run(PublisherAgent(config, page, log), page, stop, config, log, notifier)


def _run(
    agent: Agent,
    page: StatusPage,
    stop: StopSignal,
    config: Config,
    log: FilteringBoundLogger,
    notifier: Notifier | None,
) -> int:
    log.debug("started")
    try:
        code = run_agent(agent, page, stop, config.site.drain_seconds, notifier)
    except EngineError as error:
        log.error("cannot go on", error=error)
        return error.exit_code
    log.debug("stopped")
    return code if code else EXIT_OK
