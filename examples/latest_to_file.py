"""Write the newest frame of a camera to a JPEG file: latest_to_file.py SITE_FILE CAMERA FILE

Run it from cron for a picture a minute. Exit code 1: the camera has no frame.
"""

import sys
from pathlib import Path

from engine import FrameStore


def main() -> int:
    site_file, camera, file = sys.argv[1:]
    with FrameStore.from_site(site_file) as store:
        frame = store.latest(camera)
    if frame is None:
        print(f"{camera} has no frame", file=sys.stderr)
        return 1
    Path(file).write_bytes(frame.data)
    print(f"{file}: {frame.timestamp:%H:%M:%S}, {frame.width}x{frame.height}, {frame.size} bytes")
    return 0


sys.exit(main())
