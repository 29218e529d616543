"""Which writer has a camera: always the same one, whatever other cameras there are, and about as many for each."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import from_document
from engine.config.assignment import share_of
from tests.wire.names import names

WRITERS = st.integers(1, 64)


def assigned(cameras: set[str], writers: int) -> dict[str, int]:
    """Camera to the writer that has it, as a site of these cameras says."""
    site = from_document(
        {"writer": {"writers": writers}, "cameras": [{"id": camera, "url": "test://"} for camera in sorted(cameras)]},
        {},
    )
    return {camera.id: number for number in range(writers) for camera in site.cameras_of(number)}


CAMERAS = st.sets(st.from_regex(r"[a-z]{1,4}[-_. ]?[0-9]{0,3}[a-z]?", fullmatch=True), min_size=1, max_size=12)


@given(CAMERAS, CAMERAS, WRITERS)
def test_cameras_that_are_added_or_removed_move_no_other(before, added, writers):
    small, large = assigned(before, writers), assigned(before | added, writers)
    assert small.keys() == before
    assert large.keys() == before | added
    assert {camera: large[camera] for camera in before} == small


@given(names, WRITERS)
def test_any_id_has_one_of_the_writers(camera, writers):
    assert 0 <= share_of(camera, writers) < writers
    assert share_of(camera, 1) == 0


def test_the_assignment_is_the_same_in_every_process_and_version():
    """A capture wakes the writer that it works out by itself."""
    cameras = ("c0", "cam1", "cam12", "entrance", "192.168.0.7", "dvr3/ch2", "日本", "9" * 40)
    assert [share_of(camera, 7) for camera in cameras] == [2, 5, 3, 6, 0, 3, 6, 6]


@pytest.mark.parametrize("writers", range(2, 9))
@pytest.mark.parametrize(
    "pattern", ["c{}", "cam{}", "cam{:02}", "cam-{:03}", "camera_{}", "{}", "192.168.1.{}", "ch{}-main"]
)
def test_cameras_that_are_numbered_in_a_row_are_spread_evenly(pattern, writers):
    for first in (0, 1, 10, 100):
        for count in (*range(2, 33), 64, 100):
            shares = Counter(share_of(pattern.format(number), writers) for number in range(first, first + count))
            even = -(-count // writers)
            assert max(shares.values()) <= even + 2, (first, count, sorted(shares.values()))


def test_numbers_with_steps_and_ids_without_numbers_are_shared_too():
    """As with any hash, no more than about even."""
    for ids in (
        [f"{channel}01" for channel in range(1, 33)],
        [f"cam{number}" for number in range(0, 200, 2)],
        [f"floor{floor}-cam{number}" for floor in range(1, 9) for number in range(1, 9)],
        [f"{place}-{side}" for place in ("door", "gate", "hall", "yard", "roof", "lift") for side in "nesw"],
    ):
        for writers in (2, 3, 4):
            shares = Counter(share_of(camera, writers) for camera in ids)
            assert len(shares) == writers
            assert max(shares.values()) <= 2 * len(ids) / writers, (ids[0], writers, shares)
