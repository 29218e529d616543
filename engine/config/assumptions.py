"""What is assumed of a camera that was neither configured nor observed. Memory and CPU are estimated with the same
figures, and ``check`` and ``doctor`` say which cameras they stand for."""

from __future__ import annotations

#: Frames a second that a camera sends.
FPS = 25.0
#: Pixels of a picture: 720p.
PIXELS = 1280 * 720
#: Bytes a second of H.264 or H.265, and seconds between its key frames.
VIDEO_BYTES = 4_000_000 / 8
KEY_SECONDS = 2.0
