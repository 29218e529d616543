"""Finds a site of the same name in another run directory, most likely another user's, as far as this user may see it.

Its directory in shared memory is closed to others, but the directory's name and owner are visible. The name contains a
checksum of the site's run directory, which shows whether that is the owner's default one.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
from pathlib import Path
from typing import NamedTuple

import msgspec

from engine.config import Config, default_run_directory
from engine.runtime.roles import SUPERVISOR
from engine.shm.site import SitePaths, directory_name

#: The beginning of titles of the engine's processes (``engine/runtime/title.py``).
_TITLE = "edge-video"


class Elsewhere(msgspec.Struct, frozen=True):
    """A site that runs. ``pid`` is 0 and ``run_directory`` is empty if unknown."""

    user: str
    pid: int
    run_directory: str

    def __str__(self) -> str:
        pid = f", pid {self.pid}" if self.pid else ""
        place = f", in {self.run_directory}" if self.run_directory else ""
        own = self.user == _user_name(os.geteuid())
        advice = "ask with a site.run_directory that leads there" if own else "ask as that user"
        return f"runs as user {self.user}{pid}{place}; {advice}"


class _Process(NamedTuple):
    pid: int
    title: str


def find(config: Config) -> Elsewhere | None:
    """A running site of this name that is not the one of ``config`` and this user. Raises nothing."""
    own = SitePaths.of(config).directory
    name = config.site.name
    for directory in sorted(Path(config.ring.directory).glob(f"edge-video-{name}-????????")):
        with contextlib.suppress(OSError):
            user = directory.stat().st_uid
            if directory == own and user == os.geteuid():
                continue
            process = _process_of(directory, user, name)
            if process:
                return Elsewhere(_user_name(user), process, _run_directory(config, directory, user))
    return None


def _process_of(directory: Path, user: int, name: str) -> int:
    """A process of the site, its supervisor if there is one; 0 if none runs."""
    running = _processes(user)
    with contextlib.suppress(OSError):
        # Root may look inside: every process of the site holds a lock on its status page.
        pages = {path.stat().st_ino for path in directory.iterdir()}
        locked = {int(pid) for pid, inode in _locks() if int(inode) in pages}
        running = [process for process in running if process.pid in locked]
    running = [process for process in running if f": {name}: " in process.title]
    supervisors = [process for process in running if SUPERVISOR.name in process.title]
    return (supervisors or running)[0].pid if running else 0


def _processes(user: int) -> list[_Process]:
    # Only a site that does not run is looked for, so status starts faster without it.
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline())
            if title.startswith(_TITLE) and process.uids().real == user:
                found.append(_Process(process.pid, title))
    return found


def _locks() -> list[tuple[str, str]]:
    """(pid, inode) of every flock on the machine that this process may see."""
    return re.findall(r"FLOCK\s.*\s(\d+)\s+\w+:\w+:(\d+)\s", Path("/proc/locks").read_text())


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _run_directory(config: Config, directory: Path, user: int) -> str:
    """The run directory whose checksum is in the name of ``directory``; empty if it is not a known one."""
    name = config.site.name
    for candidate in (default_run_directory(name, user), config.run_directory):
        if directory.name == directory_name(name, candidate):
            return str(candidate)
    return ""
