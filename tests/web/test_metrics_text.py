"""The text of metrics: whatever the values and labels are, the reference parsers read back what was given."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from engine.shm import histogram, publish_latency
from engine.shm.publish_latency import PublishLatency
from engine.shm.ring_file import RingCounts
from engine.web.metrics_histograms import captured_to_stored, stored_to_confirmed
from engine.web.metrics_text import Family, Histogram, Summary, labels_text, prefers_openmetrics, render

PARSERS = {"text": parse_text, "openmetrics": parse_openmetrics}
both_formats = pytest.mark.parametrize("form", PARSERS)

GAUGE = Family("edge_video_fill_ratio", "gauge", ("camera_id",), 'How full, "very" or \\ not.')
COUNTER = Family("edge_video_frames_total", "counter", ("camera_id",), "Frames.")
INFO = Family("edge_video_build_info", "info", ("version",), "1.")
SUMMARY = Family("edge_video_size_bytes", "summary", (), "Sizes.")
LATENCY = Family("edge_video_latency_seconds", "histogram", ("camera_id",), "Time.")

HOSTILE = ['a"b', "a\\", "a\\nb", "a\nb", '{a="b"} 1', "a,b", "#", "ü€😀", "\x00\x1b[31m", "\u2028", "\ud800", ""]


def parsed(form: str, *metrics):
    text = render(metrics, openmetrics=form == "openmetrics").decode()
    assert text.endswith("# EOF\n") == (form == "openmetrics")
    return list(PARSERS[form](text))


@both_formats
@pytest.mark.parametrize("camera", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_stays_in_its_label(form, camera):
    (family,) = parsed(form, (GAUGE, [(labels_text({"camera_id": camera}), 0.5), (labels_text({"camera_id": "x"}), 1)]))
    first, second = family.samples
    assert (first.value, second.labels, second.value) == (0.5, {"camera_id": "x"}, 1)
    assert list(first.labels) == ["camera_id"]
    if camera.isprintable() or camera == "a\nb":
        assert first.labels["camera_id"] == camera


@both_formats
@given(name=st.text(), value=st.one_of(st.integers(0, 2**64), st.floats()))
def test_any_name_and_value_are_read_back(form, name, value):
    (family,) = parsed(form, (GAUGE, [(labels_text({"camera_id": name}), value)]))
    (sample,) = family.samples
    assert float(sample.value) == float(value) or (math.isnan(value) and math.isnan(sample.value))


@both_formats
def test_each_kind_is_read_as_that_kind(form):
    found = parsed(
        form,
        (GAUGE, [('camera_id="a"', 1)]),
        (COUNTER, [('camera_id="a"', 2**53)]),
        (INFO, [('version="1"', 1)]),
        (SUMMARY, [("", Summary(3, 4.5))]),
        (LATENCY, [('camera_id="a"', Histogram(["0.1", "1.0"], [2, 3], 4, 2.5))]),
    )
    kinds = {metric.name: metric.type for metric in found}
    info = ("edge_video_build", "info") if form == "openmetrics" else ("edge_video_build_info", "gauge")
    assert kinds == {
        "edge_video_fill_ratio": "gauge",
        "edge_video_frames": "counter",
        info[0]: info[1],
        "edge_video_size_bytes": "summary",
        "edge_video_latency_seconds": "histogram",
    }
    assert [metric.documentation for metric in found] == [
        family.help for family in (GAUGE, COUNTER, INFO, SUMMARY, LATENCY)
    ]
    values = {(one.name, one.labels.get("le")): one.value for metric in found for one in metric.samples}
    assert values == {
        ("edge_video_fill_ratio", None): 1,
        ("edge_video_frames_total", None): 2**53,
        ("edge_video_build_info", None): 1,
        ("edge_video_size_bytes_count", None): 3,
        ("edge_video_size_bytes_sum", None): 4.5,
        ("edge_video_latency_seconds_bucket", "0.1"): 2,
        ("edge_video_latency_seconds_bucket", "1.0"): 3,
        ("edge_video_latency_seconds_bucket", "+Inf"): 4,
        ("edge_video_latency_seconds_count", None): 4,
        ("edge_video_latency_seconds_sum", None): 2.5,
    }


@both_formats
def test_a_family_without_samples_is_left_out(form):
    assert parsed(form, (GAUGE, []), (COUNTER, [])) == []


@pytest.mark.parametrize(
    ("accept", "preferred"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", True),
        ("application/openmetrics-text;q=0.3, text/plain;q=0.5", False),
        ("Application/OpenMetrics-Text; Q=1", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=nonsense", False),
        (";;;,,q=1", False),
    ],
)
def test_the_format_is_what_the_reader_prefers(accept, preferred):
    assert prefers_openmetrics(accept) is preferred


def ring(latencies: list[int], unknown: int = 0) -> RingCounts:
    counts = [0] * histogram.BUCKETS
    for latency in latencies:
        counts[histogram.bucket(latency)] += 1
    stored = len(latencies) + unknown
    return RingCounts(stored, 0, stored, 0, stored, 0, {}, 0, 0, 1, counts, sum(latencies), 0.0, 0)


@given(st.lists(st.integers(0, 2**33)), st.integers(0, 5))
def test_a_rings_latencies_are_each_below_exactly_the_bounds_that_exceed_them(latencies, unknown):
    found = captured_to_stored(ring(latencies, unknown))
    for bound, below in zip(found.bounds, found.below, strict=True):
        assert below == sum(latency < float(bound) * 1e6 for latency in latencies)
    assert found.samples == len(latencies) + unknown
    assert found.total == sum(latencies) / 1e6


@given(st.lists(st.integers(0, 10**12)), st.integers(0, 5))
def test_a_publishers_latencies_are_each_below_exactly_the_bounds_that_exceed_them(waits, unknown):
    counts = memoryview(bytearray(64 * 8)).cast("Q")
    publish_latency.count(counts, waits)
    found = stored_to_confirmed(publish_latency.read(counts)._replace(confirmed=len(waits) + unknown))
    for bound, below in zip(found.bounds, found.below, strict=True):
        assert below == sum(wait < round(float(bound) * 1e9) for wait in waits)
    assert found.samples == len(waits) + unknown


def test_damaged_counts_make_no_histogram_that_falls():
    found = stored_to_confirmed(PublishLatency(3, [5] * publish_latency.BUCKETS, 2**63))
    assert set(found.below) == {3}
    assert found.samples == 3
    damaged = ring([1, 2, 3])._replace(stored_total=1)
    assert set(captured_to_stored(damaged).below) == {1}
