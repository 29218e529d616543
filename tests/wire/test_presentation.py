"""When pictures are shown: times that jump, go back or are missing, and stamps of pictures in another order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.wire.presentation import PictureStamps, PresentationClock
from tests.examples import examples

SECOND = 10**9
FRAME = SECOND // 10
NOW = 1_731_024_000 * SECOND


def offsets(packets: list[tuple[int, int | None, int | None]]) -> list[int]:
    """Of packets as (arrival, pts, dts) in nanoseconds; the arrivals count from NOW."""
    clock = PresentationClock()
    return [clock.offset(NOW + arrival, pts, dts) for arrival, pts, dts in packets]


def test_without_b_frames_a_packet_is_shown_when_it_arrives():
    assert offsets([(number * FRAME, number * FRAME + 777, number * FRAME + 777) for number in range(9)]) == [0] * 9


def test_what_the_network_delays_was_shown_before_it_arrived():
    assert offsets([(0, 0, 0), (FRAME + 5_000_000, FRAME, FRAME), (2 * FRAME, 2 * FRAME, 2 * FRAME)]) == [
        0,
        -5_000_000 + int((FRAME + 5_000_000) / 5000),
        0,
    ]


def test_the_first_packet_may_be_the_one_that_was_delayed():
    """The others are then shown later than they arrive, less and less so: none is shown before the one before it."""
    packets = [(90_000_000, 0, 0), *((number * FRAME, number * FRAME, number * FRAME) for number in range(1, 12))]
    found = offsets(packets)
    assert found[0] == 0
    assert found[1:] == sorted(found[1:], reverse=True)
    assert found[8:] == [0] * 4
    moments = [arrival + offset for (arrival, _, _), offset in zip(packets, found, strict=True)]
    assert moments == sorted(set(moments))


def test_b_frames_are_shown_in_order_and_evenly():
    """I0 P3 B1 B2 P6 B4 B5 …, decoded in this order."""
    shown = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8]
    packets = [(place * FRAME, pts * FRAME, (place - 1) * FRAME) for place, pts in enumerate(shown)]
    moments = [arrival + offset for (arrival, _, _), offset in zip(packets, offsets(packets), strict=True)]
    assert sorted(moments) == [FRAME + number * FRAME for number in range(10)]
    assert [moments.index(moment) for moment in sorted(moments)] == [shown.index(number) for number in range(10)]


def test_a_missing_dts_moves_nothing():
    packets = [(number * FRAME, number * FRAME, None if number % 2 else number * FRAME) for number in range(9)]
    assert offsets(packets) == [0] * 9
    # After a first packet without one, the first dts below its pts counts, and pictures keep their order until then.
    packets = [(0, 3, None), (1, 1, 1), (2, 2, 2), (3, 6, 3), (4, 4, 4)]
    found = offsets([(arrival * FRAME, pts * FRAME, dts and dts * FRAME) for arrival, pts, dts in packets])
    assert found[3:] == [3 * FRAME, 0]
    moments = [number * FRAME + offset for number, offset in enumerate(found)]
    assert sorted(range(5), key=lambda number: moments[number]) == [1, 2, 0, 4, 3]


def test_pictures_before_the_second_have_room_however_soon_it_arrives_behind_the_first():
    """The first packet is stamped when it was read, the second when it arrived: just then."""
    times = [(None, None), (5, None), (3, None), (4, 3), (8, 4), (6, 5), (7, 6)]
    arrivals = [0, 4000, *(number * FRAME for number in range(1, 6))]
    packets = [
        (arrival, pts and pts * FRAME, dts and dts * FRAME) for arrival, (pts, dts) in zip(arrivals, times, strict=True)
    ]
    moments = [arrival + offset for arrival, offset in zip(arrivals, offsets(packets), strict=True)]
    assert sorted(range(7), key=lambda place: moments[place]) == [0, 2, 3, 1, 5, 6, 4]
    assert moments[1] < 4_000_000


@pytest.mark.parametrize("apart", [0, 200_000, FRAME // 2])
def test_the_second_field_of_a_picture_is_shown_behind_the_first(apart):
    fields = [(place * FRAME + number * apart, place * FRAME) for place in range(20) for number in range(2)]
    packets = [(arrival + place % 7, pts, pts) for place, (arrival, pts) in enumerate(fields)]
    moments = [arrival + offset // 1000 * 1000 for (arrival, *_), offset in zip(packets, offsets(packets), strict=True)]
    for first, second in zip(moments[0::2], moments[1::2], strict=True):
        assert first <= second < first + FRAME // 10


@pytest.mark.parametrize("first", [2 * FRAME, None], ids=["pts", "no-pts"])
def test_the_first_pictures_of_a_connection_keep_their_order(first):
    """FFmpeg's times as seen by RTSP: the first dts is missing or the pts, another is later than the pts."""
    times = [(first, None), (5, 5), (3, 6), (4, 3), (8, 4), (6, 5), (7, 6)]
    packets = [
        (place * FRAME, pts if place == 0 else pts * FRAME, dts and dts * FRAME)
        for place, (pts, dts) in enumerate(times)
    ]
    moments = [arrival + offset for (arrival, _, _), offset in zip(packets, offsets(packets), strict=True)]
    assert sorted(range(7), key=lambda place: moments[place]) == [0, 2, 3, 1, 5, 6, 4]
    # From here on each is shown a frame apart, three frames after it is decoded.
    assert [moments[place] for place in (5, 6, 4)] == [6 * FRAME, 7 * FRAME, 8 * FRAME]


@pytest.mark.parametrize("jump", [-3600 * SECOND, -2 * SECOND, 2 * SECOND, 10**6 * SECOND])
def test_times_that_jump_count_anew(jump):
    before = [(number * FRAME, number * FRAME, number * FRAME) for number in range(5)]
    after = [(number * FRAME, number * FRAME + jump, number * FRAME + jump) for number in range(5, 10)]
    assert offsets(before + after) == [0] * 10


def test_times_that_go_back_a_little_count_anew():
    before = [(number * FRAME, number * FRAME, number * FRAME) for number in range(5)]
    after = [(number * FRAME, number * FRAME - SECOND // 2, number * FRAME - SECOND // 2) for number in range(5, 10)]
    assert offsets(before + after) == [0] * 10


def test_a_missing_pts_is_shown_on_arrival_and_the_next_counts_anew():
    packets = [(0, 0, 0), (FRAME, None, None), (5 * FRAME, FRAME, FRAME), (6 * FRAME, 2 * FRAME, 2 * FRAME)]
    assert offsets(packets) == [0, 0, 0, 0]


def test_a_camera_whose_clock_is_slow_is_followed():
    """It loses 100 microseconds a second: less than the delay may rise."""
    packets = [(int(number * FRAME * 1.0001), number * FRAME, number * FRAME) for number in range(36_000)]
    assert min(offsets(packets)) > -100_000


def test_a_pts_far_from_its_dts_is_not_believed():
    assert offsets([(0, 3600 * SECOND, 0), (FRAME, FRAME, FRAME)]) == [0, 0]


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.tuples(*[st.none() | st.integers(-(2**63), 2**63)] * 2), max_size=20))
def test_any_times_give_offsets_that_a_journal_takes(times):
    clock = PresentationClock()
    for number, (pts, dts) in enumerate(times):
        assert abs(clock.offset(NOW + number * FRAME, pts, dts)) <= 10 * SECOND


def stamped(sent: list[tuple[int | None, int]], shown: list[int | None], delay: int) -> list[int]:
    """The stamps of pictures: the decoder holds ``delay`` packets back."""
    stamps, found, left = PictureStamps(), [], list(shown)
    for number, (pts, stamp) in enumerate(sent):
        stamps.sent(pts, stamp)
        if number >= delay and left:
            found.append(stamps.take(left.pop(0)))
    return found + [stamps.take(pts) for pts in left]


def test_pictures_in_order_have_the_stamps_of_their_packets():
    sent = [(number * 10, 1000 + number) for number in range(20)]
    for delay in (0, 1, 3):
        assert stamped(sent, [pts for pts, _ in sent], delay) == [stamp for _, stamp in sent]


def test_pictures_in_another_order_have_the_same_stamps_in_order():
    order = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8]
    sent = [(number * 10, 1000 + place) for place, number in enumerate(order)]
    assert stamped(sent, [number * 10 for number in range(10)], 2) == list(range(1000, 1010))


@pytest.mark.parametrize("lost", [0, 3, 5, 9])
def test_a_lost_picture_takes_its_stamp_with_it(lost):
    stamps = PictureStamps()
    for number in range(10):
        stamps.sent(number * 10, 1000 + number)
        if number != lost:
            assert stamps.take(number * 10) == 1000 + number


def test_lost_pictures_leave_no_lag_where_times_are_missing():
    """As of a decoder that loses half of what it is sent."""
    stamps = PictureStamps()
    for number in range(1000):
        stamps.sent(None, number)
        if number % 2:
            found = stamps.take(None)
    assert number - found <= 5
    stamps = PictureStamps()
    for number in range(1000):
        stamps.sent(number if number % 2 else None, number)
        if number % 2:
            found = stamps.take(number)
    assert number - found <= 1


def test_more_pictures_than_packets_have_stamps_that_increase():
    stamps = PictureStamps()
    stamps.sent(0, 1000)
    assert [stamps.take(pts) for pts in (0, 0, None, 5)] == [1000, 1001, 1002, 1003]


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.none() | st.integers(-50, 50), max_size=60), st.integers(0, 5), st.randoms())
def test_stamps_strictly_increase_whatever_comes(times, delay, chance: random.Random):
    sent = [(pts, 1000 + number) for number, pts in enumerate(times)]
    shown = [pts for pts in times if chance.random() < 0.8]
    chance.shuffle(shown)
    found = stamped(sent, shown, delay)
    assert found == sorted(set(found))
    assert all(stamp >= 1 for stamp in found)
