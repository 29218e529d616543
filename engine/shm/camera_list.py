"""The list of running cameras, which can change while writers and publisher run. A camera is on it while its ring
exists in the site's directory.

A camera's capture process makes its ring (or the supervisor does), and the ring's header names the camera. So the
directory is the one list, whatever the site file said when a process was forked. No process has to be told of a change:
each agent looks at the list in its rounds, a few times a second. The list's version grows with each change that a look
finds, so an agent that knows the version knows the list.

A look that finds no change costs one ``stat``: the time of a directory changes when an entry is added or removed. Two
changes could be missed that way. First, the kernel's time stamps are coarse, so a second change within one tick leaves
no trace. Until the directory's time is older than that, each look therefore reads the directory again. Second, a file
can be recreated under its old name. A ring is therefore also identified by its inode, and a replaced ring counts as
both removed and added.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from engine.errors import RingMismatch
from engine.shm import segment
from engine.shm.segment import Inode
from engine.shm.site import RING_SUFFIX, VIDEO_SUFFIX, SitePaths
from engine.wire import ring_layout
from engine.wire.ring_owner import show_owner

#: Nanoseconds by which a file's time may lag behind the clock: a few of the kernel's ticks (10 ms at 100 Hz).
_COARSE_NANO = 50_000_000


class Changes(NamedTuple):
    """Cameras whose rings came and went since the last look, sorted. A camera whose ring was replaced is in both."""

    came: tuple[str, ...] = ()
    went: tuple[str, ...] = ()


#: The result of most looks.
_NONE = Changes()


class _Seen(NamedTuple):
    """A file as it was found; ``camera`` is empty if it is not a ring of this site."""

    inode: Inode
    camera: str


class CameraList:
    """The cameras of one site, by their rings, as one process sees them.

    ``passed_over(path, reason)`` is called once for each file with a ring's name that is not a ring, is another
    camera's, or belongs to another user. With ``owner`` (``engine/wire/ring_owner.py``), rings with frames of another
    owner are passed over too. With ``video``, the list is of the cameras with video, by their rings of it.
    """

    def __init__(
        self,
        paths: SitePaths,
        passed_over: Callable[[Path, str], None],
        *,
        owner: bytes | None = None,
        video: bool = False,
    ) -> None:
        self._paths = paths
        self._passed_over = passed_over
        self._owner = owner
        self._video = video
        #: Grows by one with each look that finds a change; 0 before the first camera.
        self.version = 0
        self._rings: dict[str, Inode] = {}
        self._seen: dict[str, _Seen] = {}
        #: The directory as it was last read, and its time; None if it must be read again in any case.
        self._read: tuple[Inode, int] | None = None

    @property
    def rings(self) -> Mapping[str, Inode]:
        """Camera to its ring's inode, as of the last look."""
        return self._rings

    def look(self) -> Changes:
        """The changes since the last look. At the first look, all cameras have come. Raises nothing."""
        now = time.time_ns()
        try:
            status = self._paths.directory.stat()
        except OSError:
            return self._become({}, None)
        read = (Inode.of(status), status.st_mtime_ns)
        if read == self._read:
            return _NONE
        # If the clock was set back, the directory looks too new and is read each time; that is the only cost.
        return self._become(*self._scan(read if read[1] < now - _COARSE_NANO else None))

    def _scan(self, read: tuple[Inode, int] | None) -> tuple[dict[str, _Seen], tuple[Inode, int] | None]:
        """The files with names of rings, and ``read``, or None if one of them could not be examined."""
        found: dict[str, _Seen] = {}
        try:
            entries = list(os.scandir(self._paths.directory))
        except OSError:
            # Out of descriptors, or removed since: the next look tells. Until then the known list stays valid.
            return self._seen, None
        for entry in entries:
            name = entry.name
            if not name.endswith(RING_SUFFIX) or name.startswith(".") or name.endswith(VIDEO_SUFFIX) != self._video:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
                known = self._seen.get(name)
                found[name] = known if known and known.inode == Inode.of(status) else self._examine(entry, status)
            except FileNotFoundError:
                continue
            except OSError:
                read = None
                with contextlib.suppress(KeyError):
                    found[name] = self._seen[name]
        return found, read

    def _examine(self, entry: os.DirEntry[str], status: os.stat_result) -> _Seen:
        """Examine a file that was not seen before. Raises OSError if it cannot be determined what it is."""
        path, inode = Path(entry.path), Inode.of(status)
        try:
            shared = segment.open_existing(path, writable=False)
        except PermissionError as error:
            return self._pass_over(path, inode, str(error.strerror))
        except RingMismatch as error:
            return self._pass_over(path, inode, str(error))
        try:
            if shared.size < ring_layout.HEADER_BYTES:
                return self._pass_over(path, inode, f"it has {shared.size} bytes, less than a header")
            camera = ring_layout.camera_of(shared.view, shared.words)
            owner = ring_layout.owner_of(shared.view)
            video = ring_layout.is_video(shared.words)
        except RingMismatch as error:
            return self._pass_over(path, inode, str(error))
        finally:
            shared.close()
        if self._owner is not None and owner != self._owner:
            return self._pass_over(path, inode, f"its frames belong to {show_owner(owner)}")
        if self._paths.ring(camera, video=video) != path:
            return self._pass_over(path, inode, f"it is the ring of camera {camera!r} under another name")
        return _Seen(inode, camera)

    def _pass_over(self, path: Path, inode: Inode, reason: str) -> _Seen:
        self._passed_over(path, reason)
        return _Seen(inode, "")

    def _become(self, seen: dict[str, _Seen], read: tuple[Inode, int] | None) -> Changes:
        before, self._seen, self._read = self._rings, seen, read
        self._rings = {one.camera: one.inode for one in seen.values() if one.camera}
        if self._rings == before:
            return _NONE
        self.version += 1
        return Changes(
            tuple(sorted(camera for camera, inode in self._rings.items() if before.get(camera) != inode)),
            tuple(sorted(camera for camera, inode in before.items() if self._rings.get(camera) != inode)),
        )
