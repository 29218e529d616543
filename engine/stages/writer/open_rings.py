"""The rings of one writer's cameras: opens new rings in the site's directory, follows replaced ones, and releases
removed ones.

A capture process's status page says which file it writes to. If a ring's file is gone, the writer empties the ring
until its capture has moved on or ended. Only when the ring is empty does it open the ring in its place, so that journal
entries stay in order. The frames of the old ring are stored from its mapping, which outlives the file's name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import RingMismatch
from engine.shm import ring_file, ring_place
from engine.shm.camera_list import CameraList
from engine.shm.ring import Consumer
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage
from engine.stages.writer.camera_writer import CameraWriter
from engine.wire.ring_owner import build_owner


class OpenRings:
    """The rings of writer ``number``, of frames or of video. ``warn_once(camera, event, error)`` is called for rings
    that do not open."""

    def __init__(
        self,
        config: Config,
        number: int,
        log: FilteringBoundLogger,
        warn_once: Callable[[str, str, str], None],
        *,
        video: bool = False,
    ) -> None:
        self._config = config
        self._number = number
        self._log = log
        self._warn_once = warn_once
        self._video = video
        self._ring_word, _, _ = ring_place.words_of(video=video)
        self._paths = SitePaths.of(config)
        self._camera_list = CameraList(
            self._paths,
            lambda path, reason: warn_once(path.name, "file passed over", f"{path}: {reason}"),
            owner=build_owner(config.owner),
            video=video,
        )
        #: By camera: the rings, and the status pages of their capture processes.
        self.writers: dict[str, CameraWriter] = {}
        self.pages: dict[str, StatusPage] = {}

    def look(self) -> bool:
        """Follow added and removed rings, while nothing is in flight; True if ``writers`` has changed."""
        self._camera_list.look()
        changed = False
        for camera, writer in list(self.writers.items()):
            self._renew_page(camera)
            if self._camera_list.rings.get(camera) != writer.consumer.inode and self._is_done(camera, writer):
                changed |= self._replace(camera, writer)
        for camera in self._camera_list.rings:
            if camera not in self.writers and self._config.writer_of(camera) == self._number:
                changed |= self._open(camera)
        return changed

    @property
    def behind(self) -> bool:
        """True if a new ring waits until the previous one is empty."""
        standing = self._camera_list.rings
        return any(camera in standing and standing[camera] != d.consumer.inode for camera, d in self.writers.items())

    def close(self) -> None:
        """Release all rings and status pages."""
        for camera, writer in self.writers.items():
            held = writer.consumer.counts().held
            if held and self._camera_list.rings.get(camera) != writer.consumer.inode:
                self._log.error("frames are lost with the ring that was removed", camera=camera, frames=held)
            writer.consumer.close()
        for page in self.pages.values():
            page.close()

    def _is_done(self, camera: str, writer: CameraWriter) -> bool:
        """True if nobody writes to a ring any more, and it is empty and without doubts."""
        page = self.pages.get(camera)
        # Check first that no more frames can arrive, then that none are left.
        if page and page.owned and page.counts[self._ring_word] == writer.consumer.inode.number:
            return False
        return not (writer.consumer.held_bytes or writer.in_doubt)

    def _replace(self, camera: str, writer: CameraWriter) -> bool:
        """Switch from a finished ring to the one in its place, or release the camera."""
        former, counts = writer.consumer, writer.consumer.counts()
        said = {"camera": camera, "captured": counts.captured, "stored": counts.stored, "dropped": counts.dropped}
        if camera in self._camera_list.rings:
            path = self._paths.ring(camera, video=self._video)
            try:
                goes_on = ring_file.hand_over(former, path)
                writer.replace(self._consumer(camera))
            except (RingMismatch, OSError) as error:
                self._warn_once(camera, "ring cannot be read", str(error))
                return False
            if goes_on:
                self._log.info("ring was replaced; its counts continue", **said)
            else:
                self._log.warning("ring was replaced; its counts do not include these of the former ring", **said)
        else:
            del self.writers[camera]
            page = self.pages.pop(camera, None)
            if page:
                page.close()
            self._log.info("ring is gone; camera let go", **said)
        former.close()
        return True

    def _open(self, camera: str) -> bool:
        try:
            consumer = self._consumer(camera)
        except FileNotFoundError:
            return False
        except (RingMismatch, OSError) as error:
            self._warn_once(camera, "ring cannot be read", str(error))
            return False
        self.writers[camera] = CameraWriter(camera, self._config, consumer)
        self._renew_page(camera)
        return True

    def _consumer(self, camera: str) -> Consumer:
        path, ttl_seconds = self._paths.ring(camera, video=self._video), self._config.ttl_seconds(video=self._video)
        return Consumer(path, camera, ttl_seconds=ttl_seconds)

    def _renew_page(self, camera: str) -> None:
        """Watch the capture process's current status page if the previous one was removed."""
        known = self.pages.get(camera)
        if known and not known.removed:
            return
        with contextlib.suppress(OSError, RingMismatch):
            fresh = StatusPage.watch(self._paths.capture(camera))
            if known:
                known.close()
            self.pages[camera] = fresh
