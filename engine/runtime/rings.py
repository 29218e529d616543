"""The rings that a site's cameras need before their captures start: what a former run left is adopted or removed, and
what is missing is made. A new ring's sequence numbers go on behind the last that Redis knows."""

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
from engine.shm.status_page import StatusPage
from engine.stages.capture.last_frame import last_frame_id

#: Seconds that Redis may take to tell the last numbers, where a capture can start without them.
_NUMBERS_SECONDS_MAX = 2.0


def adopt_or_make(config: Config, log: FilteringBoundLogger) -> None:
    """For a supervisor: adopt the rings of a former run that fit, remove the others, make what is missing.

    Raises InputError where Redis does not answer, NoSpace.
    """
    for leftover in site.sweep(config):
        log.warning(
            "ring of a former run removed",
            camera=leftover.camera,
            lost_frames=leftover.held,
            reason=leftover.reason,
        )
    adopted = {leftover.camera: leftover.held for leftover in site.leftovers(config)}
    last = {camera.id: (0, 0) for camera in config.cameras if camera.id not in adopted}
    try:
        _ask_last_numbers(config, last, config.redis.timeout_seconds)
    except RedisUnavailable as error:
        raise InputError.of(error) from None
    for camera, numbers in last.items():
        ring_place.ensure(config, camera, *numbers)
    if sum(adopted.values()):
        log.info("rings of a former run adopted", frames=sum(adopted.values()))


def make_missing(config: Config, cameras: Sequence[Camera], log: FilteringBoundLogger) -> None:
    """For captures that run beside a site's other roles: make the rings that are missing, also while Redis is away.

    A ring that cannot be used (another version's, damaged) is replaced. Raises NoSpace.
    """
    paths = site.SitePaths.of(config)
    for camera in cameras:
        _remove_unusable(paths, camera.id, log)
    last = {camera.id: (0, 0) for camera in cameras if not paths.ring(camera.id).exists()}
    if not last:
        return
    try:
        _ask_last_numbers(config, last, min(config.redis.timeout_seconds, _NUMBERS_SECONDS_MAX))
    except EngineError as error:
        log.warning(
            "redis cannot be asked for the last numbers; those of new rings may begin anew",
            cameras=len(last),
            error=error,
        )
    for camera_id, numbers in last.items():
        ring_place.ensure(config, camera_id, *numbers)


def remove_emptied(config: Config, cameras: Iterable[str]) -> set[str]:
    """Remove the rings and status pages of cameras that nobody captures any more, where their rings are empty; returns
    those cameras."""
    paths, removed = site.SitePaths.of(config), set()
    for camera in cameras:
        ring, page = paths.ring(camera), paths.capture(camera)
        if not _in_use(page) and not _held(ring, camera):
            ring.unlink(missing_ok=True)
            page.unlink(missing_ok=True)
            removed.add(camera)
    return removed


def standing_bytes(directory: Path) -> int:
    """Bytes that the rings in a site's directory take."""
    return sum(path.stat().st_size for path in directory.glob("*.ring")) if directory.is_dir() else 0


def _ask_last_numbers(config: Config, last: dict[str, tuple[int, int]], timeout_seconds: float) -> None:
    """Fill in (unix_nano, sequence) of each camera's last frame, as far as Redis knows it. Raises RedisUnavailable,
    ServerRefused."""
    with Session(config.redis_address, timeout_seconds) as session:
        for camera in last:
            last[camera] = last_frame_id(session, config.vhost, config.prefix, camera)


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
