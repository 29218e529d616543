"""The sources of frames.

1. ``choose``: selects a camera's source.
2. ``source``: the interface of every source.
3. ``video``: streams, files and devices that cv2 opens. ``pattern``: test patterns.
4. ``check``: finds out why a camera did not open; ``camera_request`` sends the request.
5. ``failures``: decides which failures of a camera are logged.
"""
