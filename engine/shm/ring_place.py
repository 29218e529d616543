"""Puts a camera's ring at its path in the site's directory: creates a missing one, and recreates one that was removed,
moved or truncated while the site runs.

Sequences never repeat: a recreated ring continues after the last known sequence. It is taken from the ring that the
capture process has open, or else from the process's status page.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from engine.config import Config
from engine.errors import InputError, RingMismatch
from engine.shm import ring_file, segment, site
from engine.shm.ring import Producer
from engine.shm.segment import Inode
from engine.shm.site import Leftover, SitePaths
from engine.shm.status_page import CaptureCount, StatusPage
from engine.wire import ring_layout
from engine.wire.ring_owner import build_owner


class Renewed(NamedTuple):
    """A recreated ring, open, and the file that was removed for it, if there was one."""

    producer: Producer
    removed: Leftover | None


def ensure(
    config: Config, camera: str, last_nano: int = 0, last_sequence: int = 0, *, video: bool = False
) -> Leftover | None:
    """Make a camera's ring, or that of its video, unless a usable one exists; returns the file that was removed for it.

    Sequences and time stamps continue after those given or those in the capture's status page, whichever are later.
    Raises NoSpace; InputError for a ring whose frames are another tenant's.
    """
    path = SitePaths.of(config).ring(camera, video=video)
    removed = None
    # Check first: creation reserves the whole space before it tries the name, and there may be no space left.
    if os.path.lexists(path):
        removed = site.examine(path, camera, config)
        if removed.readable and removed.camera == camera and removed.video == video and not removed.foreign:
            return None
        if removed.foreign and removed.held:
            raise InputError(f"camera {camera}: the {removed.held} frames in its ring belong to {removed.foreign}")
        _clear(path, camera, removed)
    nano, sequence = max((last_nano, last_sequence), last_known(config, camera, video=video))
    with contextlib.suppress(FileExistsError):
        ring_file.create(
            path,
            config.ring_capacity(video=video),
            camera,
            owner=build_owner(config.owner),
            last_sequence=sequence,
            floor_nano=nano,
            video=video,
        )
    return removed


def renewed(config: Config, former: Producer) -> Renewed | None:
    """A new ring at the path of ``former`` if that one is no longer there; None if it is.

    ``former`` must not be written to afterwards. Raises EngineError and OSError if no ring can be created there.
    """
    path, removed = former.path, None
    with contextlib.suppress(FileNotFoundError):
        if Inode.of(path.lstat()) == former.inode:
            return None
        removed = site.examine(path, former.camera, config)
        _clear(path, former.camera, removed)
    segment.private_directory(path.parent)
    owner = build_owner(config.owner)
    capacity = config.ring_capacity(video=former.video)
    ring_file.create(path, capacity, former.camera, owner=owner, former=former, video=former.video)
    return Renewed(Producer(path, former.camera), removed)


def open_producer(config: Config, camera: str, page: StatusPage, *, video: bool = False) -> Producer:
    """The existing ring, opened for the capture process that owns ``page``.

    If it is not the ring of the previous process (somebody may have put an older one back), its sequences continue
    after those used since. Raises RingMismatch, also if the ring was removed again.
    """
    try:
        producer = Producer(SitePaths.of(config).ring(camera, video=video), camera)
    except FileNotFoundError as error:
        raise RingMismatch(f"ring {error.filename} was removed as soon as it was made") from None
    ring, last_nano, last_sequence = words_of(video=video)
    nano, sequence = last_of(page, video=video)
    if page.counts[ring] != producer.inode.number and nano > producer.last_nano:
        producer.go_on_from(nano, sequence)
    page.counts[ring] = producer.inode.number
    page.counts[last_nano] = producer.last_nano
    page.counts[last_sequence] = producer.last_sequence
    return producer


def words_of(*, video: bool) -> tuple[CaptureCount, CaptureCount, CaptureCount]:
    """The words of a capture's status page that say which ring it writes to, and the last frame's time stamp and
    sequence."""
    if video:
        return CaptureCount.VIDEO_RING, CaptureCount.VIDEO_LAST_NANO, CaptureCount.VIDEO_LAST_SEQUENCE
    return CaptureCount.RING, CaptureCount.LAST_NANO, CaptureCount.LAST_SEQUENCE


def last_known(config: Config, camera: str, *, video: bool = False) -> tuple[int, int]:
    """(unix_nano, sequence) of the last frame in a camera's status page; (0, 0) if there is none."""
    with (
        contextlib.suppress(OSError, RingMismatch),
        contextlib.closing(StatusPage.watch(SitePaths.of(config).capture(camera))) as page,
    ):
        return last_of(page, video=video)
    return 0, 0


def last_of(page: StatusPage, *, video: bool = False) -> tuple[int, int]:
    """(unix_nano, sequence) of the last frame in a capture's status page; (0, 0) if there is none."""
    _, last_nano, last_sequence = words_of(video=video)
    nano, sequence = page.counts[last_nano], page.counts[last_sequence]
    return (nano, sequence) if ring_layout.storable(nano, sequence) else (0, 0)


def _clear(path: Path, camera: str, standing: Leftover) -> None:
    """Remove the file at a ring's path. Raises RingMismatch if it holds somebody else's frames or cannot be removed."""
    if standing.held and (standing.foreign or standing.camera != camera):
        raise RingMismatch(f"{path} is in the way: {standing.reason}")
    try:
        path.unlink()
    except OSError as error:
        raise RingMismatch(
            f"{path} is in the way: {standing.reason}, and cannot be removed: {error.strerror}"
        ) from None
