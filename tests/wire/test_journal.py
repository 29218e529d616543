from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire.journal import (
    ENCODINGS,
    VIDEO_ENCODINGS,
    JournalEntry,
    JournalSpan,
    _parse_any,
    entry_fields,
    entry_id,
    parse_entry,
    parse_entry_id,
    parse_span,
)
from tests.examples import examples
from tests.wire.names import sequences, unix_nanos

ENTRY = JournalEntry(1731076200123456789, 1, 245678, 1280, 720, "jpeg", True, 4711)
FIELDS = (b"s", b"245678", b"w", b"1280", b"h", b"720", b"e", b"jpeg", b"k", b"1", b"n", b"4711")
IDENTIFIER = b"1731076200123456789-1"

UNIT = JournalEntry(1731076200123456789, 1, 24567, 1280, 720, "h264", False, 4711, -40_000)
UNIT_FIELDS = (b"s", b"24567", b"w", b"1280", b"h", b"720", b"e", b"h264", b"k", b"0", b"p", b"-40000", b"n", b"4711")

entries = st.builds(
    lambda entry, offset, camera_time: entry._replace(
        offset_us=offset if entry.encoding in VIDEO_ENCODINGS else 0, camera_time_nano=camera_time
    ),
    st.builds(
        JournalEntry,
        unix_nanos,
        sequences,
        st.integers(1, 2**31),
        st.integers(1, 65_535),
        st.integers(1, 65_535),
        st.sampled_from(ENCODINGS),
        st.booleans(),
        st.integers(0, 2**40),
    ),
    st.integers(-(10**12), 10**12),
    st.none() | st.integers(1, 10**19 - 1),
)


def test_an_entry_is_written_as_designed():
    assert entry_id(ENTRY.unix_nano, ENTRY.sequence).encode() == IDENTIFIER
    assert entry_fields(ENTRY) == FIELDS
    assert entry_fields(UNIT) == UNIT_FIELDS
    assert parse_entry(IDENTIFIER, UNIT_FIELDS) == UNIT


@pytest.mark.parametrize(("entry", "fields"), [(ENTRY, FIELDS), (UNIT, UNIT_FIELDS)], ids=["jpeg", "video"])
def test_a_camera_s_own_time_is_one_more_field(entry, fields):
    timed = entry._replace(camera_time_nano=1731076200119000000)
    assert entry_fields(timed) == (*fields, b"c", b"1731076200119000000")
    assert parse_entry(IDENTIFIER, entry_fields(timed)) == timed


@pytest.mark.parametrize("time", [b"", b"-1", b"1.5", b"1" * 20, "1", None, b"\xd9\xa1"])
def test_a_camera_time_that_is_none_is_refused(time):
    with pytest.raises(WireError, match="field b'c'"):
        parse_entry(IDENTIFIER, (*FIELDS, b"c", time))


def test_a_jpeg_is_shown_when_it_is_captured_whatever_its_entry_says():
    assert parse_entry(IDENTIFIER, (*FIELDS, b"p", b"-40000")) == ENTRY


@pytest.mark.parametrize("offset", [b"", b"-", b"1.5", b"+1", b"--1", b"1" * 16, "1", None, b"\xd9\xa1"])
def test_an_offset_that_is_none_is_refused(offset):
    fields = [offset if field == b"-40000" else field for field in UNIT_FIELDS]
    with pytest.raises(WireError, match="p"):
        parse_entry(IDENTIFIER, fields)


@settings(max_examples=examples(200), deadline=None)
@given(entries)
def test_every_entry_parses_back(entry):
    identifier = entry_id(entry.unix_nano, entry.sequence)
    assert parse_entry(identifier.encode(), entry_fields(entry)) == entry
    # As it comes out of a reply.
    assert parse_entry(identifier.encode(), list(entry_fields(entry))) == entry
    assert parse_entry_id(identifier) == parse_entry_id(identifier.encode()) == (entry.unix_nano, entry.sequence)


@settings(max_examples=examples(100), deadline=None)
@given(entries, st.randoms(use_true_random=False))
def test_fields_may_come_in_any_order_and_with_others_among_them(entry, random):
    flat = entry_fields(entry)
    pairs = [*zip(flat[0::2], flat[1::2], strict=True), (b"later", b"field")]
    random.shuffle(pairs)
    fields = [part for pair in pairs for part in pair]
    assert parse_entry(entry_id(entry.unix_nano, entry.sequence).encode(), fields) == entry


@pytest.mark.parametrize(
    "identifier",
    ["", "-", "1-", "-1", "1", "a-1", "1-a", "1-1-1", "+1-1", "1--1", "1 -1", "1_0-1", "١-1", "1-²", "0x1-1"],
)
def test_an_id_that_is_not_unix_nano_and_sequence_is_refused(identifier):
    for text in (identifier, identifier.encode()):
        with pytest.raises(WireError, match="journal entry id"):
            parse_entry_id(text)


@pytest.mark.parametrize("identifier", [b"1731076200123456789-0", b"1731076200123456789-100000"])
def test_a_sequence_that_no_frame_has_is_refused(identifier):
    with pytest.raises(WireError, match="sequence"):
        parse_entry(identifier, FIELDS)


@pytest.mark.parametrize("name", ["s", "w", "h", "e", "k"])
def test_a_missing_field_is_named(name):
    at = FIELDS.index(name.encode())
    with pytest.raises(WireError, match=re.escape(f"{IDENTIFIER!r} has no field {name.encode()!r}")):
        parse_entry(IDENTIFIER, FIELDS[:at] + FIELDS[at + 2 :])


@pytest.mark.parametrize("form", [tuple, list])
def test_a_name_without_a_value_is_a_missing_field(form):
    with pytest.raises(WireError, match="has no field b'k'"):
        parse_entry(IDENTIFIER, form(FIELDS[:-3]))


def test_an_entry_of_an_older_version_has_no_number():
    assert parse_entry(IDENTIFIER, FIELDS[:-2]) == ENTRY._replace(number=0)
    assert entry_fields(ENTRY._replace(number=0)) == FIELDS[:-2]


@pytest.mark.parametrize("value", [b"", b"x", b"-5", b"+5", b"1_000", b" 7", b"7 ", b"1.0", b"\xff", "٧".encode()])
def test_a_number_that_the_writer_never_writes_is_refused(value):
    for name in (b"s", b"w", b"h", b"n"):
        fields = list(FIELDS)
        fields[fields.index(name) + 1] = value
        with pytest.raises(WireError, match=re.escape(repr(IDENTIFIER))):
            parse_entry(IDENTIFIER, fields)


@pytest.mark.parametrize("name", ["s", "w", "h", "n"])
def test_the_field_of_a_wrong_number_is_named(name):
    fields = list(FIELDS)
    fields[fields.index(name.encode()) + 1] = b"x"
    with pytest.raises(WireError, match=rf"field b'{name}'"):
        parse_entry(IDENTIFIER, fields)


def test_an_encoding_that_is_not_ascii_is_refused():
    with pytest.raises(WireError):
        parse_entry(IDENTIFIER, (*FIELDS[:7], b"\xff", *FIELDS[8:]))


def test_a_number_that_python_will_not_read_is_refused_too():
    with pytest.raises(WireError):
        parse_entry_id(b"9" * 5000 + b"-1")
    with pytest.raises(WireError):
        parse_entry(IDENTIFIER, (b"s", b"9" * 5000, *FIELDS[2:]))


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(max_size=40), st.lists(st.binary(max_size=12) | st.sampled_from(FIELDS), max_size=12))
def test_whatever_a_stream_holds_only_a_wire_error_comes_out(identifier, fields):
    with contextlib.suppress(WireError):
        parse_entry(identifier, fields)


DESCRIPTION = [
    b"length", 3, b"last-generated-id", b"300-3", b"max-deleted-entry-id", b"150-2",
    b"first-entry", [b"200-2", [b"s", b"1"]], b"last-entry", [b"300-3", [b"s", b"1"]],
]  # fmt: skip


usual = st.tuples(st.just(IDENTIFIER) | st.binary(max_size=25), st.just(list(FIELDS)))


@given(usual, st.dictionaries(st.integers(0, 11), st.binary(max_size=20) | st.from_regex(rb"\A[0-9 ]{1,19}\Z")))
def test_the_quick_way_finds_what_the_other_finds(entry, changes):
    identifier, fields = entry
    for place, value in changes.items():
        fields[place] = value
    found = []
    for parse in (parse_entry, _parse_any):
        try:
            found.append(parse(identifier, fields))
        except WireError as error:
            found.append(str(error))
    assert found[0] == found[1]


@pytest.mark.parametrize("fields", [[b"s 1", *FIELDS[2:], b"x"], [*FIELDS[:11], 5]])
def test_what_only_looks_like_an_entry_when_it_is_joined_is_none(fields):
    with pytest.raises(WireError):
        parse_entry(IDENTIFIER, fields)


def test_a_stream_s_description_is_its_span():
    assert parse_span(DESCRIPTION) == JournalSpan((200, 2), (300, 3), (150, 2))


def test_an_older_server_does_not_say_what_was_deleted():
    assert parse_span(DESCRIPTION[:4] + DESCRIPTION[6:]) == JournalSpan((200, 2), (300, 3), (300, 3))


def test_an_empty_stream_begins_behind_its_last():
    assert parse_span([*DESCRIPTION[:7], None, *DESCRIPTION[8:]]) == JournalSpan((301, 0), (300, 3), (150, 2))


@given(st.lists(st.binary() | st.integers() | st.none() | st.lists(st.binary())))
def test_a_description_that_does_not_read_is_a_wire_error(reply):
    with pytest.raises(WireError):
        parse_span(reply)
