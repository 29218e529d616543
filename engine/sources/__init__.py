"""Where frames come from. ``VideoSource`` and ``PatternSource`` offer the same methods to capture.

1. ``video``: everything that cv2 opens.
2. ``pattern``: test patterns.
3. ``check``: asks a camera that did not open why. ``failures`` puts it into words.
"""
