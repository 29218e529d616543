"""From the rings to Redis.

1. ``agent``: schedules. Polls the rings, frames a batch, sends it, commits what Redis has acknowledged.
2. ``open_rings``: the rings of this writer's cameras, opened when they appear and closed when they are gone.
3. ``rotation``: whose frames go next.
4. ``camera_writer``: one camera's way to Redis: its ring, its framing, and what became of each frame.
5. ``batch``: frames of several cameras: their bytes, and what the replies say of them.
6. ``store``: sends batches and receives replies. ``connection`` makes and remakes what it sends over;
   ``connection_state`` has the states and what leads from one to another.
7. ``reconcile``: what Redis still holds of what it acknowledged.
8. ``journal_trim``: when journal entries may go.
9. ``states``, ``marks``, ``leases``: what else the writer keeps in Redis for its cameras.
"""
