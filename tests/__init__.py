"""Tests of the engine. The environment is set here, before anything that reads it is imported."""

import os

# cv2 is loaded by the tests as the command line loads it: quiet.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
# Servers named in the machine's own environment must not become those of the sites under test.
# Nor may its terminal be the width of what commands print.
for _name in ("REDIS_ADDRESS", "REDIS_USERNAME", "REDIS_PASSWORD", "AMQP_URL", "COLUMNS", "LINES"):
    os.environ.pop(_name, None)
