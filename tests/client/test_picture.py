"""Frames decoded, and the chart of their rate."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.client.chart import CHART_SIZE, rate_chart
from engine.client.picture import decode
from engine.client.stats import Bucket
from engine.errors import WireError
from engine.wire.rfc3339 import NANO, parse_rfc3339
from tests.wire import pictures


def buckets(*frames: int, length: int = 60 * NANO, begin: str = "2024-11-08T14:30:00Z") -> list[Bucket]:
    first = parse_rfc3339(begin)
    return [Bucket(first + number * length, count, count * 1000, 1000.0) for number, count in enumerate(frames)]


def drawn(png: bytes) -> NDArray[np.uint8]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    picture = pictures.decode(png)
    assert picture.shape == CHART_SIZE[::-1], "grey, and of the size that is promised"
    return picture


def bar_heights(picture: NDArray[np.uint8], count: int) -> list[int]:
    """Height in pixels of each of so many bars, measured in the middle of its place."""
    left, right = 90, CHART_SIZE[0] - 30
    return [
        int((picture[:, left + (2 * number + 1) * (right - left) // (2 * count)] == 96).sum())
        for number in range(count)
    ]


def test_bars_are_as_high_as_their_buckets_are_full():
    heights = bar_heights(drawn(rate_chart(buckets(10, 20, 0, 5), "cam1")), 4)
    assert heights[2] == 0
    assert heights[0] == pytest.approx(heights[1] / 2, abs=2)
    assert heights[3] == pytest.approx(heights[1] / 4, abs=2)
    # The scale ends at a round number that is not far above the fullest.
    assert heights[1] > 300


def test_a_gap_is_seen_among_very_many_buckets():
    counts = [30] * 50_000
    counts[20_000:30_000] = [0] * 10_000
    heights = bar_heights(drawn(rate_chart(buckets(*counts), "cam1")), 5)
    assert heights[2] == 0
    assert min(heights[0], heights[1], heights[3], heights[4]) > 300


@pytest.mark.parametrize(
    ("counts", "length"),
    [((1,), NANO), ((0, 0), NANO), ((3, 1), 1), ((10**9, 7), 86_400 * NANO), ((1,) * 400, 366 * 86_400 * NANO)],
)
def test_any_counts_and_spans_make_a_chart(counts, length):
    drawn(rate_chart(buckets(*counts, length=length, begin="1970-01-01T00:00:00Z"), "câmara 2 日本"))


def test_title_and_labels_are_there():
    plain = drawn(rate_chart(buckets(1, 2, 3), ""))
    titled = drawn(rate_chart(buckets(1, 2, 3), "cam1: frames per 1m"))
    assert (plain[:45] == 255).all()
    assert (titled[:45] < 128).any()
    assert (plain[415:435] < 128).any(), "times below the axis"
    assert (plain[50:400, 40:80] < 128).any(), "numbers left of the axis"
    assert (plain[50:400, 5:25] < 128).any(), "what the numbers are"


def test_no_buckets_no_chart():
    with pytest.raises(ValueError, match="no buckets"):
        rate_chart([], "cam1")


def test_decode_refuses_what_is_no_picture():
    assert decode(pictures.encode(32, 16)).shape == (16, 32, 3)
    for data in (b"", b"noise"):
        with pytest.raises(WireError, match="no picture"):
            decode(data)
