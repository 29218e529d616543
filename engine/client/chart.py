"""A chart of a camera's frame rate, as a PNG drawn with cv2."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.client.stats import Bucket
from engine.wire.rfc3339 import NANO, rfc3339

#: A chart's width and height in pixels, and the margins around its bars.
CHART_SIZE = (1200, 480)
_LEFT, _ABOVE, _RIGHT, _BELOW = 90, 50, 30, 70
#: Shades of grey: text, bars, grid lines, background.
_INK, _BAR, _GRID, _PAPER = 0, 96, 208, 255
#: Maximum number of labels on each axis.
_X_TICKS_MAX, _Y_TICKS_MAX = 8, 6
#: Steps of the time axis that are easy to read, in nanoseconds: from fractions of a second to years.
_TIME_STEPS = [digit * 10**zeros for zeros in range(9) for digit in (1, 2, 5)] + [
    seconds * NANO
    for seconds in (
        *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200),
        *(86_400 * days for days in (1, 2, 7, 14, 28, 91, 182, 365, 730, 1826, 3652)),
    )
]
_DAY_NANO = 86_400 * NANO


def rate_chart(buckets: Sequence[Bucket], title: str) -> bytes:
    """A bar chart of the frames in each bucket, as a PNG of ``CHART_SIZE`` in shades of grey.

    ``buckets`` are contiguous, as ``FrameStore.rate`` returns them. Raises ValueError for an empty sequence.
    """
    if not buckets:
        raise ValueError("no buckets to draw")
    width, height = CHART_SIZE
    right, bottom = width - _RIGHT, height - _BELOW
    paper = np.full((height, width), _PAPER, np.uint8)
    begin = buckets[0].start_nano
    length = buckets[1].start_nano - begin if len(buckets) > 1 else NANO
    # The length of a single bucket is unknown, so its bar is slim.
    span = length * (len(buckets) if len(buckets) > 1 else _X_TICKS_MAX)

    step = _nice_step(max(bucket.frames for bucket in buckets))
    top = max(-(-max(bucket.frames for bucket in buckets) // step), 1) * step

    def x_of(nano: int) -> int:
        return _LEFT + (nano - begin) * (right - _LEFT) // span

    def y_of(frames: int) -> int:
        return bottom - frames * (bottom - _ABOVE) // top

    for frames in range(0, top + 1, step):
        y = y_of(frames)
        cv2.line(paper, (_LEFT - 5, y), (right, y), _GRID, 1)
        _write(paper, f"{frames:,}", (_LEFT - 10, y + 5), align=1.0)
    for bucket in buckets:
        if bucket.frames:
            x, end = x_of(bucket.start_nano), x_of(bucket.start_nano + length)
            # Bars that are wide enough leave a gap of background between them.
            end = max(end - (2 if end - x > 4 else 1), x)
            cv2.rectangle(paper, (x, y_of(bucket.frames)), (end, bottom), _BAR, cv2.FILLED)
    for nano, label in _time_labels(begin, span, one=len(buckets) == 1):
        x = x_of(nano)
        cv2.line(paper, (x, bottom), (x, bottom + 5), _INK, 1)
        _write(paper, label, (x, bottom + 22), align=0.5)
    cv2.line(paper, (_LEFT, bottom), (right, bottom), _INK, 1)
    cv2.line(paper, (_LEFT, _ABOVE), (_LEFT, bottom), _INK, 1)

    _write(paper, title, (width // 2, 28), align=0.5, scale=0.6)
    _write(paper, f"time (UTC), from {rfc3339(begin)[:19]}Z", ((_LEFT + right) // 2, height - 18), align=0.5)
    upright = np.full((20, bottom - _ABOVE), _PAPER, np.uint8)
    _write(upright, "frames", (upright.shape[1] // 2, 14), align=0.5)
    paper[_ABOVE:bottom, 5:25] = np.rot90(upright)
    _, png = cv2.imencode(".png", paper)
    return png.tobytes()


def _nice_step(most: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, … that reaches ``most`` in at most ``_Y_TICKS_MAX`` steps."""
    step, zeros = 1, 1
    while -(-most // step) > _Y_TICKS_MAX:
        for digit in (1, 2, 5, 10):
            step = digit * zeros
            if -(-most // step) <= _Y_TICKS_MAX:
                break
        zeros *= 10
    return step


def _time_labels(begin: int, span: int, *, one: bool) -> list[tuple[int, str]]:
    """(nanosecond, label) at round times from ``begin`` on; for a single bar, only at its start."""
    step = next((step for step in _TIME_STEPS if span // step <= _X_TICKS_MAX), span)
    ticks = [begin] if one else list(range(-(-begin // step) * step, begin + span + 1, step))
    digits = next((digits for digits in (0, 3, 6) if all(nano % 10 ** (9 - digits) == 0 for nano in ticks)), 9)
    if step >= _DAY_NANO and not one:
        return [(nano, rfc3339(nano)[:10]) for nano in ticks]
    minutes = digits == 0 and all(nano % (60 * NANO) == 0 for nano in ticks)
    shown = slice(5 if span > _DAY_NANO else 11, 16 if minutes else 20 + digits if digits else 19)
    return [(nano, rfc3339(nano)[shown].replace("T", " ")) for nano in ticks]


def _write(
    paper: NDArray[np.uint8], text: str, at: tuple[int, int], *, align: float = 0.0, scale: float = 0.45
) -> None:
    """Draw text with its base line at ``at``; ``align`` is the share of its width left of it. cv2 draws only ASCII."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    plain = plain.encode("ascii", "replace").decode()
    (width, _), _ = cv2.getTextSize(plain, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    left = max(min(at[0] - int(width * align), paper.shape[1] - width), 0)
    cv2.putText(paper, plain, (left, at[1]), cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)
