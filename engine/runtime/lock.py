"""Who may use a site's run directory: one supervisor, or any number of single roles, never both.

The lock's file holds a random token, which lasts as long as the file does, how many directories had to be made for it,
and the process id of who locked it last. The last process to unlock it removes it, and those directories, if they are
empty. So a process that locks it may have locked a file that is gone: the name must still lead to that file, or all
begins again. The token is what a killed site is known by when it is started again (``engine/stages/writer/leases.py``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path

from engine.config import Config
from engine.errors import InputError, SiteInUse
from engine.shm.segment import private_directory

_NAME = "site.lock"
_TOKEN_BYTES = 8
#: Where the lines of the file begin: the token's hexadecimal digits, the directories' two decimal ones, the process id.
_MADE_AT = 2 * _TOKEN_BYTES + 1
_PID_AT = _MADE_AT + 3
#: Times that the file is opened anew, where those before it were removed meanwhile.
_TRIES_MAX = 100


class SiteLock:
    """Holds the run directory for this process and its children. Raises SiteInUse with the pid of who has it."""

    def __init__(self, config: Config, *, exclusive: bool) -> None:
        self._directory = config.run_directory
        self.path: Path = self._directory / _NAME
        levels = (self._directory, *self._directory.parents)
        # Those of the default place are the engine's, even if an earlier start made them.
        made = 0 if config.site.run_directory else 2
        self._exclusive = exclusive
        for _ in range(_TRIES_MAX):
            made = max(made, sum(not os.path.lexists(level) for level in levels))
            private_directory(self._directory)
            if self._open(made):
                break
        else:
            raise InputError(f"{self.path} was removed {_TRIES_MAX} times while it was being locked")
        before = os.pread(self._descriptor, _PID_AT - _MADE_AT, _MADE_AT).strip()
        made = max(made, int(before) if before.isdigit() else 0)
        #: Directories that go with the lock, if they are empty, the innermost first.
        self._made = levels[:made]
        os.ftruncate(self._descriptor, _MADE_AT)
        os.pwrite(self._descriptor, b"%02d\n%d\n" % (made, os.getpid()), _MADE_AT)
        self._keep_from_cleaners()

    def _open(self, made: int) -> bool:
        """Lock the file, made where it is missing; False where it was removed meanwhile. Raises SiteInUse."""
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
            raise SiteInUse(
                f"the run directory {self._directory} is in use by a live site (pid {holder}); "
                "stop that one, or give this one another site.name or site.run_directory"
            ) from None
        if self._stands():
            return True
        os.close(self._descriptor)
        return False

    def _stands(self) -> bool:
        """True where the file's name still leads to the file that is locked."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _keep_from_cleaners(self) -> None:
        """systemd-tmpfiles leaves a directory in /tmp alone for as long as somebody has a lock on it."""
        self._held_directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.flock(self._held_directory, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def release(self) -> None:
        """Let others have the directory. Nothing of it is left, if no other role has it and the site keeps no files."""
        with contextlib.suppress(OSError):
            # Of several roles the last one gets the exclusive lock; for the others it is the end of theirs.
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


def read_token(config: Config) -> str:
    """The token of the lock that this process, or its supervisor, holds; empty where none is held."""
    try:
        with (config.run_directory / _NAME).open("rb") as file:
            return file.read(_MADE_AT).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _create(path: Path, made: int) -> None:
    """Make the file with a token in it, all at once: several roles may be starting. Raises InputError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with contextlib.suppress(FileExistsError):
            draft.unlink(missing_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.write(descriptor, b"%s\n%02d\n" % (secrets.token_hex(_TOKEN_BYTES).encode(), made))
            os.close(descriptor)
            path.hardlink_to(draft)
    except FileNotFoundError:
        # The directory was removed by a site that stopped.
        return
    except OSError as error:
        raise InputError(f"{path} cannot be made: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
