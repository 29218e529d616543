"""The cameras that a publisher serves though its site file does not name them, for its successor: a file beside the
rings. After a ring is gone, nothing else names its camera."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path


class Remembered:
    """The names in the file at ``path``. A file that cannot be read or written counts as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved: list[str] | None = None

    def names(self) -> list[str]:
        """The names that the last publisher saved."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            names = json.loads(self._path.read_bytes())
            if isinstance(names, list):
                return [name for name in names if isinstance(name, str) and name]
        return []

    def save(self, names: Iterable[str]) -> None:
        """Save the names for the next publisher, if they have changed."""
        wanted = sorted(names)
        if wanted == self._saved:
            return
        draft = self._path.with_name(f".{self._path.name}")
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
            with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(json.dumps(wanted).encode())
            draft.replace(self._path)
            self._saved = wanted
