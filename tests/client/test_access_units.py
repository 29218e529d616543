"""What follows from the order of access units: which decode, how far they are reordered, and their times in a film."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.client.access_units import Continuity, Reordering, Step
from engine.client.film_track import TICKS, FilmTrack, Sample
from engine.client.video import VideoEntry, VideoUnit
from engine.errors import InputError
from tests.client.stocked import T0
from tests.examples import examples

MS = 1_000_000
BEGIN, CONTINUE, SKIP = Step.BEGIN, Step.CONTINUE, Step.SKIP


def unit(number: int, *, key: bool = False, shown_ms: float | None = None, sequence: int | None = None) -> VideoUnit:
    """The unit that arrives ``number`` intervals of 100 ms after the first."""
    arrived = T0 + number * 100 * MS
    shown = arrived if shown_ms is None else T0 + int(shown_ms * MS)
    return VideoUnit(
        "loja",
        "frames",
        "cam1",
        arrived,
        number + 1 if sequence is None else sequence,
        5,
        64,
        48,
        "h264",
        key,
        (shown - arrived) // 1000,
        b"bytes",
    )


def steps(*units: VideoEntry) -> list[Step]:
    continuity = Continuity()
    return [continuity.step(one) for one in units]


def test_decoding_begins_with_a_key_frame():
    assert steps(unit(0), unit(1), unit(2, key=True), unit(3)) == [SKIP, SKIP, BEGIN, CONTINUE]


def test_a_key_frame_without_a_gap_continues():
    assert steps(unit(0, key=True), unit(1), unit(2, key=True), unit(3)) == [BEGIN, CONTINUE, CONTINUE, CONTINUE]


def test_after_a_gap_nothing_decodes_until_the_next_key_frame():
    units = [unit(0, key=True), unit(1), unit(3), unit(4), unit(5, key=True), unit(6), unit(9, key=True)]
    continuity = Continuity()
    assert [continuity.step(one) for one in units] == [BEGIN, CONTINUE, SKIP, SKIP, BEGIN, CONTINUE, BEGIN]
    assert continuity.skipped == 2


def test_sequences_start_again_without_a_gap():
    units = [unit(0, key=True, sequence=99_999), unit(1, sequence=1), unit(2, sequence=2)]
    assert steps(*units) == [BEGIN, CONTINUE, CONTINUE]


def test_after_a_break_nothing_decodes_until_the_next_key_frame():
    continuity = Continuity()
    assert continuity.step(unit(0, key=True)) is BEGIN
    continuity.break_off()
    assert [continuity.step(one) for one in (unit(1), unit(2, key=True))] == [SKIP, BEGIN]


@pytest.mark.parametrize("change", [{"width": 128}, {"height": 96}, {"encoding": "h265"}], ids=str)
def test_another_size_or_codec_begins_with_its_key_frame(change):
    other = msgspec.structs.replace(unit(2), **change)
    assert steps(unit(0, key=True), unit(1), msgspec.structs.replace(other, keyframe=True)) == [BEGIN, CONTINUE, BEGIN]
    assert steps(unit(0, key=True), unit(1), other) == [BEGIN, CONTINUE, SKIP]


def shown(*milliseconds: float) -> list[VideoUnit]:
    """Units that are shown at these times, in decode order."""
    return [unit(number, key=number == 0, shown_ms=ms) for number, ms in enumerate(milliseconds)]


@pytest.mark.parametrize(
    ("times", "depth"),
    [
        ([0, 100, 200, 300], 0),
        ([0, 300, 100, 200, 600, 400, 500], 1),
        # B-frames that others depend on: decoded are I0 P4 B2 B1 B3.
        ([0, 400, 200, 100, 300, 800, 600, 500, 700], 2),
        # The camera's clock has jumped back by a minute.
        ([60_000, 60_100, 60_200, 0, 100, 200], 0),
    ],
)
def test_the_depth_is_how_many_pictures_are_decoded_before_and_shown_after(times, depth):
    reordering = Reordering()
    for one in shown(*times):
        reordering.see(one)
        reordering.see(one)
    assert reordering.depth == depth


def samples(*units: VideoUnit) -> list[Sample]:
    track = FilmTrack()
    found = [sample for one in units for sample in track.add(one)]
    found += track.finish()
    assert track.units == len(found)
    assert track.units + track.skipped == len(units)
    return found


def milliseconds(found: list[Sample], name: str) -> list[float]:
    return [getattr(sample, name) * 1000 / TICKS for sample in found]


def test_without_reordering_pictures_are_decoded_when_they_are_shown():
    found = samples(*shown(0, 100, 250, 300))
    assert milliseconds(found, "pts") == milliseconds(found, "dts") == [0, 100, 250, 300]
    assert milliseconds(found, "duration") == [100, 150, 50, 100]


def test_decoding_runs_ahead_by_as_many_pictures_as_are_reordered():
    found = samples(*shown(0, 300, 100, 200, 600, 400, 500))
    assert milliseconds(found, "pts") == [0, 300, 100, 200, 600, 400, 500]
    assert milliseconds(found, "dts") == [-100, 0, 100, 200, 300, 400, 500]


def test_a_film_begins_with_a_key_frame_and_goes_on_with_one_after_a_gap():
    units = [unit(number, key=number in (2, 9)) for number in (0, 1, 2, 3, 5, 6, 9, 10)]
    found = samples(*units)
    assert [sample.unit for sample in found] == [units[2], units[3], units[6], units[7]]
    assert milliseconds(found, "pts") == [0, 100, 700, 800]


def test_after_a_gap_pictures_that_are_shown_before_the_key_frame_are_left_out():
    """They need units that are missing."""
    units = [*shown(0, 100), unit(5, key=True, shown_ms=700), unit(6, shown_ms=500), unit(7, shown_ms=800)]
    assert [sample.unit for sample in samples(*units)] == [units[0], units[1], units[2], units[4]]


def test_a_gap_is_decoded_as_late_as_it_is_shown():
    units = [*shown(0, 300, 100, 200), unit(104, key=True, shown_ms=10_000), unit(105, shown_ms=10_100)]
    assert milliseconds(samples(*units), "dts") == [-100, 0, 100, 200, 9_900, 10_000]


def test_one_picture_is_shown_for_a_second():
    assert milliseconds(samples(unit(0, key=True)), "duration") == [1000]


def test_no_unit_that_decodes_makes_no_film():
    assert samples() == samples(unit(0), unit(1)) == []


def test_another_size_is_an_error_that_says_where_to_cut():
    track = FilmTrack()
    track.add(unit(0, key=True))
    with pytest.raises(InputError) as caught:
        track.add(msgspec.structs.replace(unit(1, key=True), width=128, encoding="h265"))
    assert str(caught.value) == (
        "camera 'cam1' changes from 64x48 h264 to 128x48 h265, and a film has one size and codec; export what is "
        "before, to 2024-11-08T00:00:00.123456789Z, and what is after, from 2024-11-08T00:00:00.223456789Z"
    )


def test_a_film_cannot_begin_with_a_unit_whose_size_nobody_knows():
    with pytest.raises(InputError, match="has no size"):
        FilmTrack().add(msgspec.structs.replace(unit(0, key=True), width=0))


def test_a_gap_longer_than_a_film_can_show_is_an_error():
    with pytest.raises(InputError, match=r"comes 60\.0 hours after .* 59 hours at most"):
        samples(unit(0, key=True), unit(10 * 3600 * 60, key=True, sequence=2))


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(st.tuples(st.integers(-400, 400), st.booleans(), st.integers(1, 3)), max_size=90))
def test_whatever_the_camera_says_of_times_decode_times_rise_and_no_picture_is_shown_before(drawn):
    numbers = itertools.accumulate((step for _, _, step in drawn), initial=0)
    units = [
        unit(number, key=key, shown_ms=number * 100 + shift)
        for number, (shift, key, _) in zip(numbers, drawn, strict=False)
    ]
    found = samples(*units)
    times = [sample.dts for sample in found]
    assert times == sorted(set(times))
    assert all(sample.dts <= sample.pts for sample in found)
    assert all(one.dts + one.duration == other.dts for one, other in itertools.pairwise(found))


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(0, 4), st.integers(1, 12), st.integers(1, 8))
def test_pictures_are_shown_at_their_own_times_however_they_are_reordered(between, gop, gops):
    """A GOP is I, then P and ``between`` B-frames before it, and so on."""
    order: list[int] = []
    for first in range(0, gops * gop * (between + 1), gop * (between + 1)):
        order.append(first)
        for anchor in range(first + between + 1, first + gop * (between + 1), between + 1):
            order += [anchor, *range(anchor - between, anchor)]
    keys = {first for first in order if first % (gop * (between + 1)) == 0}
    units = [unit(number, key=place in keys, shown_ms=place * 100) for number, place in enumerate(order)]
    assert milliseconds(samples(*units), "pts") == [place * 100 for place in order]
