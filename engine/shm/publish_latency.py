"""The latency histogram on the publisher's status page: from stored to confirmed by RabbitMQ, two buckets an octave.

The buckets are pairs of those of a ring's histogram (``engine/shm/histogram.py``), so both have common bounds.
Latencies below 128 µs and of 201 s or more have a bucket each. One call counts the events of many messages. It costs
0.1 to 0.3 µs an event, where an event costs the publisher 60 µs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from engine.shm.status_page import PublisherCount

#: The bounds between buckets, in microseconds: 128, 192, 256, 384 and so on. A bucket counts latencies of at least the
#: bound before it and of less than the one behind it.
BOUNDS_US = tuple((2 + step) << octave for octave in range(6, 27) for step in (0, 1))
BUCKETS = len(BOUNDS_US) + 1
#: The words of the buckets.
_FIRST = PublisherCount.LATENCIES
_END = _FIRST + BUCKETS
assert _END <= 64, "a status page has 64 counts"
#: Of so few events, adding them one by one costs less than counting equal ones first.
_FEW = 16
_BOUNDS_NANO = [bound * 1000 for bound in BOUNDS_US]


class PublishLatency(NamedTuple):
    """Confirmed events: how many, by bucket, and the sum of their latencies in microseconds.

    ``buckets`` counts those of known latency: all but the events of one round before a kill of the publisher.
    """

    confirmed: int
    buckets: list[int]
    sum_us: int


def count(counts: memoryview, waits_nano: Iterable[int]) -> None:
    """Add one event for each of ``waits_nano``, its latency in nanoseconds. Call it after they are counted as
    confirmed, so that the histogram never counts more events than are."""
    waits = list(waits_nano)
    buckets = [bisect_right(_BOUNDS_NANO, wait) for wait in waits]
    if len(buckets) <= _FEW:
        for bucket in buckets:
            counts[_FIRST + bucket] += 1
    else:
        for bucket, events in Counter(buckets).items():
            counts[_FIRST + bucket] += events
    counts[PublisherCount.LATENCY_SUM_US] += max(sum(waits), 0) // 1000


def read(counts: memoryview) -> PublishLatency:
    """The histogram on a publisher's status page."""
    # Load the histogram before the count of confirmed events, which is stored first.
    buckets = counts[_FIRST:_END].tolist()
    sum_us = counts[PublisherCount.LATENCY_SUM_US]
    return PublishLatency(counts[PublisherCount.CONFIRMED], buckets, sum_us)


def together(found: Sequence[PublishLatency]) -> PublishLatency:
    """The histogram of several publishers; ``found`` is not empty."""
    buckets = [sum(counts) for counts in zip(*(one.buckets for one in found), strict=True)]
    return PublishLatency(sum(one.confirmed for one in found), buckets, sum(one.sum_us for one in found))
