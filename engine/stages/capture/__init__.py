"""From a camera to its ring.

1. ``agent``: opens the source, reads frames, copies them into the ring; connects again after a failure.
2. ``clock``: time stamps that strictly increase. ``last_frame``: where they go on after a start.
3. ``sampler``: which frames an fps limit takes.
4. ``report``: what is shown and logged of the camera.
"""
