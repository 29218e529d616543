from __future__ import annotations

import contextlib
import typing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.shm.status_page import TEXT_BYTES_MAX
from engine.wire.state import (
    ERROR_CHARACTERS_MAX,
    OUTAGE_CHARACTERS_MAX,
    CameraStatus,
    Mode,
    ServerAway,
    State,
    change_of,
    decode_outages,
    decode_status,
    encode_outages,
    encode_status,
)
from tests.examples import examples

STATUS = CameraStatus("offline", 1731076200123456789, 7, "refused", "MJPG", "passthrough", 1280, 720)
statuses = st.builds(
    CameraStatus,
    st.sampled_from(typing.get_args(State)),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**31),
    st.text(max_size=ERROR_CHARACTERS_MAX),
    st.text(max_size=4),
    st.sampled_from(typing.get_args(Mode)),
    st.integers(0, 65_535),
    st.integers(0, 65_535),
)


def test_a_state_is_written_as_json():
    assert encode_status(STATUS) == (
        b'{"state":"offline","timestamp_nano":1731076200123456789,"consecutive_failures":7,"last_error":"refused",'
        b'"codec":"MJPG","mode":"passthrough","width":1280,"height":720,"decode":"","note":"","advice":""}'
    )


@settings(max_examples=examples(200), deadline=None)
@given(statuses)
def test_every_state_parses_back(status):
    assert decode_status(encode_status(status)) == status


def test_no_text_is_the_state_before_the_first():
    assert decode_status(b"") == CameraStatus()
    assert CameraStatus().state == "connecting"


@pytest.mark.parametrize("character", ["x", "\x01", '"', "é", "🎥"])
def test_the_longest_error_fits_a_page(character):
    error = (character * ERROR_CHARACTERS_MAX)[:ERROR_CHARACTERS_MAX]
    status = CameraStatus("connecting", 2**63, 2**63, error, "🎥🎥🎥🎥", "passthrough", 2**31, 2**31)
    assert len(encode_status(status)) <= TEXT_BYTES_MAX


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"{", "camera state"),
        (b'{"state":"asleep"}', "asleep"),
        (b'{"width":"wide"}', "width"),
        (b"[]", "camera state"),
    ],
)
def test_text_that_is_no_state_is_refused(text, part):
    with pytest.raises(WireError, match=part):
        decode_status(text)


@pytest.mark.parametrize("text", [b'{"last_error":"\xff"}', b'{"later":' + b"[" * 3000], ids=["no UTF-8", "deep"])
def test_what_the_decoder_has_errors_of_its_own_for_is_a_wire_error_too(text):
    with pytest.raises(WireError, match="camera state"):
        decode_status(text)


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 255))
def test_whatever_a_page_holds_only_a_wire_error_comes_out(noise, at, byte):
    text = bytearray(encode_status(STATUS))
    text[at % len(text)] = byte
    for damaged in (noise, bytes(text)):
        with contextlib.suppress(WireError):
            decode_status(damaged)


AWAY = {
    "redis": ServerAway(1731076200123456789, "it did not answer for 5 s"),
    "rabbitmq": ServerAway(1, "low on memory"),
}


def test_servers_that_are_away():
    text = (
        b'{"redis":{"since_nano":1731076200123456789,"error":"it did not answer for 5 s"},'
        b'"rabbitmq":{"since_nano":1,"error":"low on memory"}}'
    )
    assert encode_outages(AWAY) == text
    assert decode_outages(text) == AWAY
    assert decode_outages(b"") == {}


@pytest.mark.parametrize(
    "text", [b"[]", b'{"redis":1}', b'{"redis":{"since_nano":-1,"error":""}}', b'{"a":' + b"[" * 3000]
)
def test_text_that_names_no_servers_is_refused(text):
    with pytest.raises(WireError, match="servers away"):
        decode_outages(text)


def test_two_servers_fit_a_page_whatever_they_say():
    worst = {name: ServerAway(2**63 - 1, "\x00" * OUTAGE_CHARACTERS_MAX) for name in ("redis", "rabbitmq")}
    assert len(encode_outages(worst)) <= TEXT_BYTES_MAX


def test_states_of_one_change_are_one_piece_of_news():
    text = encode_status(STATUS)
    later = msgspec.structs.replace(STATUS, consecutive_failures=99, last_error="port 81 closed")
    assert change_of(encode_status(later)) == change_of(text)
    for other in ({"state": "active"}, {"timestamp_nano": 5}):
        assert change_of(encode_status(msgspec.structs.replace(STATUS, **other))) != change_of(text)
    assert change_of(b"noise") == b"noise"
