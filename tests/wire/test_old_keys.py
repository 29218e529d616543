from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire import keys
from engine.wire.keys import FrameKey
from engine.wire.old_keys import parse_old_key
from engine.wire.rfc3339 import parse_rfc3339, rfc3339
from tests.examples import examples
from tests.wire.names import HOSTILE, names, sequences, unix_nanos

TIME = "2024-11-08T14:30:00.123456789Z"
NANO = 1731076200123456789
KEY = f"frames:supermercado_vhost:cam4:{TIME}:00001"
#: A camera's name as the Go edition wrote it, with colons as they were, and even timestamps inside.
camera_names = names | st.lists(names | st.just(TIME), min_size=1, max_size=4).map(":".join)
#: A vhost has no colon: nothing would say where it ends.
vhost_names = names.filter(lambda name: ":" not in name and name != "/")


def test_the_page_s_example_is_read():
    key = FrameKey("supermercado_vhost", "frames", "cam4", NANO, 1)
    assert parse_old_key(KEY, "frames") == parse_old_key(KEY.encode(), "frames") == key


@pytest.mark.parametrize(
    ("text", "camera", "nano", "sequence"),
    [
        ("frames:v:cam4:2024-11-08T14:30:00Z:1", "cam4", 1731076200 * 10**9, 1),
        ("frames:v:cam4:2024-11-08T11:30:00.5-03:00:99999", "cam4", 17310762005 * 10**8, 99_999),
        (f"frames:v:floor:2:cam:{TIME}:00042", "floor:2:cam", NANO, 42),
        (f"frames:v:cam:{TIME}:00001:{TIME}:00042", f"cam:{TIME}:00001", NANO, 42),
        (f"frames:v:{TIME}:{TIME}:00042", TIME, NANO, 42),
        (f"frames:v:2024-11-08T14:30:00+05:30:{TIME}:00042", "2024-11-08T14:30:00+05:30", NANO, 42),
        (f"frames:v:::{TIME}:00042", ":", NANO, 42),
        (f"frames:v:%3A*:{TIME}:00042", "%3A*", NANO, 42),
        (f"frames:v:two\nlines:{TIME}:00042", "two\nlines", NANO, 42),
    ],
)
def test_what_stands_between_vhost_and_timestamp_is_the_camera(text, camera, nano, sequence):
    assert parse_old_key(text, "frames") == FrameKey("v", "frames", camera, nano, sequence)


@settings(max_examples=examples(300), deadline=None)
@given(vhost_names, names, camera_names, unix_nanos, sequences)
def test_every_old_key_is_read_as_it_was_meant(vhost, prefix, camera, nano, sequence):
    text = f"{prefix}:{vhost}:{camera}:{rfc3339(nano)}:{sequence:05d}"
    key = FrameKey(vhost, prefix, camera, nano, sequence)
    assert parse_old_key(text, prefix) == parse_old_key(text.encode(), prefix) == key
    # And has a key of ours.
    assert keys.parse_frame_key(keys.build_frame_key(key)) == key


@pytest.mark.parametrize("camera", HOSTILE)
def test_hostile_cameras_are_read(camera):
    assert parse_old_key(f"frames:v:{camera}:{TIME}:00001", "frames").camera == camera


@pytest.mark.parametrize("vhost", ["", "/"])
def test_the_broker_s_default_vhost_is_the_tenant_default(vhost):
    assert parse_old_key(f"frames:{vhost}:cam4:{TIME}:00001", "frames").vhost == "default"


@pytest.mark.parametrize("prefix", ["a:b", "frames:v", "f*", "2024", "(", "\\d"])
def test_a_prefix_is_taken_as_it_is(prefix):
    assert parse_old_key(f"{prefix}:v:cam4:{TIME}:00001", prefix) == FrameKey("v", prefix, "cam4", NANO, 1)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "does not begin with 'frames'"),
        ("frames", "does not begin with 'frames'"),
        (f"frame:v:cam4:{TIME}:00001", "does not begin with 'frames'"),
        (f"Frames:v:cam4:{TIME}:00001", "does not begin with 'frames'"),
        (f"v:frames:cam4:{NANO}:00001", "does not begin with 'frames'"),
        (f"frames:v:cam4:{NANO}:00001", "RFC 3339 timestamp"),
        (f"frames:v:{TIME}:00001", "RFC 3339 timestamp"),
        (f"frames:v::{TIME}:00001", "RFC 3339 timestamp"),
        (f"frames:v:cam4:{TIME}", "RFC 3339 timestamp"),
        (f"frames:v:cam4:{TIME}:", "RFC 3339 timestamp"),
        (f"frames:v:cam4:{TIME}:x", "RFC 3339 timestamp"),
        (f"frames:v:cam4:{TIME}:-1", "RFC 3339 timestamp"),
        (f"frames:v:cam4:{TIME}:00001 ", "RFC 3339 timestamp"),
        (f"frames:v:cam4:{TIME}:00001\n", "RFC 3339 timestamp"),
        (f"frames:v:cam4:{TIME}:٠٠٠٠١", "RFC 3339 timestamp"),
        ("frames:v:cam4:2024-11-08T14:30:00:00001", "RFC 3339 timestamp"),
        ("frames:v:cam4:2024-11-08T25:30:00Z:00001", "a time that no day has"),
        ("frames:v:cam4:2024-11-31T14:30:00Z:00001", "2024-11-31"),
        ("frames:v:cam4:1999-11-08T14:30:00Z:00001", "unix_nano"),
        ("frames:v:cam4:1969-11-08T14:30:00Z:00001", "unix_nano"),
        ("frames:v:cam4:2300-11-08T14:30:00Z:00001", "unix_nano"),
        (f"frames:v:cam4:{TIME}:00000", "sequence 0"),
        (f"frames:v:cam4:{TIME}:100000", "sequence 100000"),
        (f"frames:v:cam4:{TIME}:{'9' * 30}", "sequence 9"),
        (b"frames:v:\xff:2024-11-08T14:30:00Z:00001", "not UTF-8"),
    ],
    ids=str,
)
def test_what_is_no_old_key_is_refused_and_the_part_named(text, part):
    with pytest.raises(WireError, match=re.escape(part)) as caught:
        parse_old_key(text, "frames")
    assert repr(text) in str(caught.value)


def test_a_sequence_that_python_will_not_read_is_refused_too():
    with pytest.raises(WireError):
        parse_old_key(f"frames:v:cam4:{TIME}:{'1' * 5000}", "frames")


@settings(max_examples=examples(300), deadline=None)
@given(
    st.text(max_size=60)
    | st.binary(max_size=60)
    | st.lists(st.sampled_from((TIME, "v", "cam", "", "00001", "2024-11-08T14", "30", "00Z", "x")), max_size=9).map(
        ":".join
    )
)
def test_of_any_text_only_a_wire_error_or_what_it_says_comes_out(rest):
    text = b"frames:" + rest if isinstance(rest, bytes) else f"frames:{rest}"
    try:
        key = parse_old_key(text, "frames")
    except WireError:
        return
    plain = text.decode() if isinstance(text, bytes) else text
    timestamp, _, sequence = plain.removeprefix("frames:").partition(f":{key.camera}:")[2].rpartition(":")
    assert (parse_rfc3339(timestamp), int(sequence)) == (key.unix_nano, key.sequence)
