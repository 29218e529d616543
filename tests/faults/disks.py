"""Small disks: memory file systems of a test's own."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

#: Mounting needs root; where the tests are not root, sudo is what ``make test`` installs packages with, too.
_SUDO = () if os.geteuid() == 0 else ("sudo", "-n")


@contextlib.contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """A disk of ``size`` (such as 8m) on ``directory``."""
    options = f"size={size},mode=700,uid={os.geteuid()},gid={os.getegid()}"
    subprocess.run([*_SUDO, "mount", "-t", "tmpfs", "-o", options, "edge-video-test", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run([*_SUDO, "umount", "--lazy", directory], check=True)


def resize(directory: Path, size: str) -> None:
    """Give the disk on ``directory`` another size."""
    subprocess.run([*_SUDO, "mount", "-o", f"remount,size={size}", directory], check=True)


def fill(directory: Path) -> Path:
    """Take all that is free; returns the file that holds it."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path
