"""A site's directory in shared memory: which file is where, and what a former run has left there."""

from __future__ import annotations

import errno
import zlib
from pathlib import Path
from typing import NamedTuple

from engine.config import Config
from engine.config_rules import file_stem
from engine.errors import InputError, NoSpace, RingMismatch
from engine.shm import ring_file, segment
from engine.wire import ring_layout

#: Errors that say nothing of the file that was to be opened.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
#: What a memory file system gives out at a time.
_PAGE_BYTES = 4096


class SitePaths(NamedTuple):
    """Paths of one site's shared memory. ``directory`` follows from the run directory, whose lock guards it."""

    directory: Path

    @classmethod
    def of(cls, config: Config) -> SitePaths:
        """The paths of a configured site."""
        return cls(Path(config.ring.directory) / directory_name(config.site.name, config.run_directory))

    def ring(self, camera: str) -> Path:
        """A camera's ring."""
        return self.directory / f"{file_stem(camera)}.ring"

    def capture(self, camera: str) -> Path:
        """The slate of a camera's capture process."""
        return self.directory / f"capture {file_stem(camera)}.slate"

    def writer(self, number: int) -> Path:
        """The slate of a writer, counted from 0."""
        return self.directory / f"writer {number}.slate"

    def doorbell(self, number: int) -> Path:
        """The FIFO that wakes a writer."""
        return self.directory / f"writer {number}.doorbell"

    @property
    def publisher(self) -> Path:
        """The publisher's slate."""
        return self.directory / "publisher.slate"

    @property
    def supervisor(self) -> Path:
        """The supervisor's slate."""
        return self.directory / "supervisor.slate"


def directory_name(site: str, run_directory: Path) -> str:
    """The name of a site's directory: anyone may read it, and check a guess of the run directory by it."""
    return f"edge-video-{site}-{zlib.crc32(str(run_directory).encode()):08x}"


def make_directory(config: Config) -> Path:
    """The site's directory, made where it is missing. Raises InputError where it cannot be this user's alone."""
    if not Path(config.ring.directory).is_dir():
        raise InputError(f"ring.directory {config.ring.directory} is no directory")
    return segment.private_directory(SitePaths.of(config).directory)


class Leftover(NamedTuple):
    """A ring of a former run: ``held`` frames stand in it; ``fits`` where the site can adopt it."""

    path: Path
    camera: str
    held: int
    fits: bool
    reason: str


def shared_memory_need(config: Config) -> int:
    """Bytes of shared memory that a site takes: its rings, and a page for each process."""
    slates = 2 + config.writer.writers + len(config.cameras)
    ring_pages = -(-ring_layout.file_bytes(config.ring.capacity) // _PAGE_BYTES)
    return (len(config.cameras) * ring_pages + slates) * _PAGE_BYTES


def leftovers(config: Config) -> list[Leftover]:
    """The rings that stand in the site's directory, and whether they fit the configuration.

    Raises InputError where the directory is not this user's own, or this process may open no more files.
    """
    paths = SitePaths.of(config)
    if not segment.is_private(paths.directory):
        return []
    known = {paths.ring(camera.id): camera.id for camera in config.cameras}
    found = []
    for path in sorted(paths.directory.glob("*.ring")):
        camera = known.get(path)
        try:
            found.append(_examine(path, camera, config.ring.capacity))
        except (RingMismatch, OSError) as error:
            if isinstance(error, OSError) and error.errno in _EXHAUSTED:
                # Nothing is known of the ring, so that nobody may remove it.
                raise InputError(f"{path} cannot be opened: {error.strerror}; raise the limit (ulimit -n)") from None
            found.append(Leftover(path, camera or path.stem, 0, False, str(error)))
    return found


def _examine(path: Path, camera: str | None, capacity: int) -> Leftover:
    shared = segment.open_existing(path, writable=False)
    try:
        if shared.size < ring_layout.HEADER_BYTES:
            raise RingMismatch(f"{path} has {shared.size} bytes, less than a header")
        _, owner = ring_layout.check_identity(shared.view, shared.words, shared.size)
    finally:
        shared.close()
    observer = ring_file.Observer(path, owner)
    held = observer.counts().held
    size = observer.capacity
    observer.close()
    if camera != owner:
        return Leftover(path, owner, held, False, f"camera {owner!r} is not in the site file")
    if size != capacity:
        return Leftover(path, owner, held, False, f"it has {size:,} bytes, the site file asks for {capacity:,}")
    return Leftover(path, owner, held, True, "")


def check_space(config: Config, *, reserved: int = 0) -> None:
    """Raises NoSpace where the site's rings do not fit, with the two ways out. ``reserved`` bytes stand already."""
    need = shared_memory_need(config)
    parent = Path(config.ring.directory)
    have = segment.free_bytes(parent) + reserved
    if need > have:
        raise NoSpace(
            f"{parent} is too small: {len(config.cameras)} cameras need {need:,} bytes and {have:,} are free; "
            f"enlarge it (mount -o remount,size={need // 2**20 + 64}m {parent}; docker: shm_size) "
            "or lower ring.capacity_mb"
        )


def sweep(config: Config) -> list[Leftover]:
    """Remove the rings that the site cannot adopt; returns them, with what they held.

    Drafts of files whose maker was killed go too; the caller holds the site's lock, so nobody is making any.
    """
    unfit = [leftover for leftover in leftovers(config) if not leftover.fits]
    for draft in SitePaths.of(config).directory.glob(".*"):
        draft.unlink(missing_ok=True)
    for leftover in unfit:
        leftover.path.unlink(missing_ok=True)
    return unfit


def remove(paths: SitePaths) -> None:
    """Remove the site's directory and all files in it. Raises InputError where it is not this user's own."""
    if segment.is_private(paths.directory):
        for path in paths.directory.iterdir():
            path.unlink(missing_ok=True)
        paths.directory.rmdir()
