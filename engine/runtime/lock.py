"""The lock of a site's run directory: for one supervisor, or for any number of single roles, never for both.

The lock file contains a random token, which lasts as long as the file, the number of directories that were made for it,
and the id of the process that locked it last. The last process to unlock it removes it, and those directories if they
are empty. So a process may lock a file that was just removed: if the name no longer leads to that file, it tries again.
The token identifies a killed site when it is started again (``engine/stages/writer/leases.py``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from pathlib import Path

import psutil

from engine.config import Config
from engine.errors import InputError, SiteInUse
from engine.shm.segment import private_directory

_NAME = "site.lock"
_TOKEN_BYTES = 8
#: Offsets of the second and third line: after the token's hexadecimal digits, and after the number of directories,
#: which has two decimal digits. The third line is the process id.
_MADE_AT = 2 * _TOKEN_BYTES + 1
_PID_AT = _MADE_AT + 3
#: Most attempts to open the file, each after the one before was removed meanwhile, or while a killed site ends.
_TRIES_MAX = 100
#: Seconds that the children of a killed supervisor may take to end on a loaded machine, and between two looks.
_ENDING_SECONDS = 3.0
_TRY_SECONDS = 0.05


class SiteLock:
    """Holds the run directory for this process and its children. Raises SiteInUse with the pid of the holder."""

    def __init__(self, config: Config, *, exclusive: bool) -> None:
        self._directory = config.run_directory
        self.path: Path = self._directory / _NAME
        levels = (self._directory, *self._directory.parents)
        # Directories of the default place belong to the engine, even if an earlier start made them.
        made = 0 if config.site.run_directory else 2
        self._exclusive = exclusive
        #: Until when (monotonic seconds) the children of a killed holder may take to end; 0 before one was met.
        self._wait_until = 0.0
        for _ in range(_TRIES_MAX):
            made = max(made, sum(not os.path.lexists(level) for level in levels))
            private_directory(self._directory)
            if self._open(made):
                break
        else:
            raise InputError(f"{self.path} was removed {_TRIES_MAX} times while it was being locked")
        before = os.pread(self._descriptor, _PID_AT - _MADE_AT, _MADE_AT).strip()
        made = max(made, int(before) if before.isdigit() else 0)
        #: Directories to remove with the lock if they are empty, the innermost first.
        self._made = levels[:made]
        os.ftruncate(self._descriptor, _MADE_AT)
        os.pwrite(self._descriptor, b"%02d\n%d\n" % (made, os.getpid()), _MADE_AT)
        self._keep_from_cleaners()

    def _open(self, made: int) -> bool:
        """Lock the file. False if it was missing, and is made now, or was removed meanwhile. Raises SiteInUse."""
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            _create(self.path, made)
            return False
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_EX if self._exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = (os.read(self._descriptor, 64).decode("ascii", "replace").split() or ["unknown"])[-1]
            os.close(self._descriptor)
            if self._is_ending(holder):
                time.sleep(_TRY_SECONDS)
                return False
            raise SiteInUse(
                f"the run directory {self._directory} is in use by a live site (pid {holder}); "
                "stop that one, or give this one another site.name or site.run_directory"
            ) from None
        if self._stands():
            return True
        os.close(self._descriptor)
        return False

    def _is_ending(self, holder: str) -> bool:
        """True if the holder was killed a moment ago: its children, which share the lock, are still ending."""
        if not holder.isdigit() or _lives(int(holder)):
            return False
        now = time.monotonic()
        self._wait_until = self._wait_until or now + _ENDING_SECONDS
        return now < self._wait_until

    def _stands(self) -> bool:
        """True if the file's name still leads to the locked file."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _keep_from_cleaners(self) -> None:
        """Lock the directory: systemd-tmpfiles leaves a directory in /tmp alone while somebody has a lock on it."""
        self._held_directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.flock(self._held_directory, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def release(self) -> None:
        """Unlock the directory. It is removed if no other role uses it and the site keeps no files."""
        with contextlib.suppress(OSError):
            # Only the last of several roles gets the exclusive lock; the others just lose theirs.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._stands():
                self.path.unlink()
                for draft in self._directory.glob(f".{_NAME}.*"):
                    draft.unlink(missing_ok=True)
        os.close(self._descriptor)
        os.close(self._held_directory)
        with contextlib.suppress(OSError):
            for level in self._made:
                level.rmdir()


def _lives(pid: int) -> bool:
    """False for a process that has ended, though its parent may not have been told."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def read_token(config: Config) -> str:
    """The token of the lock that this process or its supervisor holds; empty if there is none."""
    try:
        with (config.run_directory / _NAME).open("rb") as file:
            return file.read(_MADE_AT).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _create(path: Path, made: int) -> None:
    """Make the file with its token atomically, because several roles may be starting. Raises InputError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with contextlib.suppress(FileExistsError):
            draft.unlink(missing_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.write(descriptor, b"%s\n%02d\n" % (secrets.token_hex(_TOKEN_BYTES).encode(), made))
            os.close(descriptor)
            path.hardlink_to(draft)
    except FileNotFoundError:
        # A site that stopped has removed the directory.
        return
    except OSError as error:
        raise InputError(f"{path} cannot be made: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
