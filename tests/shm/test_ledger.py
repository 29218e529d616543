"""What Redis must still have, against a plain list of frames."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.shm import ledger
from engine.shm.ring import Consumer, Producer
from engine.shm.ring_file import Drop
from engine.wire.journal import NO_JOURNAL, JournalSpan
from engine.wire.keys import SEQUENCE_MAX, sequence_after
from engine.wire.ledger_layout import RUNS_MAX, Run
from tests.examples import examples
from tests.shm.rings import CAMERA, look, new_ring, standing

SECOND = 10**9


class Stored(NamedTuple):
    """A frame by its id, its place counted from the first, and its bytes."""

    unix_nano: int
    sequence: int
    place: int
    size: int


@st.composite
def histories(draw, *, parts):
    """Frames in runs, with gaps between them; numbers may begin again."""
    first = draw(st.integers(1, 50) | st.integers(SEQUENCE_MAX - 50, SEQUENCE_MAX))
    frames, place, nano = [], 0, 10**18
    for length, gap in draw(parts):
        for _ in range(length):
            nano += draw(st.integers(1, 1000))
            frames.append(Stored(nano, sequence_after(first, place), place, 1 + place % 7))
            place += 1
        place += gap
    return frames


few = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 5)), min_size=1, max_size=8)
many = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=RUNS_MAX + 1, max_size=2 * RUNS_MAX)


def runs_of(frames, until=SECOND):
    """The frames as the ring keeps them: a run ends where a number is missing."""
    runs = []
    for frame in frames:
        last = runs[-1] if runs else None
        if last and sequence_after(last.first_sequence, last.span + 1) == frame.sequence:
            runs[-1] = last._replace(
                last_nano=frame.unix_nano, span=last.span + 1, frames=last.frames + 1, size=last.size + frame.size
            )
        else:
            runs.append(Run(frame.unix_nano, frame.unix_nano, frame.sequence, 0, 1, frame.size, until + frame.place))
    return runs


def span_of(first, last, deleted=None):
    return JournalSpan(*((frame.unix_nano, frame.sequence) if frame else (0, 0) for frame in (first, last, deleted)))


@pytest.mark.slow
@settings(max_examples=examples(400), deadline=None)
@given(histories(parts=few), st.data())
def test_lost_is_what_lies_outside_the_journal_and_was_not_deleted(frames, data):
    picked = sorted(data.draw(st.tuples(*[st.sampled_from(frames)] * 3)))
    deleted = picked.pop(0) if data.draw(st.booleans()) else None
    first, last = picked[0], picked[-1]
    gone = [
        frame for frame in frames
        if frame > last or (frame < first and (not deleted or frame > deleted))
    ]  # fmt: skip
    span = span_of(first, last, deleted)
    loss = ledger.lost(runs_of(frames), span)
    assert loss.frames == len(gone)
    assert (loss.size == 0) == (not gone)
    assert sum(run.frames for run in loss.left) == len(frames) - len(gone)
    assert sum(run.size for run in loss.left) == sum(frame.size for frame in frames) - loss.size
    assert ledger.lost(loss.left, span).frames == 0


@settings(max_examples=examples(200), deadline=None)
@given(histories(parts=few), st.data())
def test_what_is_lost_bit_by_bit_is_lost_once(frames, data):
    runs, left, total = runs_of(frames), frames, 0
    while left:
        front, end = data.draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
        still = left[front : len(left) - end] if front + end else []
        loss = ledger.lost(runs, span_of(still[0], still[-1]) if still else NO_JOURNAL)
        assert loss.frames == len(left) - len(still)
        runs, left, total = loss.left, still, total + loss.frames
    assert (total, runs) == (len(frames), [])


@pytest.mark.slow
@settings(max_examples=examples(200), deadline=None)
@given(histories(parts=many), st.data())
def test_with_more_gaps_than_runs_never_too_many_are_counted_and_few_too_few(frames, data):
    whole = runs_of(frames)
    fitting = ledger.fitting(whole)
    assert len(fitting) <= RUNS_MAX
    assert sum(run.frames for run in fitting) == len(frames)
    assert ledger.lost(fitting, NO_JOURNAL).frames == len(frames)
    first, last = sorted(data.draw(st.tuples(st.sampled_from(frames), st.sampled_from(frames))))
    gone = [frame for frame in frames if not first <= frame <= last]
    cut = [run for run in fitting if any(run.first_nano <= end.unix_nano <= run.last_nano for end in (first, last))]
    loss = ledger.lost(fitting, span_of(first, last))
    assert len(gone) - sum(run.gaps for run in cut) <= loss.frames <= len(gone)
    if first.unix_nano >= whole[-7].first_nano:
        assert loss.frames == len(gone), "the newest runs are as they were"


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(0, 400_000), st.integers(1, SEQUENCE_MAX), st.integers(-20_000, 20_000))
def test_a_run_in_which_numbers_begin_again_knows_which_round_is_meant(place, first, drift):
    """Joined runs may be so long; the rate may have changed meanwhile, by less than half a round."""
    span = 400_000
    run = Run(10**18, 10**18 + span * 1000, first, span, span + 1, span + 1, SECOND)
    nano = min(max(10**18 + (place + drift) * 1000, run.first_nano + 1), run.last_nano - 1)
    entry = (nano, sequence_after(first, place))
    assert ledger.lost([run], JournalSpan(entry, (2**62, 1), (0, 0))).frames == place
    assert ledger.lost([run], JournalSpan((0, 1), entry, (0, 0))).frames == span - place


@settings(max_examples=examples(200), deadline=None)
@given(histories(parts=few), st.data())
def test_frames_that_turn_out_to_be_stored_are_expected_too(frames, data):
    doubtful = data.draw(st.lists(st.sampled_from(frames), unique=True))
    sure = [frame for frame in frames if frame not in doubtful]
    runs = ledger.inserted(runs_of(sure), runs_of(sorted(doubtful)))
    assert sum(run.frames for run in runs) == len(frames)
    assert ledger.lost(runs, NO_JOURNAL).frames == len(frames)
    last = data.draw(st.sampled_from(frames))
    assert ledger.lost(runs, span_of(frames[0], last)).frames == sum(frame > last for frame in frames)


def test_frames_of_a_gap_that_was_joined_are_counted_within():
    run = Run(10, 50, 1, 4, 2, 20, SECOND)
    assert ledger.inserted([run], [Run(20, 20, 2, 0, 1, 5, SECOND)]) == [run._replace(frames=3, size=25)]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from((1, 2, 30, 300)),
    st.lists(st.tuples(st.floats(0, 0.2), st.integers(0, 3), st.booleans()), min_size=1, max_size=150),
    st.floats(0, 1.1),
)
def test_a_frame_that_lived_its_life_is_not_lost(ttl, history, waited):
    """The share of the lifetime that passes between two steps, the frames stored then, and whether one is dropped."""
    with new_ring(2**20) as path:
        producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA, ttl_seconds=ttl)
        now, nano, stored = 10**15, 10**18, []
        for share, count, dropped in history:
            now += int(share * ttl * SECOND)
            nano += 10**9
            if dropped:
                producer.discard(nano, 1, Drop.CORRUPT)
            for _ in range(count):
                nano += 1
                producer.write([b"x"], nano, now, 1, 1)
            consumer.commit(consumer.poll(2**20, 100), now)
            stored += [now] * count
        now += int(waited * ttl * SECOND)
        lost = consumer.count_lost(NO_JOURNAL, now)
        life = ttl - min(1, ttl / 2)
        alive = sum(now - at < life * SECOND for at in stored)
        # A run is dropped with its first frame; where gaps made too many, two that together cover the least are one.
        part = max(2.5 * life / 32, 0.5)
        sure = sum(now - at < (life - part) * SECOND for at in stored)
        assert sure <= lost <= alive
        consumer.close()
        producer.close()


def test_a_lifetime_that_became_shorter_is_not_outlived():
    """Journals are trimmed by the new one; what was stored before lives on in Redis, and nobody lists it."""
    with new_ring() as path:
        producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA, ttl_seconds=10**6)
        producer.write([b"x"], 10**18, 0, 1, 1)
        consumer.commit(consumer.poll(100, 1), 0)
        consumer.close()
        heir = Consumer(path, CAMERA, ttl_seconds=10)
        producer.write([b"x"], 10**18 + 1, 0, 1, 1)
        heir.commit(heir.poll(100, 1), SECOND)
        assert heir.count_lost(standing([]), 10 * SECOND) == 0
        heir.close()
        producer.close()


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_over_many_lives_and_owners_nothing_is_forgotten_or_counted_twice(batch):
    """A camera that stores for ten lifetimes; each owner of the ring is followed by another."""
    with new_ring(2**20) as path:
        producer = Producer(path, CAMERA)
        now, nano, alive = 10**15, 10**18, []
        consumer = Consumer(path, CAMERA, ttl_seconds=60)
        for step in range(600):
            now += SECOND
            for _ in range(batch):
                nano += 10**8
                producer.write([b"x" * 10], nano, now, 1, 1)
            records = consumer.poll(2**20, 100)
            alive += [(now, record) for record in records]
            consumer.commit(records, now)
            alive = [(at, record) for at, record in alive if now - at < 59 * SECOND]
            if step % 97 == 0:
                consumer.close()
                consumer = Consumer(path, CAMERA, ttl_seconds=60)
            if step % 211 == 210:
                left = [record for _, record in alive[-7:]]
                lost = consumer.count_lost(standing(left), now)
                assert len(alive) - len(left) - 3 * batch <= lost <= len(alive) - len(left)
                assert consumer.count_lost(standing(left), now) == 0
                alive = alive[-7:]
        counts = look(path)
        assert counts.stored_total == 600 * batch
        assert counts.captured == counts.stored + counts.dropped
        consumer.close()
        producer.close()


def test_single_frames_are_taken_from_their_runs():
    runs = [Run(100, 200, 1, 4, 5, 50, 9), Run(300, 300, 6, 0, 1, 10, 9)]
    loss = ledger.without(runs, [(150, 10), (300, 10), (250, 10)])
    assert loss == (  # 250 is in neither.
        [Run(100, 200, 1, 4, 4, 40, 9)],
        2,
        20,
    )
