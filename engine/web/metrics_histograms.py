"""The latency histograms of rings and of the publisher, in the buckets that metrics show.

The bounds shown are bounds of the engine's own buckets, so nothing is estimated. A frame that is counted as stored (an
event as confirmed) and whose latency is unknown is above all bounds: in ``+Inf`` and in the count, not in the sum. Such
are the last few before a kill of the writer or publisher, and frames that were found stored after an outage.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from engine.shm import histogram, publish_latency
from engine.shm.publish_latency import PublishLatency
from engine.shm.ring_file import RingCounts
from engine.web.metrics_text import Histogram

#: Bounds of the latency from captured to stored, in microseconds: every octave from a quarter of a millisecond to 17 s,
#: and every second one up to 4.5 minutes.
_CAPTURE_US = (*(256 << step for step in range(17)), 2**26, 2**28)


def _seconds(microseconds: int) -> str:
    return repr(microseconds / 1_000_000)


#: For each bound, how many buckets of a ring lie below it.
_RING_ENDS = [
    bisect_left(range(histogram.BUCKETS), bound, key=lambda index: histogram.upper_bound(index) + 1) + 1
    for bound in _CAPTURE_US
]
assert all(histogram.upper_bound(end - 1) + 1 == bound for bound, end in zip(_CAPTURE_US, _RING_ENDS, strict=True)), (
    "each bound is one of a ring's"
)
_CAPTURE_BOUNDS = [_seconds(bound) for bound in _CAPTURE_US]
_PUBLISH_BOUNDS = [_seconds(bound) for bound in publish_latency.BOUNDS_US]


def captured_to_stored(ring: RingCounts) -> Histogram:
    """The latencies of the frames, or access units, that one ring's consumer has stored."""
    below = list(accumulate(ring.latency, initial=0))
    shown = [below[end] for end in _RING_ENDS]
    return Histogram(_CAPTURE_BOUNDS, *_sound(shown, ring.stored_total), ring.latency_sum_us / 1_000_000)


def stored_to_confirmed(found: PublishLatency) -> Histogram:
    """The latencies of the publisher's events."""
    shown = list(accumulate(found.buckets[:-1]))
    return Histogram(_PUBLISH_BOUNDS, *_sound(shown, found.confirmed), found.sum_us / 1_000_000)


def _sound(below: Sequence[int], count: int) -> tuple[Sequence[int], int]:
    """Shared memory can be damaged, and an older engine counted some latencies twice: no bucket exceeds the count."""
    return (below, count) if below[-1] <= count else ([min(one, count) for one in below], count)
