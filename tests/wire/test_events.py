from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire import metadata
from engine.wire.events import OtherEvent, key_of, parse_message
from engine.wire.keys import FrameKey, build_frame_key
from engine.wire.metadata import FrameEvent, StatusEvent
from engine.wire.rfc3339 import rfc3339
from tests.examples import examples
from tests.wire.names import names, sequences, unix_nanos
from tests.wire.test_metadata import DESIGN_EXAMPLE, GOP_EXAMPLE, STATUS, events, gop_events

#: As the Go edition sends it: no event_type, timestamp_nano, sequence, vhost.
GO = {
    "camera_id": "cam1",
    "timestamp": "2024-11-08T14:30:00.123456789Z",
    "redis_key": "meu-cliente:frames:cam1:1731076200123456789:00001",
    "width": 1280,
    "height": 720,
    "size_bytes": 245678,
    "encoding": "jpeg",
}
GO_EVENT = FrameEvent(
    "cam1", "2024-11-08T14:30:00.123456789Z", 1731076200123456789, "00001",
    "meu-cliente:frames:cam1:1731076200123456789:00001", "meu-cliente", 1280, 720, "jpeg", 245678, 245678, 0,
)  # fmt: skip


def go(**changes):
    """The Go edition's event with other fields; None leaves one out."""
    document = {**GO, **changes}
    return json.dumps({name: value for name, value in document.items() if value is not None}).encode()


def parsed(**changes):
    (event,) = parse_message(go(**changes))
    return event


def test_the_go_edition_s_event_is_completed_from_its_key():
    assert parse_message(go()) == [GO_EVENT]


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(events | gop_events, max_size=4))
def test_what_the_engine_sends_is_read_as_it_was_sent(sent):
    assert parse_message(metadata.encode_batch(sent)) == sent
    for event in sent:
        assert parse_message(metadata.encode_event(event)) == [event]


def test_a_status_is_read_as_it_was_sent():
    assert parse_message(metadata.encode_event(STATUS)) == [STATUS]
    bare = b'{"event_type":"camera_status","camera_id":"cam4","timestamp":"2024-11-08T14:30:00.5Z","state":"offline"}'
    assert parse_message(bare) == [StatusEvent("cam4", "2024-11-08T14:30:00.5Z", 1731076200500000000, "offline", 0, "")]


def test_a_batch_may_mix_editions_and_be_empty():
    both = b"[" + DESIGN_EXAMPLE + b"," + go() + b"," + metadata.encode_event(STATUS) + b"]"
    assert parse_message(both) == [metadata.decode_event(DESIGN_EXAMPLE), GO_EVENT, STATUS]
    assert parse_message(b"[]") == []


def test_events_of_unknown_types_are_no_errors_whatever_their_fields():
    plain = b'{"event_type":"door_opened"}'
    odd = b'{"event_type":"video_clip","camera_id":7,"width":"wide","frames":[1,2],"first_key":null}'
    for body in (plain, odd):
        name = json.loads(body)["event_type"]
        assert parse_message(body) == [OtherEvent(name)]
        assert parse_message(b"[" + DESIGN_EXAMPLE + b"," + body + b"," + GOP_EXAMPLE + b"]") == [
            metadata.decode_event(DESIGN_EXAMPLE),
            OtherEvent(name),
            metadata.decode_event(GOP_EXAMPLE),
        ]
    for bad in (go(width="1280"), b"[]", b"7", go(event_type=None, camera_id=None)):
        with pytest.raises(WireError, match="element 1"):
            parse_message(b"[" + odd + b"," + bad + b"]")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"first_key": None}, "first_key"),
        ({"last_key": "meu-cliente:frames:cam4:1731076200190123456:00001"}, "last_key"),
        ({"last_key": "engine:meu-cliente:video:frames/cam5:1731076200190123456:00001"}, "not behind"),
        ({"last_key": "engine:meu-cliente:video:frames/cam4:1731076200000000000:00001"}, "not behind"),
        ({"timestamp": "now"}, "timestamp"),
        ({"last_timestamp": "now"}, "timestamp"),
        ({"frames": -1}, "frames"),
        ({"duration_seconds": -0.5}, "duration_seconds"),
        ({"camera_id": ""}, "camera_id"),
    ],
)
def test_a_bad_gop_is_refused_and_the_part_named(changes, part):
    document = {**json.loads(GOP_EXAMPLE), **changes}
    body = json.dumps({name: value for name, value in document.items() if value is not None}).encode()
    with pytest.raises(WireError, match=part):
        parse_message(body)


def test_a_gop_s_times_are_those_of_its_keys():
    document = json.loads(GOP_EXAMPLE)
    for name in ("timestamp", "timestamp_nano", "sequence", "last_timestamp", "last_timestamp_nano", "last_sequence"):
        del document[name]
    assert parse_message(json.dumps(document).encode()) == [metadata.decode_event(GOP_EXAMPLE)]


def test_either_name_of_the_size_gives_both():
    for name in ("size_bytes", "frame_size_bytes"):
        event = parsed(**{"size_bytes": None, name: 7})
        assert (event.size_bytes, event.frame_size_bytes) == (7, 7)


def test_what_nobody_says_is_zero():
    event = parsed(width=None, height=None, size_bytes=None, encoding=None, timestamp=None)
    assert (event.width, event.height, event.size_bytes, event.ttl_seconds, event.encoding) == (0, 0, 0, 0, "jpeg")
    assert event.timestamp == rfc3339(event.timestamp_nano)


def test_what_the_event_says_wins_over_its_key():
    event = parsed(timestamp_nano=1731076200123456790, sequence="7", vhost="outro", camera_id="porta")
    said = (event.timestamp_nano, event.sequence, event.vhost, event.camera_id)
    assert said == (1731076200123456790, "00007", "outro", "porta")
    assert event.redis_key == GO["redis_key"]


@pytest.mark.parametrize("vhost", ["", "/"])
def test_a_vhost_that_says_nothing_is_the_key_s(vhost):
    assert parsed(vhost=vhost).vhost == "meu-cliente"


@pytest.mark.parametrize(
    ("redis_key", "key"),
    [
        ("frames:meu-cliente:cam1:2024-11-08T14:30:00.123456789Z:00001", ("meu-cliente", "frames", "cam1")),
        ("pics:/:door:north:2024-11-08T11:30:00.123456789-03:00:00001", ("default", "pics", "door:north")),
        ("meu-cliente:frames:porta norte:1731076200123456789:00001", ("meu-cliente", "frames", "porta norte")),
        ("meu-cliente:frames:a:b%:1731076200123456789:00001", ("meu-cliente", "frames", "a:b%")),
        ("a%3Ab:frames:porta%20norte:1731076200123456789:00001", ("a:b", "frames", "porta norte")),
    ],
    ids=["before 1.2", "before 1.2, colons", "plain name", "plain name, colon", "ours"],
)
def test_keys_of_every_edition_are_read_and_stay_as_they_are(redis_key, key):
    event = parsed(redis_key=redis_key)
    assert key_of(redis_key) == FrameKey(*key, 1731076200123456789, 1)
    assert (event.redis_key, event.vhost) == (redis_key, key[0])
    assert (event.timestamp_nano, event.sequence) == (1731076200123456789, "00001")


@settings(max_examples=examples(200), deadline=None)
@given(names, names, names, unix_nanos, sequences)
def test_every_key_of_ours_completes_its_event(vhost, prefix, camera, unix_nano, sequence):
    key = FrameKey(vhost, prefix, camera, unix_nano, sequence)
    event = parsed(redis_key=build_frame_key(key), camera_id=camera)
    assert (event.vhost, event.timestamp_nano, int(event.sequence)) == (vhost, unix_nano, sequence)
    assert key_of(event.redis_key) == key


def test_a_key_is_rebuilt_where_the_rest_says_enough():
    rest = {"timestamp_nano": 1731076200123456789, "sequence": "00001", "vhost": "meu-cliente"}
    assert parsed(redis_key=None, **rest) == GO_EVENT
    for name in rest:
        with pytest.raises(WireError, match=f"redis_key .*{name}"):
            parsed(redis_key=None, **{**rest, name: None})
    assert parsed(redis_key=None, **{**rest, "vhost": "/"}).redis_key.startswith("default:frames:")


def test_fields_of_other_versions_are_passed_over():
    assert parsed(later=[{"a": 1}], state=None) == GO_EVENT


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "truncated"),
        (b"null", "object"),
        (b"17", "object"),
        (b'"text"', "object"),
        (b"{}", "camera_id"),
        (b"[[]]", r"\[0\]"),
        (b"[" + DESIGN_EXAMPLE + b",{}]", "element 1.*camera_id"),
        (DESIGN_EXAMPLE + b"{}", "malformed"),
        (DESIGN_EXAMPLE.replace(b"cam4", b"\xff\xfe"), "metadata message"),
        (b"[" * 100_000, "metadata message"),
        (DESIGN_EXAMPLE[:-1] + b',"later":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "metadata message"),
        (go(camera_id=None), "camera_id"),
        (go(camera_id=""), "camera_id"),
        (go(camera_id=7), "camera_id"),
        (go(redis_key=None), "redis_key"),
        (go(redis_key="cam1.jpg"), "redis_key"),
        (go(redis_key=":meu-cliente:cam1:2024-11-08T14:30:00Z:00001"), "redis_key"),
        (go(redis_key="meu-cliente:frames:cam 1:1731076200123456789:00000"), "redis_key"),
        (go(redis_key=["a"]), "redis_key"),
        (go(event_type=7), "event_type"),
        (go(event_type="camera_status"), "state"),
        (go(event_type="camera_status", state="asleep"), "state"),
        (go(event_type="camera_status", state="active", timestamp=None), "timestamp"),
        (go(width="1280"), "width"),
        (go(width=-1), "width"),
        (go(height=10**30), "height"),
        (go(height=1.5), "height"),
        (go(size_bytes=2**62), "size_bytes"),
        (go(frame_size_bytes=-1), "frame_size_bytes"),
        (go(ttl_seconds=2**70), "ttl_seconds"),
        (go(timestamp_nano=-1), "timestamp_nano"),
        (go(timestamp_nano=1731076200), "timestamp_nano"),
        (go(timestamp_nano=10**25), "timestamp_nano"),
        (go().replace(b"1280", b"9" * 5000), "width"),
        (go(timestamp="yesterday"), "timestamp"),
        (go(sequence="seven"), "sequence"),
        (go(sequence="0"), "sequence"),
        (go(sequence=7), "sequence"),
        (go(sequence="123456"), "sequence"),
        (go(vhost=1), "vhost"),
    ],
)  # fmt: skip
def test_a_bad_message_is_refused_and_the_part_named(body, part):
    with pytest.raises(WireError, match=part):
        parse_message(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(
    [*GO, "event_type", "timestamp_nano", "sequence", "vhost", "frame_size_bytes", "ttl_seconds", "state"]
)


@st.composite
def mutated(draw):
    body = bytearray(draw(st.sampled_from((DESIGN_EXAMPLE, metadata.encode_event(STATUS), GOP_EXAMPLE, go()))))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, len(body) - 1), st.integers(0, 255)), max_size=4)):
        body[at] = byte
    return bytes(body)


@st.composite
def strange(draw):
    document = {**GO, **draw(st.dictionaries(fields, json_values, max_size=4))}
    return json.dumps([document] if draw(st.booleans()) else document).encode()


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(max_size=60) | mutated() | strange())
def test_whatever_is_delivered_only_a_wire_error_comes_out(body):
    try:
        found = parse_message(body)
    except WireError:
        return
    for event in found:
        if isinstance(event, OtherEvent):
            continue
        assert event.camera_id
        assert metadata.decode_event(metadata.encode_event(event)) == event
        if isinstance(event, FrameEvent):
            # What comes out can be asked for and is what the engine itself would send.
            assert event.redis_key.encode()
            assert 10**18 <= event.timestamp_nano < 10**19
            assert 1 <= int(event.sequence) <= 99_999
