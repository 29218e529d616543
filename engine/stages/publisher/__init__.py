"""From the journals to RabbitMQ.

1. ``agent``: reads the journals, publishes, saves the cursors.
2. ``journals``, ``reads``: the connection to Redis: unannounced entries, and the cursors.
3. ``accounts``, ``account``: the served cameras, and how far each journal is read, announced and expired.
   ``remembered``: served cameras that only the last publisher knew.
4. ``entry_queue``: entries that are read but not yet sent. ``arrivals``: since when they are stored.
5. ``gops``, ``gop_assembly``: finished GOPs of stored video, from journals and accounts of their own.
6. ``state_events``: changes of the cameras' states.
7. ``booking``: counts that a kill neither loses nor doubles.
"""
