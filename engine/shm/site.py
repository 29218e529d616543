"""A site's directory in shared memory: the paths of its files, and the rings that a former run left there."""

from __future__ import annotations

import contextlib
import errno
import functools
import zlib
from pathlib import Path
from typing import NamedTuple

from engine.config import Config
from engine.config.rules import file_stem
from engine.errors import InputError, NoSpace, RingMismatch
from engine.shm import ring_file, segment
from engine.shm.status_page import StatusPage
from engine.wire import ring_layout
from engine.wire.ring_owner import build_owner, show_owner

#: Errors that say nothing about the file that was being opened.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
#: Endings of the names of rings. The first is also that of the second, so a pattern for rings finds both.
RING_SUFFIX, VIDEO_SUFFIX = ".ring", ".video.ring"
#: Endings of the files that name the cameras that a publisher serves. The first is also that of the second.
_CAMERAS, _VIDEO_CAMERAS = ".cameras", ".video.cameras"
#: A memory file system allocates whole pages of this size.
_PAGE_BYTES = 4096
#: Rings that an error names.
_RINGS_SHOWN = 8
#: Paths that are kept: making them anew was a fifth of what a look at a site costs.
_PATHS_MAX = 8192


class SitePaths(NamedTuple):
    """Paths of one site's shared memory. ``directory`` is derived from the run directory, whose lock guards it."""

    directory: Path

    @classmethod
    def of(cls, config: Config) -> SitePaths:
        """The paths of a configured site."""
        return cls(_directory(config.ring.directory, config.site.name, config.run_directory))

    def ring(self, camera: str, *, video: bool = False) -> Path:
        """A camera's ring of frames, or that of its video. No camera's file name has a dot before its ending."""
        return _camera_file(self.directory, "", camera, VIDEO_SUFFIX if video else RING_SUFFIX)

    def capture(self, camera: str) -> Path:
        """The status page of a camera's capture process."""
        return _camera_file(self.directory, "capture ", camera, ".status")

    def writer(self, number: int) -> Path:
        """The status page of a writer, counted from 0."""
        return self.directory / f"writer {number}.status"

    def doorbell(self, number: int) -> Path:
        """The FIFO that wakes a writer."""
        return self.directory / f"writer {number}.doorbell"

    @property
    def turnstile(self) -> Path:
        """The file that paces the cameras that connect at the same time."""
        return self.directory / "connecting"

    @property
    def web(self) -> Path:
        """The web process's status page."""
        return self.directory / "web.status"

    @property
    def monitor(self) -> Path:
        """The monitor's status page."""
        return self.directory / "monitor.status"

    @property
    def alerts(self) -> Path:
        """The file of the site's alerts (``engine/shm/alerts_file.py``)."""
        return self.directory / "alerts.json"

    def publisher(self, number: int = 0) -> Path:
        """The status page of a publisher, counted from 0."""
        return self.directory / f"{_publisher(number)}.status"

    def publishers(self) -> dict[int, Path]:
        """The status pages of all publishers that have run, by number: also those of a former site file that had more
        of them."""
        found = {}
        for path in self.directory.glob("publisher*.status"):
            number = path.stem.removeprefix("publisher").strip() or "0"
            if number.isascii() and number.isdigit() and path == self.publisher(int(number)):
                found[int(number)] = path
        return dict(sorted(found.items()))

    def served(self, number: int = 0, *, video: bool = False) -> Path:
        """Names the cameras that a publisher serves though the site file does not name them."""
        return self.directory / f"{_publisher(number)}{_VIDEO_CAMERAS if video else _CAMERAS}"

    def all_served(self, *, video: bool = False) -> list[Path]:
        """These files of all publishers that have run."""
        found = sorted(self.directory.glob(f"publisher*{_CAMERAS}"))
        return [path for path in found if path.name.endswith(_VIDEO_CAMERAS) == video]

    @property
    def supervisor(self) -> Path:
        """The supervisor's status page."""
        return self.directory / "supervisor.status"


def _publisher(number: int) -> str:
    """The first publisher has the same name however many there are, so it keeps its counts."""
    return f"publisher {number}" if number else "publisher"


@functools.lru_cache(_PATHS_MAX)
def _camera_file(directory: Path, before: str, camera: str, after: str) -> Path:
    return directory / f"{before}{file_stem(camera)}{after}"


@functools.lru_cache(_PATHS_MAX)
def _directory(parent: str, site: str, run_directory: Path) -> Path:
    return Path(parent) / directory_name(site, run_directory)


def directory_name(site: str, run_directory: Path) -> str:
    """The name of a site's directory. It is public, so anyone can verify a guess of the run directory with it."""
    return f"edge-video-{site}-{zlib.crc32(str(run_directory).encode()):08x}"


def make_directory(config: Config) -> Path:
    """The site's directory, made if it is missing. Raises InputError if it cannot be private to this user."""
    if not Path(config.ring.directory).is_dir():
        raise InputError(f"ring.directory {config.ring.directory} is no directory")
    return segment.private_directory(SitePaths.of(config).directory)


class Leftover(NamedTuple):
    """A ring of a former run with ``held`` frames. ``fits`` is true if the site can adopt it. ``foreign`` names the
    frames' owner if they must be stored under other names than this site's; otherwise it is empty. If the ring is not
    ``readable``, its frames are unknown."""

    path: Path
    camera: str
    held: int
    fits: bool
    reason: str
    foreign: str = ""
    readable: bool = True
    video: bool = False


def shared_memory_need(config: Config) -> int:
    """Bytes of shared memory that a site needs: its rings, and a page for each process."""
    pages = 3 + config.writer.writers + config.publisher.publishers + len(config.cameras)
    for _, video in config.rings:
        pages += -(-ring_layout.file_bytes(config.ring_capacity(video=video)) // _PAGE_BYTES)
    return pages * _PAGE_BYTES


def leftovers(config: Config) -> list[Leftover]:
    """The rings in the site's directory, and whether they fit the configuration.

    Raises InputError if the directory is not this user's own, or if this process may open no more files.
    """
    paths = SitePaths.of(config)
    if not segment.is_private(paths.directory):
        return []
    known = {paths.ring(camera, video=video): camera for camera, video in config.rings}
    return [examine(path, known.get(path), config) for path in sorted(paths.directory.glob("*.ring"))]


def examine(path: Path, camera: str | None, config: Config) -> Leftover:
    """Examine the file at a ring's path; ``camera`` is the one that the site file has for it. Raises InputError if this
    process may open no more files."""
    try:
        return _examine(path, camera, config)
    except (RingMismatch, OSError) as error:
        if isinstance(error, OSError) and error.errno in _EXHAUSTED:
            # The ring's contents are unknown, so it must not be removed.
            raise InputError(f"{path} cannot be opened: {error.strerror}; raise the limit (ulimit -n)") from None
        return Leftover(path, camera or path.stem, 0, False, str(error), readable=False)


def _examine(path: Path, camera: str | None, config: Config) -> Leftover:
    shared = segment.open_existing(path, writable=False)
    try:
        if shared.size < ring_layout.HEADER_BYTES:
            raise RingMismatch(f"{path} has {shared.size} bytes, less than a header")
        _, named = ring_layout.check_identity(shared.view, shared.words, shared.size)
    finally:
        shared.close()
    observer = ring_file.Observer(path, named)
    held, size, owner, video = observer.counts().held, observer.capacity, observer.owner, observer.video
    observer.close()
    if owner != build_owner(config.owner):
        whose = show_owner(owner)
        return Leftover(path, named, held, False, f"its frames belong to {whose}", whose, video=video)
    capacity, reason = config.ring_capacity(video=video), ""
    if path != SitePaths.of(config).ring(named, video=video):
        reason = f"it is a ring of camera {named!r} under another name"
    elif camera != named:
        reason = f"{'the video of ' if video else ''}camera {named!r} is not in the site file"
    elif size != capacity:
        reason = f"it has {size:,} bytes, the site file asks for {capacity:,}"
    return Leftover(path, named, held, not reason, reason, video=video)


def check_owner(config: Config) -> None:
    """Raises InputError if rings hold, or are in use for, frames that must be stored under other names than this
    site's: frames of one tenant must never be stored as another's."""
    paths = SitePaths.of(config)
    foreign = [leftover for leftover in leftovers(config) if leftover.foreign]
    used = [leftover.camera for leftover in foreign if _in_use(paths.capture(leftover.camera))]
    if used:
        raise InputError(
            f"camera {used[0]} is being captured for {foreign[0].foreign}, and this site is {config.owner}; "
            "stop what runs with the former site file first"
        )
    held = [leftover for leftover in foreign if leftover.held]
    if held:
        rings = ", ".join(f"{leftover.camera} ({leftover.held})" for leftover in held[:_RINGS_SHOWN])
        rings += f" and {len(held) - _RINGS_SHOWN} more" if len(held) > _RINGS_SHOWN else ""
        raise InputError(
            f"{sum(leftover.held for leftover in held)} frames of a former run wait in {paths.directory} and belong to "
            f"{', and to '.join(sorted({leftover.foreign for leftover in held}))}; this site is {config.owner}. "
            "Start it with the former names, and stop it, so that they are stored there, or give them up with "
            f"edge-video clean. The rings: {rings}"
        )


def _in_use(page: Path) -> bool:
    with contextlib.suppress(OSError, RingMismatch), contextlib.closing(StatusPage.watch(page)) as watched:
        return watched.owned
    return False


def check_space(config: Config, *, reserved: int = 0) -> None:
    """Raises NoSpace, with the two remedies, if the site's rings do not fit. ``reserved`` bytes are already taken."""
    need = shared_memory_need(config)
    parent = Path(config.ring.directory)
    have = segment.free_bytes(parent) + reserved
    if need > have:
        raise NoSpace(
            f"{parent} is too small: {len(config.cameras)} cameras need {need:,} bytes and {have:,} are free; "
            f"enlarge it (mount -o remount,size={need // 2**20 + 64}m {parent}; docker: shm_size) "
            f"or lower ring.capacity_mb{' or video.capacity_mb' if any(c.video for c in config.cameras) else ''}"
        )


def sweep(config: Config) -> list[Leftover]:
    """Remove the rings that the site cannot adopt; returns them. Raises InputError, and removes none, if
    ``check_owner`` does.

    This also removes drafts of files whose maker was killed. The caller holds the site's lock, so no process is making
    any.
    """
    check_owner(config)
    unfit = [leftover for leftover in leftovers(config) if not leftover.fits]
    for draft in SitePaths.of(config).directory.glob(".*"):
        draft.unlink(missing_ok=True)
    for leftover in unfit:
        leftover.path.unlink(missing_ok=True)
    return unfit


def remove(paths: SitePaths) -> None:
    """Remove the site's directory and all files in it. Raises InputError if it is not this user's own."""
    if segment.is_private(paths.directory):
        for path in paths.directory.iterdir():
            path.unlink(missing_ok=True)
        paths.directory.rmdir()
