"""From a camera to its ring.

1. ``agent``: opens the source, reads frames, copies them into the ring; reconnects after a failure.
2. ``video_track``: writes access units; ``key_frames``: watches a stream's key frames.
3. ``clock``: time stamps that strictly increase. ``last_frame``: where they continue after a start.
4. ``sampler``: selects the frames under an fps limit.
5. ``ring_keeper``: puts a ring back that somebody removed.
6. ``report``: shows and logs the camera's state.
"""
