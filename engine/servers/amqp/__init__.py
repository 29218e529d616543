"""RabbitMQ.

1. ``broker``: a window of persistent messages and their confirms.
2. ``refusals``: what the broker's refusals mean.
3. ``probe``: looks at a broker and changes nothing.
"""
