"""React to events: keep a picture of each camera, at most one a second: on_event.py SITE_FILE DIRECTORY

The queue "pictures" collects events while this script is away. Several copies of it share the work.
"""

import sys
from pathlib import Path

from engine import FrameConsumer

NANOS_PER_SECOND = 10**9
kept: dict[str, int] = {}


def on_frame(event, frame):
    """Called for each stored frame; ``frame`` is None where it has expired meanwhile."""
    second = event.timestamp_nano // NANOS_PER_SECOND
    if frame is None or kept.get(event.camera_id) == second:
        return
    (Path(sys.argv[2]) / f"{event.camera_id}-{second}.jpg").write_bytes(frame.data)
    kept[event.camera_id] = second
    print(f"{event.camera_id} {event.timestamp} {event.width}x{event.height}", flush=True)


def on_status(event):
    """Called when a camera's state changes."""
    print(f"{event.camera_id} is {event.state}: {event.last_error or 'all well'}", flush=True)


Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
consumer = FrameConsumer.from_site(sys.argv[1], on_frame, queue="pictures", on_status=on_status)
consumer.run()  # until Ctrl-C or SIGTERM
