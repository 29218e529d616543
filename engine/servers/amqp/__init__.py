"""RabbitMQ.

1. ``broker``: a window of persistent messages and their confirms.
2. ``refusals``: the meanings of the broker's refusals.
3. ``hosts``: which of several brokers is tried next.
4. ``check``: connects once, before a start.
5. ``probe``: examines a broker without changes.
"""
