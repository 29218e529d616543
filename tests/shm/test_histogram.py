from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.shm.histogram import BUCKETS, bucket, merge, percentile, upper_bound
from engine.wire.ring_layout import HISTOGRAM_BUCKETS
from tests.examples import examples

#: The largest latency that does not fall into the bucket for all beyond.
LONGEST = upper_bound(BUCKETS - 2)
latencies = st.integers(0, LONGEST) | st.integers(0, 5000) | st.integers(0, 40).map(lambda bits: 1 << bits)


def histogram(samples):
    counts = [0] * BUCKETS
    for sample in samples:
        counts[bucket(sample)] += 1
    return counts


def test_the_ring_has_room_for_every_bucket():
    assert HISTOGRAM_BUCKETS == BUCKETS


def test_each_bucket_ends_where_the_next_begins():
    for index in range(BUCKETS - 1):
        assert bucket(upper_bound(index)) == index
        assert bucket(upper_bound(index) + 1) == index + 1


def test_every_small_latency_is_counted_within_its_bucket():
    for latency in range(20_000):
        index = bucket(latency)
        assert latency <= upper_bound(index)
        assert index == 0 or latency > upper_bound(index - 1)


@pytest.mark.slow
@settings(max_examples=examples(300), deadline=None)
@given(latencies.filter(lambda latency: latency <= LONGEST))
def test_a_bucket_is_at_most_a_quarter_wider_than_what_it_counts(latency):
    assert latency <= upper_bound(bucket(latency)) <= max(latency * 1.25, latency + 1)


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(-(2**63), 2**64))
def test_every_number_has_a_bucket(latency):
    assert 0 <= bucket(latency) < BUCKETS


def test_an_hour_is_still_counted_apart_from_all_beyond():
    assert bucket(3_600_000_000) < BUCKETS - 1
    assert bucket(-5) == 0


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(latencies.filter(lambda x: x <= LONGEST), min_size=1, max_size=60), st.floats(0, 1))
def test_a_percentile_is_that_of_the_sorted_list_to_the_end_of_its_bucket(samples, share):
    exact = sorted(samples)[max(math.ceil(share * len(samples)) - 1, 0)]
    assert percentile(histogram(samples), share) == upper_bound(bucket(exact)) / 1000


def test_no_samples_have_no_latency():
    assert percentile([0] * BUCKETS, 0.5) == 0.0


@pytest.mark.parametrize(("share", "expected"), [(0.5, 1.023), (0.99, 1.023), (0.999, 10.239), (1.0, 10.239)])
def test_percentiles_are_milliseconds(share, expected):
    assert percentile(histogram([1000] * 995 + [10_000] * 5), share) == expected


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.lists(latencies, max_size=10), max_size=4))
def test_merging_is_counting_all_samples_together(parts):
    assert merge(map(histogram, parts)) == histogram([sample for part in parts for sample in part])
