from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import WireError
from engine.jobs.stored_names import StoredNames
from engine.wire.cluster import SLOTS, slot_of
from engine.wire.slot_names import name_in_slot

plain = st.text(st.characters(blacklist_characters="{}", blacklist_categories=["Cs"]), max_size=20)


@given(plain, st.integers(0, SLOTS - 1))
def test_a_name_lies_in_the_slot_that_is_wanted(stem, slot):
    name = name_in_slot(stem, slot)
    assert slot_of(name.encode()) == slot
    assert name.startswith(stem)
    assert name == name_in_slot(stem, slot)


@given(plain.filter(bool), plain.filter(bool), plain.filter(bool), st.booleans())
def test_the_keys_of_a_rebuild_lie_in_the_journals_slot(vhost, prefix, camera, video):
    names = StoredNames(vhost, prefix, video)
    keys = names.journal(camera), names.draft(camera, "token", cluster=True), names.rebuilt(camera, cluster=True)
    assert len({slot_of(key.encode()) for key in keys}) == 1
    assert len(set(keys)) == 3


def test_braces_that_journal_and_draft_share_are_no_hindrance():
    names = StoredNames("a{b}", "frames")
    assert len({slot_of(key.encode()) for key in (names.journal("c"), names.draft("c", "t", cluster=True))}) == 1
    assert slot_of(StoredNames("v", "frames").rebuilt("{c}", cluster=True).encode()) == slot_of(b"c")


def test_braces_that_lie_elsewhere_are_refused():
    with pytest.raises(WireError, match="braces"):
        name_in_slot("a{b}c", (slot_of(b"b") + 1) % SLOTS)
