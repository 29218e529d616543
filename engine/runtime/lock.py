"""Who may use a site's run directory: one supervisor, or any number of single roles, never both."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from engine.config import Config
from engine.errors import SiteInUse
from engine.shm.segment import private_directory


class SiteLock:
    """Holds the run directory for this process and its children. Raises SiteInUse with the pid of who has it."""

    def __init__(self, config: Config, *, exclusive: bool) -> None:
        directory = private_directory(config.run_directory)
        self.path: Path = directory / "site.lock"
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise SiteInUse(
                f"the run directory {directory} is in use by a live site (pid {holder}); "
                "stop that one, or give this one another site.name or site.run_directory"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let others have the directory. The file stays: removing it would race with who waits for its lock."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
