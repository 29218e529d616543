"""RabbitMQ.

1. ``broker``: a window of persistent messages and their confirms.
2. ``refusals``: the meanings of the broker's refusals.
3. ``probe``: examines a broker without changes.
"""
