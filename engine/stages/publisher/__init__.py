"""From the journals to RabbitMQ.

1. ``agent``: reads the journals, publishes, saves the cursors.
2. ``journals``: the connection to Redis: entries that are not announced yet, and the cursors.
3. ``accounts``, ``account``: which cameras are served, and how far each journal is read, announced and expired.
4. ``entry_queue``: entries between their reading and their confirm.
5. ``booking``: counts that a kill neither loses nor doubles.
"""
