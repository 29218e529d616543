"""The limit of open files: raised to what a process needs, or reported as an error before it begins."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from engine.errors import InputError

if TYPE_CHECKING:
    from engine.config import Config

#: Files that a process needs besides its cameras: libraries while loading, sockets, logs, pages of shared memory.
FILES_MIN = 64
#: A writer maps each ring, and with it the status page of its camera's capture: two descriptors each. All other
#: processes need fewer.
FILES_PER_RING = 4
_FILES_PER_WRITER = 4


def files_needed(config: Config) -> int:
    """Most files that one process of a site has open."""
    return FILES_MIN + FILES_PER_RING * len(config.rings) + _FILES_PER_WRITER * config.writer.writers


def allow_files_if_possible(count: int) -> None:
    """Raise the limit of open files of this process to ``count``, or as near as the hard limit lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def allow_files(count: int, what: str) -> None:
    """Raise the limit of open files of this process and its children to at least ``count``.

    Raises InputError if the hard limit, which somebody has set on purpose, is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise InputError(
            f"{what} needs {count:,} open files and may have {hard:,}; raise the limit "
            "(ulimit -n; systemd: LimitNOFILE=; docker: --ulimit nofile=)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
