"""Latency histogram over 64-bit words: one addition per sample; percentiles are computed on reading.

Buckets are logarithmic with four steps an octave (19 % wide), from 1 µs; 128 of them reach 143 minutes. The layout is
HdrHistogram's idea with two bits of mantissa.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

BUCKETS = 128
_STEPS = 4


def bucket(microseconds: int) -> int:
    """The bucket that counts a latency: 0 for less than a microsecond, the last for all beyond the range."""
    if microseconds < _STEPS:
        return max(microseconds, 0)
    octave = microseconds.bit_length() - 3
    return min(_STEPS * octave + (microseconds >> octave), BUCKETS - 1)


def upper_bound(index: int) -> int:
    """The largest latency that ``index`` counts, in microseconds."""
    if index < 2 * _STEPS:
        return index
    octave, step = divmod(index, _STEPS)
    return ((step + _STEPS + 1) << (octave - 1)) - 1


def percentile(counts: Sequence[int], share: float) -> float:
    """The latency in milliseconds that ``share`` (0..1) of the samples do not exceed; 0 without samples."""
    total = sum(counts)
    if not total:
        return 0.0
    need = share * total
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if seen >= need and count:
            return upper_bound(index) / 1000
    return upper_bound(BUCKETS - 1) / 1000


def merge(histograms: Iterable[Sequence[int]]) -> list[int]:
    """The sum of several histograms."""
    total = [0] * BUCKETS
    for counts in histograms:
        total = [have + more for have, more in zip(total, counts, strict=True)]
    return total
