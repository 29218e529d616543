"""From a camera to its ring.

1. ``agent``: opens the source, reads frames, copies them into the ring; reconnects after a failure.
2. ``clock``: time stamps that strictly increase. ``last_frame``: where they continue after a start.
3. ``sampler``: selects the frames under an fps limit.
4. ``report``: shows and logs the camera's state.
"""
