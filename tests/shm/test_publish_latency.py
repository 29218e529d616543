"""The publisher's latency histogram: each event once, in its latency's bucket, whose bounds rings have too."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.shm import histogram, publish_latency
from engine.shm.publish_latency import BOUNDS_US, BUCKETS
from engine.shm.status_page import PublisherCount

waits = st.integers(0, 10**12)


def page() -> memoryview:
    return memoryview(bytearray(64 * 8)).cast("Q")


@pytest.mark.parametrize(
    ("microseconds", "bucket"), [(0, 0), (127, 0), (128, 1), (191, 1), (192, 2), (201_326_592, 42)]
)
def test_a_bucket_begins_at_its_bound(microseconds, bucket):
    counts = page()
    publish_latency.count(counts, [microseconds * 1000])
    found = publish_latency.read(counts).buckets
    assert [index for index, events in enumerate(found) if events] == [bucket]


def test_two_buckets_an_octave_whose_bounds_are_also_those_of_rings():
    assert all(fine == coarse * 2 for coarse, fine in itertools.pairwise(BOUNDS_US[::2]))
    assert len(BOUNDS_US) == BUCKETS - 1
    rings = {histogram.upper_bound(index) + 1 for index in range(histogram.BUCKETS)}
    assert set(BOUNDS_US) <= rings


@given(st.lists(st.lists(waits, max_size=40), max_size=5))
def test_every_event_is_in_one_bucket_and_its_latency_in_the_sum(rounds):
    """However many come at a time."""
    counts, one_by_one = page(), page()
    for events in rounds:
        publish_latency.count(counts, events)
        for wait in events:
            publish_latency.count(one_by_one, [wait])
    found = publish_latency.read(counts)
    every = [wait for events in rounds for wait in events]
    assert found.buckets == publish_latency.read(one_by_one).buckets
    assert sum(found.buckets) == len(every)
    # A part of a microsecond is left out each time.
    assert sum(every) / 1000 - len(rounds) <= found.sum_us <= sum(every) / 1000


def test_no_other_count_of_the_page_is_touched():
    counts = page()
    publish_latency.count(counts, [0, 10**6, 10**9, 10**12])
    others = [count for count in PublisherCount if count < PublisherCount.LATENCY_SUM_US]
    assert not any(counts[count] for count in others)
    assert publish_latency.read(counts).confirmed == 0
