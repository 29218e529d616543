"""Alerts: one process that looks at the site, and says when something is wrong.

1. ``facts``: what the rules judge, without what it was read from.
2. ``rules``: the table of rules, each a pure function of the facts.
3. ``hysteresis``: from measured values to raised and cleared alerts.
4. ``window``: counters over the last seconds; when a frame should have expired.
5. ``look``: collects the facts: status pages, rings, Redis, disks, clocks.
6. ``webhook``: posts alerts, in a thread.
7. ``agent``: the process.
"""
