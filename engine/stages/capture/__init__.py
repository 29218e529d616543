"""From a camera to its ring.

1. ``agent``: opens the source, reads frames, copies them into the ring; connects again after a failure.
2. ``clock``: time stamps that strictly increase.
"""
