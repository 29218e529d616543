"""Watch a camera live and report movement: watch_camera.py SITE_FILE CAMERA

Compares each frame with the one before, as small grey pictures, and prints how much has changed.
"""

import sys

import cv2
import numpy as np

from engine import FrameStore

SMALL = (64, 36)
#: Mean difference of grey values, of 255, that counts as movement.
THRESHOLD = 2.0


def main() -> None:
    site_file, camera = sys.argv[1:]
    before = None
    with FrameStore.from_site(site_file) as store:
        for frame in store.tail(camera):  # never ends
            grey = cv2.cvtColor(frame.image(), cv2.COLOR_BGR2GRAY)
            small = cv2.resize(grey, SMALL, interpolation=cv2.INTER_AREA).astype(np.float32)
            if before is not None:
                change = float(np.abs(small - before).mean())
                moves = "movement" if change > THRESHOLD else ""
                print(f"{frame.timestamp:%H:%M:%S.%f} {frame.sequence:05d} {change:5.1f} {moves}", flush=True)
            before = small


try:
    main()
except KeyboardInterrupt:
    print("stopped", file=sys.stderr)
