"""Shared-memory files: created with reserved storage, and opened only if they belong to this user.

This is a plain mapping of a file in a 0700 directory. ``multiprocessing.shared_memory`` is not used: its resource
tracker unlinks segments that other processes still use. ``posix_fallocate`` reserves the storage, so a full /dev/shm is
an error here and never a SIGBUS at the first access.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from engine.errors import InputError, NoSpace, RingMismatch

#: Only the site's own user has access.
_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
#: Symbolic links that a path may contain; the kernel's limit.
_LINKS_MAX = 40
#: How often a directory is made when another process removes it meanwhile.
_MAKE_TRIES_MAX = 20


class Inode(NamedTuple):
    """Identifies a file independently of its name: device and number."""

    device: int
    number: int

    @classmethod
    def of(cls, status: os.stat_result) -> Inode:
        """The file that ``status`` describes."""
        return cls(status.st_dev, status.st_ino)


class Segment:
    """One mapped file: ``view`` is all of it as bytes, ``words`` its first page(s) as unsigned 64-bit numbers."""

    def __init__(self, path: Path, descriptor: int, size: int, *, writable: bool = True) -> None:
        self.path = path
        self.size = size
        self.descriptor = descriptor
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._map = mmap.mmap(descriptor, size, access=access)
        self.view = memoryview(self._map)
        self.words = self.view[: size // 8 * 8].cast("Q")

    @property
    def inode(self) -> Inode:
        """The mapped file; its path may lead to another file by now."""
        return Inode.of(os.fstat(self.descriptor))

    @property
    def removed(self) -> bool:
        """True if the file no longer has a name."""
        return not os.fstat(self.descriptor).st_nlink

    def close(self) -> None:
        """Close the descriptor, and the mapping as soon as no view of it is left."""
        self.words.release()
        self.view.release()
        # A payload that is still in use keeps the mapping; it is closed with the last of them.
        with contextlib.suppress(BufferError):
            self._map.close()
        os.close(self.descriptor)


def create(path: Path, size: int, fill: Callable[[Segment], None] = lambda _: None) -> Segment:
    """Make ``path`` with ``size`` bytes of reserved storage, zero except for what ``fill`` writes; returns it mapped.

    The file appears under its name only when it is complete. Raises NoSpace with the needed and the available bytes,
    FileExistsError if the file exists.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    try:
        os.posix_fallocate(descriptor, 0, size)
        shared = Segment(draft, descriptor, size)
    except OSError as error:
        os.close(descriptor)
        draft.unlink(missing_ok=True)
        if error.errno == errno.EFBIG:
            raise NoSpace(
                f"{path} needs {size:,} bytes, more than this process may write to one file; raise the limit "
                "(ulimit -f; systemd: LimitFSIZE=) or lower ring.capacity_mb"
            ) from None
        if error.errno in (errno.ENOSPC, errno.ENOMEM):
            raise NoSpace(
                f"{path} needs {size:,} bytes and {path.parent} has {free_bytes(path.parent):,} left; "
                "enlarge it (mount -o remount,size=…; docker run --shm-size) or lower ring.capacity_mb"
            ) from None
        raise
    try:
        fill(shared)
        path.hardlink_to(draft)
    except BaseException:
        shared.close()
        raise
    finally:
        draft.unlink(missing_ok=True)
    shared.path = path
    return shared


def open_existing(path: Path, *, writable: bool = True) -> Segment:
    """Map an existing file.

    Raises FileNotFoundError, and RingMismatch for a file that this user did not make: a link, another owner, an open
    mode.
    """
    # O_NONBLOCK: opening a FIFO of that name would block until its other end is opened.
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags | (os.O_RDWR if writable else os.O_RDONLY))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise RingMismatch(f"{path} is a symbolic link") from None
        if error.errno in (errno.ENXIO, errno.EISDIR):
            raise RingMismatch(f"{path} is no file: {error.strerror}") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise RingMismatch(f"{path} belongs to uid {status.st_uid} with mode {stat.filemode(status.st_mode)}")
        if not status.st_size:
            raise RingMismatch(f"{path} is empty")
        return Segment(path, descriptor, status.st_size, writable=writable)
    except BaseException:
        os.close(descriptor)
        raise


def private_directory(path: Path) -> Path:
    """Make the absolute ``path`` and its parents (0700), or accept an existing directory of this user.

    Raises InputError that says what is wrong, also if another user could replace the directory.
    """
    for left in reversed(range(_MAKE_TRIES_MAX)):
        try:
            here = Path("/")
            for part in path.parts[1:-1]:
                here = _pass(here, part)
            _check_passed(here)
            _make(path)
            is_private(path)
            break
        except OSError as error:
            # A site that stops removes empty directories, including those just made here.
            if not isinstance(error, FileNotFoundError) or not left:
                raise InputError(f"cannot make the directory {path}: {error.strerror}") from None
    return path


def is_private(path: Path) -> bool:
    """True if ``path`` is this user's own directory, False if it does not exist. Raises InputError otherwise."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    if status.st_uid != os.geteuid():
        raise InputError(f"{path} belongs to uid {status.st_uid} and not to this user ({os.geteuid()}); remove it")
    if not stat.S_ISDIR(status.st_mode):
        raise InputError(f"cannot make the directory {path}: {stat.filemode(status.st_mode)} stands there; remove it")
    if status.st_mode & 0o077:
        raise InputError(f"{path} is open to others ({stat.filemode(status.st_mode)}); chmod 700 {path}")
    return True


def _pass(here: Path, part: str, links: int = 0) -> Path:
    """The directory ``part`` of ``here``, with links followed; made if it is missing.

    In a directory that passes the check, only root and this user can move their entries. So an entry that was checked
    is still the same at the next step. Raises InputError if the check fails, OSError.
    """
    _check_passed(here)
    step = here / part
    _make(step)
    status = step.lstat()
    if not stat.S_ISLNK(status.st_mode):
        return step
    if links == _LINKS_MAX:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    _check_owner(step, status)
    target = step.readlink()
    here = Path("/") if target.is_absolute() else here
    for below in target.parts[1:] if target.is_absolute() else target.parts:
        here = _pass(here, below, links + 1)
    return here


def _make(directory: Path) -> None:
    if not os.path.lexists(directory):
        with contextlib.suppress(FileExistsError):
            directory.mkdir(_DIRECTORY_MODE)


def _check_passed(directory: Path) -> None:
    """Raises InputError if another user could replace the contents of ``directory``."""
    status = directory.lstat()
    _check_owner(directory, status)
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise InputError(
            f"anyone may replace what is in {directory} ({stat.filemode(status.st_mode)}); "
            f"chmod +t {directory}, or use another directory"
        )


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise InputError(
            f"{path} belongs to uid {status.st_uid}, who may replace what is in it, and not to this user "
            f"({os.geteuid()}) or root; remove it, or use another directory"
        )


def free_bytes(directory: Path) -> int:
    """Bytes that can still be reserved on the file system of ``directory``."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
