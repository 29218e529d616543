"""Whose frames a ring holds: the text tells all owners apart, whatever they are called, and always fits."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire.ring_owner import OWNER_BYTES_MAX, RingOwner, build_owner, show_owner
from tests.examples import examples
from tests.wire.names import names

owners = st.builds(RingOwner, names, names, names)
OURS = RingOwner("client-a", "frames", "127.0.0.1:6379/0")


def test_an_owner_is_written_as_in_a_key():
    assert build_owner(OURS) == b"client-a:frames:127.0.0.1%3A6379/0"
    assert show_owner(build_owner(OURS)) == "vhost 'client-a', prefix 'frames', Redis 127.0.0.1:6379/0"


@settings(max_examples=examples(400), deadline=None)
@given(owners, owners)
@example(RingOwner("a:b", "c", "d"), RingOwner("a", "b:c", "d"))
@example(RingOwner("x" * 600, "c", "d"), RingOwner("x" * 600, "c", "e"))
@example(RingOwner("é" * 255, "c", "d"), RingOwner("é" * 255, "é", "d"))
def test_two_owners_have_the_same_text_only_where_they_are_the_same(one, other):
    assert (build_owner(one) == build_owner(other)) == (one == other)


@settings(max_examples=examples(400), deadline=None)
@given(owners)
def test_every_owner_fits_and_is_utf8(owner):
    text = build_owner(owner)
    assert 0 < len(text) <= OWNER_BYTES_MAX
    assert text.decode()


@settings(max_examples=examples(400), deadline=None)
@given(owners)
def test_an_owner_that_fits_is_shown_as_it_is(owner):
    text = build_owner(owner)
    if not text.startswith(b":"):
        assert show_owner(text) == str(owner)


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=OWNER_BYTES_MAX))
@example(b"")
@example(b"%zz:a:b")
@example(b"::")
def test_whatever_a_header_says_can_be_shown(noise):
    assert 0 < len(show_owner(noise)) < 2000


def test_an_owner_with_an_empty_name_is_none():
    with pytest.raises(WireError):
        build_owner(RingOwner("", "frames", "embedded"))
