"""The file of the site's alerts in its directory of shared memory. The monitor replaces it; any process may read it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from engine.errors import WireError
from engine.shm.site import SitePaths
from engine.wire.alert import FILE_BYTES_MAX, AlertState, decode_states, encode_states


def write(paths: SitePaths, states: Sequence[AlertState]) -> None:
    """Replace the file at once, so that a reader never sees half of it. Raises OSError if there is no room."""
    draft = paths.alerts.with_name(f".{paths.alerts.name}")
    draft.unlink(missing_ok=True)
    try:
        with open(draft, "xb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600)) as file:
            file.write(encode_states(states))
        draft.replace(paths.alerts)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def read(paths: SitePaths) -> list[AlertState]:
    """The newest state of each alert; empty without a valid file."""
    with contextlib.suppress(OSError, WireError):
        descriptor = os.open(paths.alerts, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
        return decode_states(text) if len(text) <= FILE_BYTES_MAX else []
    return []


class AlertsReader:
    """Reads the file again only if it was replaced."""

    def __init__(self, paths: SitePaths) -> None:
        self._paths = paths
        self._seen: tuple[int, int, int] | None = None
        self._states: list[AlertState] = []

    def states(self) -> list[AlertState]:
        """As ``read``."""
        try:
            status = self._paths.alerts.lstat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        except OSError:
            seen = None
        if seen != self._seen:
            self._seen = seen
            self._states = read(self._paths) if seen else []
        return self._states
