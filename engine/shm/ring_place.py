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


def ensure(config: Config, camera: str, last_nano: int = 0, last_sequence: int = 0) -> Leftover | None:
    """Make a camera's ring unless a usable one exists; returns the file that was removed for it.

    Sequences and time stamps continue after those given or those in the capture's status page, whichever are later.
    Raises NoSpace; InputError for a ring whose frames are another tenant's.
    """
    path = SitePaths.of(config).ring(camera)
    removed = None
    # Check first: creation reserves the whole space before it tries the name, and there may be no space left.
    if os.path.lexists(path):
        removed = site.examine(path, camera, config)
        if removed.readable and removed.camera == camera and not removed.foreign:
            return None
        if removed.foreign and removed.held:
            raise InputError(f"camera {camera}: the {removed.held} frames in its ring belong to {removed.foreign}")
        _clear(path, camera, removed)
    nano, sequence = max((last_nano, last_sequence), last_known(config, camera))
    with contextlib.suppress(FileExistsError):
        ring_file.create(
            path,
            config.ring.capacity,
            camera,
            owner=build_owner(config.owner),
            last_sequence=sequence,
            floor_nano=nano,
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
    ring_file.create(path, config.ring.capacity, former.camera, owner=owner, former=former)
    return Renewed(Producer(path, former.camera), removed)


def open_producer(config: Config, camera: str, page: StatusPage) -> Producer:
    """The existing ring, opened for the capture process that owns ``page``.

    If it is not the ring of the previous process (somebody may have put an older one back), its sequences continue
    after those used since. Raises RingMismatch, also if the ring was removed again.
    """
    try:
        producer = Producer(SitePaths.of(config).ring(camera), camera)
    except FileNotFoundError as error:
        raise RingMismatch(f"ring {error.filename} was removed as soon as it was made") from None
    nano, sequence = last_of(page)
    if page.counts[CaptureCount.RING] != producer.inode.number and nano > producer.last_nano:
        producer.go_on_from(nano, sequence)
    page.counts[CaptureCount.RING] = producer.inode.number
    page.counts[CaptureCount.LAST_NANO] = producer.last_nano
    page.counts[CaptureCount.LAST_SEQUENCE] = producer.last_sequence
    return producer


def last_known(config: Config, camera: str) -> tuple[int, int]:
    """(unix_nano, sequence) of the last frame in a camera's status page; (0, 0) if there is none."""
    with (
        contextlib.suppress(OSError, RingMismatch),
        contextlib.closing(StatusPage.watch(SitePaths.of(config).capture(camera))) as page,
    ):
        return last_of(page)
    return 0, 0


def last_of(page: StatusPage) -> tuple[int, int]:
    """(unix_nano, sequence) of the last frame in a capture's status page; (0, 0) if there is none."""
    nano, sequence = page.counts[CaptureCount.LAST_NANO], page.counts[CaptureCount.LAST_SEQUENCE]
    return (nano, sequence) if ring_layout.storable(nano, sequence, 0) else (0, 0)


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
