"""Why a file or a device did not open."""

from __future__ import annotations

import os
from pathlib import Path

from engine.wire import urls


def unreadable(path: Path) -> str:
    """Why a file or device did not open."""
    shown = urls.mask(str(path))
    if path.is_dir():
        return f"{shown} is a directory; give the path of a video"
    if not path.exists():
        return f"there is no {shown}; correct the path, and look whether the device is plugged in"
    if not os.access(path, os.R_OK):
        return f"no permission to read {shown}; give it to user {os.geteuid()} (a device's group is often video)"
    if path.is_char_device():
        return f"{shown} is in use, or no camera; look at what else has it open"
    return f"{shown} is not a video that can be read; open it with ffplay"
