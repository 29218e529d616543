"""What each process runs: its agent with all that it needs, for a supervised child and for a process of its own."""

from __future__ import annotations

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from engine.config import Camera, Config
from engine.errors import EXIT_OK, EngineError, InputError
from engine.runtime.agent import Agent, StopSignal, run_agent
from engine.runtime.notify import Notifier
from engine.shm import ring_file, site
from engine.shm.doorbell import Bell
from engine.shm.ring import Producer
from engine.shm.site import SitePaths
from engine.shm.slate import Slate
from engine.wire.lease import Lease
from engine.wire.ring_owner import build_owner

Role = Callable[[], int]


def run_capture(config: Config, camera: Camera, log: FilteringBoundLogger, notifier: Notifier | None = None) -> int:
    """The capture process of ``camera``, until it is stopped or its source ends; its ring is made where it is
    missing."""
    from engine.stages.capture import CaptureAgent
    from engine.stages.pattern import PatternSource
    from engine.stages.source import Source, VideoSource, prepare_process

    paths = SitePaths.of(config)
    stop = StopSignal(interrupts=True)
    slate = Slate.claim(paths.capture(camera.id))
    prepare_process()
    ensure_ring(config, camera)
    writer = paths.writer(config.writer_of(camera.id))
    Slate.create(writer)
    bell = Bell(paths.doorbell(config.writer_of(camera.id)), Slate.watch(writer))
    producer = Producer(paths.ring(camera.id), camera.id)

    def open_source() -> Source:
        if camera.kind == "test":
            return PatternSource(camera, producer.counts().captured)
        return VideoSource(camera)

    log = log.bind(role="capture", camera=camera.id)
    return _run(CaptureAgent(camera, producer, bell, slate, open_source, log), slate, stop, config, log, notifier)


def run_writer(
    config: Config, number: int, log: FilteringBoundLogger, own: Lease, notifier: Notifier | None = None
) -> int:
    """Writer ``number``, until it is stopped and its rings are empty. ``own`` is what its leases say."""
    from engine.stages.writer import WriterAgent

    stop = StopSignal()
    slate = Slate.claim(SitePaths.of(config).writer(number))
    log = log.bind(role=f"writer {number}" if config.writer.writers > 1 else "writer")
    return _run(WriterAgent(config, number, slate, log, own), slate, stop, config, log, notifier)


def run_publisher(config: Config, log: FilteringBoundLogger, notifier: Notifier | None = None) -> int:
    """The publisher, until it is stopped and what stood in the journals then is confirmed."""
    from engine.stages.publisher import PublisherAgent

    stop = StopSignal()
    slate = Slate.claim(SitePaths.of(config).publisher)
    log = log.bind(role="publisher")
    return _run(PublisherAgent(config, slate, log), slate, stop, config, log, notifier)


def ensure_ring(config: Config, camera: Camera, last_nano: int = 0, last_sequence: int = 0) -> bool:
    """Make a camera's ring where none stands, in place of an empty one of another tenant's; True where one was made.
    Raises NoSpace, InputError for a ring whose frames are another tenant's."""
    path = SitePaths.of(config).ring(camera.id)
    # Making one takes its whole space before the name is looked at, and there may be none left.
    if path.exists():
        leftover = site.examine(path, camera.id, config)
        if not leftover.foreign:
            return False
        if leftover.held:
            raise InputError(f"camera {camera.id}: the {leftover.held} frames in its ring belong to {leftover.foreign}")
        path.unlink()
    owner = build_owner(config.owner)
    try:
        ring_file.create(
            path, config.ring.capacity, camera.id, owner=owner, last_sequence=last_sequence, floor_nano=last_nano
        )
    except FileExistsError:
        return False
    return True


def _run(
    agent: Agent,
    slate: Slate,
    stop: StopSignal,
    config: Config,
    log: FilteringBoundLogger,
    notifier: Notifier | None,
) -> int:
    log.debug("started")
    try:
        code = run_agent(agent, slate, stop, config.site.drain_seconds, notifier)
    except EngineError as error:
        log.error("cannot go on", error=str(error))
        return error.exit_code
    log.debug("stopped")
    return code if code else EXIT_OK
