"""Entries of a video journal become GOPs: each access unit belongs to one, or decodes for nobody."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.stages.publisher.gop_assembly import Assembly, Finished, part_before
from engine.wire.journal import JournalEntry
from engine.wire.keys import next_sequence
from engine.wire.metadata import Gop
from tests.examples import examples

NANO = 1_731_024_000_000_000_000


def units(pattern: str, *, sequence: int = 1) -> list[JournalEntry]:
    """Access units 40 ms apart: ``K`` a key frame, ``.`` another one, ``-`` one that was dropped before it was
    stored, ``j`` an entry that is no video."""
    found = []
    for place, letter in enumerate(pattern):
        if letter != "-":
            encoding = "jpeg" if letter == "j" else "h264"
            size = 1000 if letter == "K" else 10
            found.append(
                JournalEntry(NANO + place * 40_000_000, sequence, size, 64, 48, encoding, letter in "Kj", place + 1)
            )
        sequence = next_sequence(sequence)
    return found


def assembled(entries: list[JournalEntry], *, before: int = 0) -> tuple[list[Finished], list[JournalEntry]]:
    """The GOPs of some entries, the last of which is finished, and the entries of none."""
    assembly, finished, strays = Assembly(before), [], []
    for entry in entries:
        gop, belongs = assembly.add(entry)
        finished += [gop] if gop else []
        strays += [] if belongs else [entry]
    last = assembly.finish()
    return finished + ([last] if last else []), strays


def test_a_gop_lasts_until_the_next_begins():
    entries = units("K..K.K")
    finished, strays = assembled(entries)
    assert [(one.gop.first, one.gop.last, one.gop.frames, one.gop.size) for one in finished] == [
        (entries[0], entries[2], 3, 1020),
        (entries[3], entries[4], 2, 1010),
        (entries[5], entries[5], 1, 1000),
    ]
    assert [one.gop.end_nano for one in finished] == [entries[3].unix_nano, entries[5].unix_nano, entries[5].unix_nano]
    assert [(one.place, one.entries) for one in finished] == [(0, 3), (3, 2), (5, 1)]
    assert not strays


@pytest.mark.parametrize(
    ("pattern", "gops", "strays"),
    [
        ("K..--K.", [(0, 3), (3, 5)], []),
        ("..K.", [(2, 4)], [0, 1]),
        ("K.-..K.", [(0, 2), (4, 6)], [2, 3]),
        ("K.j.K", [(0, 2), (4, 5)], [2, 3]),
        ("----", [], []),
    ],
)
def test_a_missing_unit_ends_a_gop_early(pattern: str, gops: list[tuple[int, int]], strays: list[int]):
    entries = units(pattern)
    finished, found = assembled(entries)
    assert [(one.gop.first, one.gop.last) for one in finished] == [(entries[a], entries[b - 1]) for a, b in gops]
    assert found == [entries[place] for place in strays]
    if "-" in pattern and finished:
        assert finished[0].gop.end_nano == finished[0].gop.last.unix_nano


def test_sequences_begin_again_at_one():
    entries = units("K..K.", sequence=99_998)
    assert [entry.sequence for entry in entries] == [99_998, 99_999, 1, 2, 3]
    finished, strays = assembled(entries, before=99_997)
    assert [one.gop.frames for one in finished] == [3, 2]
    assert not strays


def test_what_follows_a_finished_gop_continues_it():
    entries = units("K....")
    assembly = Assembly(0)
    for entry in entries[:2]:
        assembly.add(entry)
    early = assembly.finish()
    assert early
    assert early.gop.frames == 2
    assert assembly.continues(entries[2])
    assembly.resume(part_before(entries[2], reversed(entries[:2])))
    assert not assembly.continues(entries[2])
    for entry in entries[2:]:
        assert assembly.add(entry) == (None, True)
    late = assembly.finish()
    assert late
    assert (late.gop.first, late.gop.last, late.gop.frames, late.gop.size) == (entries[0], entries[4], 5, 1040)
    assert (late.place, late.entries) == (2, 3)


def test_without_its_beginning_it_does_not_continue():
    entries = units("K.-.K")
    for place, expected in ((1, True), (2, False), (3, False)):
        assembly = Assembly(entries[place - 1].sequence)
        assert assembly.continues(entries[place]) == expected
    assembly = Assembly(0)
    assembly.resume(None)
    assert assembly.add(units(".")[0]) == (None, False)
    assert not assembly.continues(units("-.")[0]), "its beginning was asked for once"


@pytest.mark.parametrize(
    ("pattern", "frames"), [("K..", 3), ("..K..", 3), ("K.-..", None), ("K.j..", None), ("...", None)]
)
def test_the_part_before_an_entry_begins_with_a_key_frame(pattern: str, frames: int | None):
    entries = units(pattern + ".")
    part = part_before(entries[-1], reversed(entries[:-1]))
    assert (part.frames if part else None) == frames
    if part:
        begin = pattern.index("K")
        assert part == Gop(entries[begin], entries[-2], 3, 1020, entries[-2].unix_nano)


@settings(max_examples=examples(300), deadline=None)
@given(st.text(alphabet="K....-j", max_size=60), st.integers(0, 99_999))
def test_every_entry_is_in_one_gop_or_in_none(pattern: str, sequence: int):
    entries = units(pattern, sequence=next_sequence(sequence))
    finished, strays = assembled(entries, before=sequence)
    places = {place for one in finished for place in range(one.place, one.place + one.entries)}
    assert len(places) == sum(one.entries for one in finished), "an entry is in two GOPs"
    assert [entry for place, entry in enumerate(entries) if place not in places] == strays
    for one in finished:
        part = entries[one.place : one.place + one.entries]
        assert [entry.keyframe for entry in part] == [True] + [False] * (len(part) - 1)
        assert one.gop == Gop(part[0], part[-1], len(part), sum(entry.size for entry in part), one.gop.end_nano)
        for former, entry in itertools.pairwise(part):
            assert entry.sequence == next_sequence(former.sequence)
