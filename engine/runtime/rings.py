"""Prepares the rings of a site's cameras before their captures start: adopts or removes rings of a former run, and
makes missing ones. A new ring's sequence numbers continue after the last one that Redis knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from engine.config import Camera, Config
from engine.errors import EngineError, InputError, RedisUnavailable, RingError, RingMismatch
from engine.servers.redis.session import Session
from engine.shm import ring_place, site
from engine.shm.ring_file import Observer
from engine.shm.status_page import CaptureCount, StatusPage
from engine.stages.capture.last_frame import last_frame_id

#: Seconds to wait for the last numbers from Redis if a capture can start without them.
_NUMBERS_SECONDS_MAX = 2.0


def adopt_or_make(config: Config, log: FilteringBoundLogger) -> None:
    """For a supervisor: adopt rings of a former run that fit, remove the others, make missing ones.

    Raises InputError if Redis does not answer, NoSpace.
    """
    for leftover in site.sweep(config):
        log.warning(
            "ring of a former run removed",
            camera=leftover.camera,
            lost_frames=leftover.held,
            reason=leftover.reason,
        )
    adopted = {(leftover.camera, leftover.video): leftover.held for leftover in site.leftovers(config)}
    last = {ring: (0, 0) for ring in config.rings if ring not in adopted}
    try:
        _ask_last_numbers(config, last, config.redis.timeout_seconds)
    except RedisUnavailable as error:
        raise InputError.of(error) from None
    for (camera, video), numbers in last.items():
        ring_place.ensure(config, camera, *numbers, video=video)
    if sum(adopted.values()):
        log.info("rings of a former run adopted", frames=sum(adopted.values()))


def make_missing(config: Config, cameras: Sequence[Camera], log: FilteringBoundLogger) -> None:
    """For captures that run separately from a site's other roles: make missing rings, also while Redis is away.

    An unusable ring (from another version, or damaged) is replaced. Raises NoSpace.
    """
    paths = site.SitePaths.of(config)
    wanted = {camera.id for camera in cameras}
    rings = [(camera, video) for camera, video in config.rings if camera in wanted]
    for camera, video in rings:
        _remove_unusable(paths, camera, video, log)
    last = {(camera, video): (0, 0) for camera, video in rings if not paths.ring(camera, video=video).exists()}
    if not last:
        return
    try:
        _ask_last_numbers(config, last, min(config.redis.timeout_seconds, _NUMBERS_SECONDS_MAX))
    except EngineError as error:
        log.warning(
            "redis does not tell the last numbers; those of new rings may start over",
            rings=len(last),
            error=error,
        )
    for (camera, video), numbers in last.items():
        ring_place.ensure(config, camera, *numbers, video=video)


def remove_emptied(config: Config, cameras: Iterable[str]) -> set[str]:
    """Remove rings and status pages of cameras that nobody captures any more, if their rings are empty. Returns those
    cameras."""
    paths, removed = site.SitePaths.of(config), set()
    for camera in cameras:
        rings, page = [paths.ring(camera), paths.ring(camera, video=True)], paths.capture(camera)
        if not _in_use(page) and not any(_held(ring, camera) for ring in rings):
            for ring in rings:
                ring.unlink(missing_ok=True)
            page.unlink(missing_ok=True)
            removed.add(camera)
    return removed


def remove_emptied_video(config: Config, cameras: Iterable[str]) -> set[str]:
    """Remove the video rings that no capture process writes to any more, if they are empty. Returns their cameras."""
    paths, removed = site.SitePaths.of(config), set()
    for camera in cameras:
        ring = paths.ring(camera, video=True)
        with suppress(OSError, RingError), closing(StatusPage.watch(paths.capture(camera))) as page:
            if page.owned and page.counts[CaptureCount.VIDEO_RING]:
                continue
        if not _held(ring, camera):
            ring.unlink(missing_ok=True)
            removed.add(camera)
    return removed


def standing_bytes(directory: Path) -> int:
    """Bytes of the rings in a site's directory."""
    return sum(path.stat().st_size for path in directory.glob("*.ring")) if directory.is_dir() else 0


def _ask_last_numbers(config: Config, last: dict[tuple[str, bool], tuple[int, int]], timeout_seconds: float) -> None:
    """Fill in (unix_nano, sequence) of the last frame of each camera, or of its video, if Redis knows it.

    Raises RedisUnavailable, ServerRefused.
    """
    with Session(config.redis_address, timeout_seconds) as session:
        for camera, video in last:
            last[camera, video] = last_frame_id(session, config.vhost, config.prefix, camera, video=video)


def _remove_unusable(paths: site.SitePaths, camera: str, video: bool, log: FilteringBoundLogger) -> None:
    path = paths.ring(camera, video=video)
    try:
        Observer(path, camera).close()
    except RingMismatch as error:
        if not _in_use(paths.capture(camera)):
            path.unlink(missing_ok=True)
            log.warning("ring of a former run removed", camera=camera, reason=str(error))
    except FileNotFoundError:
        pass


def _in_use(page: Path) -> bool:
    """True if a live process holds a camera's status page."""
    with suppress(OSError, RingError), closing(StatusPage.watch(page)) as watched:
        return watched.owned
    return False


def _held(ring: Path, camera: str) -> int:
    """Frames in a ring; 0 if it is gone or unreadable."""
    with suppress(OSError, RingError), closing(Observer(ring, camera)) as observer:
        return observer.counts().held
    return 0
