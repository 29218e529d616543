"""From the rings to Redis.

1. ``agent``: polls the rings, sends a batch, commits what Redis has acknowledged.
2. ``open_rings``: the rings of this writer's cameras, opened when they appear and closed when they are gone.
3. ``camera_writer``: one camera's way to Redis: its ring, its framing, and what is in doubt.
4. ``store``: the connection: frames and journal entries, many a round trip. ``attempt`` makes it.
5. ``reconcile``: what Redis still holds of what it acknowledged.
6. ``journal_trim``: when journal entries may go.
7. ``states``, ``marks``, ``leases``: what else the writer keeps in Redis for its cameras.
"""
