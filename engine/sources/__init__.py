"""Where frames come from.

1. ``choose``: which source a camera has.
2. ``source``: what every source offers to capture.
3. ``video``: everything that cv2 opens. ``pattern``: test patterns.
4. ``check``: why a camera did not open; ``camera_request`` asks it.
5. ``failures``: what is worth saying of a camera that fails.
"""
