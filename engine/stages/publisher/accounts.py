"""The accounts of the cameras that a publisher serves. They follow the rings, and are saved in Redis.

The publisher serves a camera as soon as its ring exists. After the ring is gone, it serves the camera until the journal
has nothing left to announce. If it is killed meanwhile, its successor finds the camera's name in a file
(``remembered.py``). It also serves cameras of the site file whose ring it never saw, because it may run where no ring
is visible.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import RingError
from engine.shm.camera_list import CameraList
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage
from engine.stages.publisher.account import BEGINNING, Account
from engine.stages.publisher.booking import FRAME_WORDS, VIDEO_WORDS, Booking
from engine.stages.publisher.cluster_calls import NodeUnavailable
from engine.stages.publisher.journals import Journals
from engine.stages.publisher.reads import CameraRead, Cursors, Newest, Overview
from engine.stages.publisher.remembered import Remembered
from engine.wire.marks import Mark

#: Seconds that a camera is served at least after its ring is gone: the writer may still hold frames of it.
_LINGER_SECONDS = 10.0
#: A journal without entries, and a camera without announced or counted events.
_NOTHING = Newest(BEGINNING, 0)
_NO_CURSOR = Mark(BEGINNING)


class Accounts:
    """Accounts by camera, of frames or of ``video``, as ``journals`` reads them, for the publisher ``number``. Methods
    that ask Redis raise RedisUnavailable or ServerRefused, and may be called again."""

    def __init__(
        self,
        config: Config,
        page: StatusPage,
        journals: Journals,
        log: FilteringBoundLogger,
        number: int = 0,
        *,
        video: bool = False,
    ) -> None:
        self.by_camera: dict[str, Account] = {}
        #: True once the cursors of the last publisher are known.
        self.begun = False
        self._mine: Callable[[str], bool] = lambda camera: config.publisher_of(camera) == number
        self._number = number
        self._publishers = config.publisher.publishers
        configured = (camera.id for camera in config.cameras if camera.video or not video)
        self._configured = list(filter(self._mine, configured))
        self._journals = journals
        self._log = log
        self._what = "GOPs" if video else "events"
        self._words = VIDEO_WORDS if video else FRAME_WORDS
        self._booking = Booking(page, self._words)
        self._paths = paths = SitePaths.of(config)
        self._remembered = Remembered(config, number, video=video)
        self._camera_list = CameraList(
            paths, lambda path, reason: log.warning("ring passed over", path=str(path), error=reason), video=video
        )
        #: Cameras whose rings have gone, and since when (monotonic seconds).
        self._gone: dict[str, float] = {}
        self._saved: dict[str, Mark] = {}

    def begin(self) -> None:
        """Continue where the last publisher stopped. Called once per process, with the first connection to Redis."""
        self._camera_list.look()
        cameras = dict.fromkeys([*self._configured, *self._standing, *self._remembered.names()])
        for camera in cameras:
            self._journals.add(camera)
        cursors = self._journals.cursors()
        self._booking.recover(cursors.serials | {cursors.saved.get(self._number, b"")})
        begun = self._recover_others(cursors)
        if not cursors.marks and (self._booking.begun or (cursors.lost and begun)):
            # Redis lost the cursors. The numbers announced so far are unknown, so counting restarts.
            cursors = cursors._replace(marks=dict.fromkeys(cameras, _NO_CURSOR))
        now = time.monotonic()
        unseen = cameras.keys() - self._standing - set(self._configured)
        self._gone = dict.fromkeys(unseen, now)
        self._saved = dict(cursors.marks)
        self.by_camera = {camera: Account(cursors.marks.get(camera)) for camera in cameras}
        self._remember()
        self.begun = True

    def take(self, found: list[CameraRead]) -> None:
        """Enter the entries that were read. They are removed from ``found`` where it is not known yet which are due."""
        begins = {read.camera for read in found if self.by_camera[read.camera].wants_beginning(read.entries)}
        # The writer writes a mark with a ring's first number before the ring's first entry.
        try:
            written = self._journals.written() if begins else {}
        except NodeUnavailable:
            written = {}
            found[:] = [read for read in found if read.camera not in begins]
        for camera, entries, last, unreadable in found:
            mark = written.get(camera)
            if camera in begins and mark and mark.before is not None:
                self.by_camera[camera].begin_behind(mark.before)
            self.by_camera[camera].take(entries, last, unreadable)

    def look(self, overview: Overview, waiting: Collection[str]) -> set[str]:
        """Count the entries that expired with their journals, and follow the rings.

        ``waiting`` are the cameras with queued entries. Returns the cameras of which such entries were counted.
        """
        vanished: set[str] = set()
        passed_over = self._journals.foreign | self._journals.unseen
        for camera, account in self.by_camera.items():
            mark = overview.written.get(camera)
            nothing_left = overview.newest.get(camera, _NOTHING).at <= account.read
            if not (mark and mark.entries and nothing_left) or camera in passed_over:
                continue
            if account.vanished(mark.entries):
                vanished.add(camera)
        now = time.monotonic()
        went = self._camera_list.look().went
        self._gone |= dict.fromkeys(set(went) & self.by_camera.keys(), now)
        standing = self._standing
        for camera in self._gone.keys() & standing:
            del self._gone[camera]
        if new := sorted(standing - self.by_camera.keys()):
            self._come(new)
        for camera in [camera for camera, since in self._gone.items() if now - since > _LINGER_SECONDS]:
            known = camera not in waiting and camera not in self._journals.unseen
            if known and self._finished(camera, overview.newest):
                self._let_go(camera)
        return vanished

    def save(self, *, all_of_them: bool = False) -> None:
        """Save the cursors that have moved, and count the events that they passed."""
        marks = {camera: account.mark for camera, account in self.by_camera.items() if account.mark != _NO_CURSOR}
        changed = marks if all_of_them else {c: mark for c, mark in marks.items() if self._saved.get(c) != mark}
        for account in self.by_camera.values():
            self._booking.add(*account.take_counts())
        serial = self._booking.intend()
        if changed and self._journals.save(changed, serial):
            self._saved |= changed
            self._booking.settle()

    def rewind(self) -> None:
        """Forget unconfirmed entries, to read them again."""
        for account in self.by_camera.values():
            account.rewind()

    @property
    def _standing(self) -> set[str]:
        """The cameras of this publisher that have a ring."""
        return set(filter(self._mine, self._camera_list.rings))

    def _recover_others(self, cursors: Cursors) -> bool:
        """Look at the pages of other publishers. The first publisher finishes the saves of those that the site file
        does not have any more. True if any of them has counted an event."""
        begun = False
        for number, path in self._paths.publishers().items():
            if number == self._number:
                continue
            with contextlib.suppress(OSError, RingError), contextlib.closing(StatusPage.watch(path)) as page:
                booking = Booking(page, self._words)
                if not self._number and number >= self._publishers and not page.owned:
                    booking.recover({cursors.saved.get(number, b"")})
                begun = begun or booking.begun
        return begun

    def _come(self, cameras: list[str]) -> None:
        for camera in cameras:
            self._journals.add(camera)
        try:
            marks = self._journals.cursors().marks
        except NodeUnavailable:
            # Where they continue is not known. The next look tries again; the other cameras do not wait.
            for camera in cameras:
                self._journals.remove(camera)
            return
        for camera in cameras:
            self.by_camera[camera] = Account(marks.get(camera))
            if camera in marks:
                self._saved[camera] = marks[camera]
            self._log.info(f"camera's {self._what} are published", camera=camera)
        self._remember()

    def _finished(self, camera: str, newest: Mapping[str, Newest]) -> bool:
        account = self.by_camera[camera]
        done = account.at_rest and newest.get(camera, _NOTHING).at <= account.cursor
        return done and self._saved.get(camera, _NO_CURSOR) == account.mark

    def _let_go(self, camera: str) -> None:
        del self.by_camera[camera], self._gone[camera]
        self._saved.pop(camera, None)
        self._journals.remove(camera)
        self._remember()
        self._log.info(f"camera is gone, and all of its {self._what} are published", camera=camera)

    def _remember(self) -> None:
        self._remembered.save(self.by_camera.keys() - set(self._configured))
