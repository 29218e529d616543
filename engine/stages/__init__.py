"""One frame's journey, in travel order. Each stage is a process; each package lists its modules in travel order.

1. ``capture``: one process per camera. Stamps each frame and copies it once, into the camera's ring.
2. ``writer``: drains the rings into Redis, and commits what Redis has acknowledged.
3. ``publisher``: turns journal entries into events, and moves its cursor past the confirmed ones.
"""
