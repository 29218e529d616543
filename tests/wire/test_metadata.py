from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire import metadata
from engine.wire.journal import JournalEntry
from engine.wire.keys import parse_frame_key, parse_video_key
from engine.wire.metadata import FrameEvent, FrameEvents, Gop, GopEvent, GopEvents, StatusEvent
from engine.wire.rfc3339 import rfc3339
from tests.examples import examples
from tests.wire.names import names, sequences, unix_nanos
from tests.wire.test_journal import entries

#: design.md, "Metadata", byte for byte.
DESIGN_EXAMPLE = (
    b'{"event_type":"frame","camera_id":"cam4","timestamp":"2024-11-08T14:30:00.123456789Z",'
    b'"timestamp_nano":1731076200123456789,"sequence":"00001",'
    b'"redis_key":"meu-cliente:frames:cam4:1731076200123456789:00001","vhost":"meu-cliente",'
    b'"width":1280,"height":720,"encoding":"jpeg","size_bytes":245678,"frame_size_bytes":245678,"ttl_seconds":300}'
)
ENTRY = JournalEntry(1731076200123456789, 1, 245678, 1280, 720, "jpeg", True)
STATUS = StatusEvent("cam4", "2024-11-08T14:30:00.123456789Z", 1731076200123456789, "stalled", 3, "sent nothing")
#: A GOP of two access units, and its event as consumers get it.
KEY_FRAME = JournalEntry(1731076200123456789, 99999, 45678, 1280, 720, "h264", True, 7)
GOP = Gop(
    KEY_FRAME, JournalEntry(1731076200190123456, 1, 1234, 1280, 720, "h264", False, 8), 2, 46912, 1731076200256789000
)
GOP_EXAMPLE = (
    b'{"event_type":"video_gop","camera_id":"cam4","timestamp":"2024-11-08T14:30:00.123456789Z",'
    b'"timestamp_nano":1731076200123456789,"sequence":"99999","last_timestamp":"2024-11-08T14:30:00.190123456Z",'
    b'"last_timestamp_nano":1731076200190123456,"last_sequence":"00001",'
    b'"first_key":"engine:meu-cliente:video:frames/cam4:1731076200123456789:99999",'
    b'"last_key":"engine:meu-cliente:video:frames/cam4:1731076200190123456:00001","vhost":"meu-cliente",'
    b'"width":1280,"height":720,"encoding":"h264","frames":2,"size_bytes":46912,"duration_seconds":0.133332,'
    b'"ttl_seconds":300}'
)

gop_events = st.builds(
    lambda vhost, prefix, camera, ttl, entry, more, frames: GopEvents(vhost, prefix, camera, ttl).event(
        Gop(entry, entry._replace(unix_nano=min(entry.unix_nano + more, 10**19 - 1)), frames, frames, entry.unix_nano)
    ),
    names,
    names,
    names,
    st.integers(1, 10**8),
    entries,
    st.integers(0, 10**12),
    st.integers(1, 10**5),
)
events = st.builds(
    lambda vhost, prefix, camera, ttl, entry: FrameEvents(vhost, prefix, camera, ttl).event(entry),
    names,
    names,
    names,
    st.integers(1, 10**8),
    entries,
)


def test_the_design_s_example_is_written_byte_for_byte():
    event = FrameEvents("meu-cliente", "frames", "cam4", 300).event(ENTRY)
    assert metadata.encode_event(event) == DESIGN_EXAMPLE
    assert metadata.decode_event(DESIGN_EXAMPLE) == event


def test_a_camera_s_own_time_is_the_last_field():
    timed = ENTRY._replace(camera_time_nano=1731076200119000000)
    event = FrameEvents("meu-cliente", "frames", "cam4", 300).event(timed)
    assert metadata.encode_event(event) == DESIGN_EXAMPLE[:-1] + b',"camera_time_nano":1731076200119000000}'
    gop = GopEvents("meu-cliente", "frames", "cam4", 300).event(
        GOP._replace(first=KEY_FRAME._replace(camera_time_nano=7))
    )
    assert metadata.encode_event(gop) == GOP_EXAMPLE[:-1] + b',"camera_time_nano":7}'


def test_a_batch_is_one_array_of_the_same_objects():
    event = FrameEvents("meu-cliente", "frames", "cam4", 300).event(ENTRY)
    assert metadata.encode_batch([event, event]) == b"[" + DESIGN_EXAMPLE + b"," + DESIGN_EXAMPLE + b"]"
    assert metadata.decode_batch(metadata.encode_batch([event, event])) == [event, event]


def test_a_status_event_is_written_as_designed():
    body = metadata.encode_event(STATUS)
    assert body == (
        b'{"event_type":"camera_status","camera_id":"cam4","timestamp":"2024-11-08T14:30:00.123456789Z",'
        b'"timestamp_nano":1731076200123456789,"state":"stalled","consecutive_failures":3,"last_error":"sent nothing"}'
    )
    assert metadata.decode_event(body) == STATUS


def test_a_gop_is_written_byte_for_byte():
    event = GopEvents("meu-cliente", "frames", "cam4", 300).event(GOP)
    assert metadata.encode_event(event) == GOP_EXAMPLE
    assert metadata.decode_event(GOP_EXAMPLE) == event


@settings(max_examples=examples(200), deadline=None)
@given(names, names, names, entries)
def test_a_gop_s_keys_are_those_of_its_access_units(vhost, prefix, camera, entry):
    event = GopEvents(vhost, prefix, camera, 300).event(Gop(entry, entry, 1, entry.size, entry.unix_nano))
    for key in (event.first_key, event.last_key):
        assert parse_video_key(key) == (vhost, prefix, camera, entry.unix_nano, entry.sequence)


@settings(max_examples=examples(200), deadline=None)
@given(events | gop_events)
def test_every_event_parses_back(event):
    body = metadata.encode_event(event)
    assert metadata.decode_event(body) == event
    assert json.loads(body)["camera_id"] == event.camera_id


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(events, max_size=5))
def test_every_batch_parses_back(batch):
    assert metadata.decode_batch(metadata.encode_batch(batch)) == batch


@settings(max_examples=examples(200), deadline=None)
@given(names, names, names, st.lists(entries, min_size=1, max_size=4))
def test_the_event_s_key_is_its_frame_s(vhost, prefix, camera, stored):
    made = FrameEvents(vhost, prefix, camera, 300)
    for entry in stored:
        event = made.event(entry)
        key = parse_frame_key(event.redis_key)
        assert key == (vhost, prefix, camera, entry.unix_nano, entry.sequence)
        assert (event.vhost, event.camera_id, event.timestamp_nano) == (vhost, camera, entry.unix_nano)
        assert event.sequence == f"{entry.sequence:05d}"
        assert event.size_bytes == event.frame_size_bytes == entry.size
        assert event.timestamp == rfc3339(entry.unix_nano)


@settings(max_examples=examples(200), deadline=None)
@given(unix_nanos)
def test_a_timestamp_holds_every_nanosecond(unix_nano):
    text = rfc3339(unix_nano)
    seconds, _, nanos = text.removesuffix("Z").partition(".")
    moment = datetime.fromisoformat(seconds).replace(tzinfo=UTC)
    assert len(nanos) == 9
    assert int(moment.timestamp()) * 10**9 + int(nanos) == unix_nano


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(unix_nanos, min_size=2, max_size=6), sequences)
def test_making_events_in_any_order_of_time_gives_the_right_timestamps(nanos, sequence):
    made = FrameEvents("v", "frames", "cam", 300)
    for nano in nanos:
        assert made.event(ENTRY._replace(unix_nano=nano, sequence=sequence)).timestamp == rfc3339(nano)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "metadata message"),
        (b"{}", "event_type"),
        (b'{"event_type":"other"}', "other"),
        (DESIGN_EXAMPLE[:-1], "metadata message"),
        (DESIGN_EXAMPLE.replace(b'"vhost":"meu-cliente",', b""), "vhost"),
        (DESIGN_EXAMPLE.replace(b'"width":1280', b'"width":"1280"'), "width"),
        (metadata.encode_event(STATUS).replace(b"stalled", b"asleep"), "asleep"),
    ],
)
def test_a_body_that_does_not_parse_says_what_is_wrong(body, part):
    with pytest.raises(WireError, match=part):
        metadata.decode_event(body)


def test_fields_of_a_later_version_are_passed_over():
    assert metadata.decode_event(DESIGN_EXAMPLE[:-1] + b',"later":[1]}') == metadata.decode_event(DESIGN_EXAMPLE)


@pytest.mark.parametrize(
    "body",
    [DESIGN_EXAMPLE.replace(b"cam4", b"\xff"), DESIGN_EXAMPLE[:-1] + b',"later":' + b"[" * 100_000],
    ids=["no UTF-8", "deep"],
)
def test_what_the_decoder_has_errors_of_its_own_for_is_a_wire_error_too(body):
    with pytest.raises(WireError, match="metadata message"):
        metadata.decode_event(body)
    with pytest.raises(WireError, match="metadata batch"):
        metadata.decode_batch(b"[" + body + b"]")


@st.composite
def mutated(draw):
    body = bytearray(draw(st.sampled_from((DESIGN_EXAMPLE, metadata.encode_event(STATUS), GOP_EXAMPLE))))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, len(body) - 1), st.integers(0, 255)), max_size=4)):
        body[at] = byte
    return bytes(body)


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(max_size=60) | mutated())
def test_whatever_a_broker_delivers_only_a_wire_error_comes_out(body):
    for decode, text in ((metadata.decode_event, body), (metadata.decode_batch, b"[" + body + b"]")):
        try:
            decoded = decode(text)
        except WireError:
            continue
        assert isinstance(decoded, (FrameEvent, StatusEvent, GopEvent, list))
