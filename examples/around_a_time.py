"""Fetch what all cameras saw around a moment: around_a_time.py SITE_FILE TIME SECONDS DIRECTORY

TIME is RFC 3339, such as 2026-11-24T14:30:00Z, or an offset from now, such as -30s. Writes at most two frames a second
and camera.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from engine import FrameStore


def main() -> None:
    site_file, when, seconds, directory = sys.argv[1:]
    if when.startswith("-"):
        moment = datetime.now(UTC) - timedelta(seconds=float(when.strip("-s")))
    else:
        moment = datetime.fromisoformat(when)
    half = timedelta(seconds=float(seconds))
    with FrameStore.from_site(site_file) as store:
        for camera in store.cameras():
            folder = Path(directory) / camera
            folder.mkdir(parents=True, exist_ok=True)
            frames = store.range(camera, moment - half, moment + half, step="500ms")
            for frame in frames:
                (folder / f"{frame.unix_nano}.jpg").write_bytes(frame.data)
            print(f"{camera}: {len(list(folder.iterdir()))} frames in {folder}, {frames.missing} more have expired")


main()
