from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.stages.writer.journal_trim import GRACE_SECONDS, JournalTrim
from tests.examples import examples

#: Seconds from one event to the next: whether a frame is stored then, or a trim is asked for, or both.
histories = st.lists(
    st.tuples(st.floats(0, 20, allow_nan=False) | st.floats(0, 0.1), st.booleans(), st.booleans()), max_size=120
)


@pytest.mark.slow
@settings(max_examples=examples(300), deadline=None)
@given(st.sampled_from((1, 2, 30, 300)), histories)
def test_no_entry_goes_before_its_frame_has_lived_its_life(ttl, history):
    trim = JournalTrim(ttl)
    stored_at: dict[int, float] = {}
    now, unix_nano = 1000.0, 10**18
    for passed, stores, asks in history:
        now += passed
        if stores:
            unix_nano += 1
            trim.stored(unix_nano, now)
            stored_at[unix_nano] = now
        if asks:
            oldest_kept = trim.trim_nano(now)
            assert all(now - stored_at[nano] >= ttl for nano in stored_at if nano < oldest_kept)


@settings(max_examples=examples(100), deadline=None)
@given(st.sampled_from((1, 30, 300)), st.floats(0.01, 2))
def test_entries_go_soon_after_their_frames(ttl, interval):
    """As long as frames are stored: without new ones the journal goes by its own expiry."""
    trim = JournalTrim(ttl)
    kept = ttl + GRACE_SECONDS + 2 * ttl / 64 + 2 * interval
    stored_at: dict[int, float] = {}
    trimmed = 0
    for number in range(int(2.5 * kept / interval)):
        now = 1000 + number * interval
        stored_at[10**18 + number] = now
        trim.stored(10**18 + number, now)
        trimmed = max(trimmed, trim.trim_nano(now))
        oldest = max(trimmed, 10**18)
        assert now - stored_at[oldest] <= kept


def test_there_is_nothing_to_trim_twice():
    trim = JournalTrim(10)
    trim.stored(7, 0.0)
    assert trim.trim_nano(10 + GRACE_SECONDS) == 0
    assert trim.trim_nano(10.1 + GRACE_SECONDS) == 7
    assert trim.trim_nano(10.2 + GRACE_SECONDS) == 0


def test_the_newest_mark_that_is_old_enough_counts():
    trim = JournalTrim(64)
    for second in range(10):
        trim.stored(100 + second, float(second))
    assert trim.trim_nano(5.5 + 64 + GRACE_SECONDS) == 105


def test_a_camera_that_has_stored_nothing_is_left_alone():
    assert JournalTrim(10).trim_nano(10**9) == 0
