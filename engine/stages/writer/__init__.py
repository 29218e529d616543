"""From the rings to Redis.

1. ``agent``: schedules. Polls the rings, frames a batch, sends it, commits acknowledged frames.
2. ``open_rings``: the rings of this writer's cameras, opened when they appear and closed when they are gone.
3. ``rotation``: selects the cameras whose frames are sent next.
4. ``camera_writer``: one camera's path to Redis: its ring, its framing, and the fate of each frame.
5. ``batch``: frames of several cameras: their bytes, and the meaning of the replies.
6. ``store``: sends batches and receives replies. ``connection`` connects and reconnects it;
   ``connection_state`` has the states and their transitions.
7. ``reconcile``: checks which acknowledged frames Redis still holds.
8. ``journal_trim``: decides when journal entries may be trimmed.
9. ``states``, ``marks``, ``leases``, ``site_name``: other data that the writer keeps in Redis, for its cameras and its
   site.
"""
