"""One frame's journey, in travel order.

1. ``source``: where frames come from: cv2's streams, or test patterns (``pattern``).
2. ``capture``: stamps each frame (``clock``) and copies it once, into its camera's ring.
3. ``writer``: drains the rings and commits what Redis has acknowledged.
4. ``store``: the writer's connection: frames and journal entries, many a round trip.
5. ``journals``: the publisher's view of Redis: what is stored and not yet announced.
6. ``publisher``: turns journal entries into events and moves its cursor past the confirmed ones.
7. ``broker``: the publisher's connection: a window of persistent messages and their confirms.
"""
