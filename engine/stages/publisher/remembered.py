"""The cameras that a publisher serves though its site file does not name them, for its successor: a file beside the
rings. After a ring is gone, nothing else names its camera.

With another number of publishers, the successor of a camera may be another publisher. So each reads the files of all,
and keeps the names of others' cameras in its own file until they are in the file of the publisher that serves them.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from engine.config import Config
from engine.shm.site import SitePaths


class Remembered:
    """The names in the file of the publisher ``number``. A file that cannot be read or written counts as empty."""

    def __init__(self, config: Config, number: int, *, video: bool) -> None:
        self._config = config
        self._number = number
        self._video = video
        self._paths = SitePaths.of(config)
        self._path = self._paths.served(number, video=video)
        self._saved: list[str] | None = None

    def names(self) -> list[str]:
        """The cameras of this publisher that any publisher saved."""
        files = self._paths.all_served(video=self._video)
        found = dict.fromkeys(name for path in files for name in _read(path))
        return [name for name in found if self._config.publisher_of(name) == self._number]

    def save(self, names: Iterable[str]) -> None:
        """Save the names for the next publisher, if they have changed."""
        wanted = sorted({*names, *self._of_others()})
        if wanted == self._saved:
            return
        draft = self._path.with_name(f".{self._path.name}")
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
            with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(json.dumps(wanted).encode())
            draft.replace(self._path)
            self._saved = wanted

    def _of_others(self) -> list[str]:
        """Names in this publisher's file whose cameras another publisher serves, and has not saved yet."""
        left = []
        for name in _read(self._path):
            server = self._config.publisher_of(name)
            if server != self._number and name not in _read(self._paths.served(server, video=self._video)):
                left.append(name)
        return left


def _read(path: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        names = json.loads(path.read_bytes())
        if isinstance(names, list):
            return [name for name in names if isinstance(name, str) and name]
    return []
