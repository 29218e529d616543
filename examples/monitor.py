"""Check that every camera delivers: monitor.py SITE_FILE [MAX_AGE_SECONDS]

Prints the rate of the last ten seconds and the age of the newest frame of each camera. Exit code 1: one is older than
MAX_AGE_SECONDS (10), or has no frame. For cron, Nagios and the like.
"""

import sys
import time

from engine import FrameStore

WINDOW_SECONDS = 10


def main() -> int:
    site_file, *rest = sys.argv[1:]
    age_max = float(rest[0]) if rest else 10.0
    late = 0
    with FrameStore.from_site(site_file) as store:
        newest = store.snapshot()
        for camera, status in store.cameras().items():
            frame = newest.get(camera)
            age = time.time() - frame.unix_nano / 1e9 if frame else float("inf")
            fps = store.count(camera, f"-{WINDOW_SECONDS}s") / WINDOW_SECONDS
            late += age > age_max
            print(f"{camera}: {fps:.1f} fps, newest {age:.1f} s old{' LATE' if age > age_max else ''}")
            if status.last_error:
                print(f"  {status.last_error}")
    return 1 if late else 0


sys.exit(main())
