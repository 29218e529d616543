from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.wire import resp
from engine.wire.journal import (
    ENCODINGS,
    OFFSET_US_END,
    VIDEO_ENCODINGS,
    JournalEntry,
    entry_fields,
    parse_entry,
)
from engine.wire.keys import FrameKey, build_frame_key, build_video_key, journal_key, video_journal_key
from engine.wire.resp import FrameFraming, VideoFraming
from tests.examples import examples
from tests.wire.names import HOSTILE, names, sequences, unix_nanos


def parse_requests(data: bytes) -> list[list[bytes]]:
    """All commands of a RESP request, by the protocol's own lengths; AssertionError where the framing is off."""
    commands, at = [], 0

    def number(kind: bytes) -> int:
        nonlocal at
        end = data.index(b"\r\n", at)
        assert data[at : at + 1] == kind, f"{data[at : at + 20]!r} at {at} does not begin with {kind!r}"
        digits, at = data[at + 1 : end], end + 2
        assert digits == b"%d" % int(digits)
        return int(digits)

    while at < len(data):
        arguments = []
        for _ in range(number(b"*")):
            length = number(b"$")
            arguments.append(data[at : at + length])
            at += length + 2
            assert len(arguments[-1]) == length
            assert data[at - 2 : at] == b"\r\n"
        commands.append(arguments)
    return commands


def test_set_and_xadd_of_the_design_s_example_byte_for_byte():
    framing = FrameFraming("supermercado_vhost", "frames", "cam4", 300_000)
    assert framing.before(1731024000123456789, 1, 7) == (
        b"*5\r\n$3\r\nSET\r\n"
        b"$56\r\nsupermercado_vhost:frames:cam4:1731024000123456789:00001\r\n"
        b"$7\r\n"
    )  # fmt: skip
    assert framing.after(1731024000123456789, 1, 7, 1280, 720, 0, 1, 4711) == (
        b"\r\n$2\r\nPX\r\n$6\r\n300000\r\n"
        b"*15\r\n$4\r\nXADD\r\n"
        b"$45\r\nengine:supermercado_vhost:journal:frames:cam4\r\n"
        b"$21\r\n1731024000123456789-1\r\n"
        b"$1\r\ns\r\n$1\r\n7\r\n"
        b"$1\r\nw\r\n$4\r\n1280\r\n"
        b"$1\r\nh\r\n$3\r\n720\r\n"
        b"$1\r\ne\r\n$4\r\njpeg\r\n"
        b"$1\r\nk\r\n$1\r\n1\r\n"
        b"$1\r\nn\r\n$4\r\n4711\r\n"
    )
    assert framing.keep() == (
        b"*3\r\n$7\r\nPEXPIRE\r\n$45\r\nengine:supermercado_vhost:journal:frames:cam4\r\n$6\r\n300000\r\n"
    )
    assert framing.trim(1731024000000000000) == (
        b"*5\r\n$5\r\nXTRIM\r\n$45\r\nengine:supermercado_vhost:journal:frames:cam4\r\n"
        b"$5\r\nMINID\r\n$1\r\n~\r\n$19\r\n1731024000000000000\r\n"
    )


def test_set_and_xadd_of_an_access_unit_byte_for_byte():
    framing = VideoFraming("supermercado_vhost", "frames", "cam4", 300_000)
    assert framing.before(1731024000123456789, 1, 7) == (
        b"*5\r\n$3\r\nSET\r\n"
        b"$69\r\nengine:supermercado_vhost:video:frames/cam4:1731024000123456789:00001\r\n"
        b"$7\r\n"
    )  # fmt: skip
    assert framing.after(1731024000123456789, 1, 7, 1280, 720, 2, 0, 4711, -40_000) == (
        b"\r\n$2\r\nPX\r\n$6\r\n300000\r\n"
        b"*17\r\n$4\r\nXADD\r\n"
        b"$45\r\nengine:supermercado_vhost:journal:frames/cam4\r\n"
        b"$21\r\n1731024000123456789-1\r\n"
        b"$1\r\ns\r\n$1\r\n7\r\n"
        b"$1\r\nw\r\n$4\r\n1280\r\n"
        b"$1\r\nh\r\n$3\r\n720\r\n"
        b"$1\r\ne\r\n$4\r\nh265\r\n"
        b"$1\r\nk\r\n$1\r\n0\r\n"
        b"$1\r\np\r\n$6\r\n-40000\r\n"
        b"$1\r\nn\r\n$4\r\n4711\r\n"
    )


units = st.builds(
    JournalEntry,
    unix_nanos,
    sequences,
    st.integers(1, 300),
    st.integers(1, 99_999),
    st.integers(1, 99_999),
    st.sampled_from(VIDEO_ENCODINGS),
    st.booleans(),
    st.integers(1, 2**40),
    st.integers(1 - OFFSET_US_END, OFFSET_US_END - 1),
    st.none() | st.integers(1, 10**19 - 1),
)


@settings(max_examples=examples(300), deadline=None)
@given(names, names, names, st.lists(units, min_size=1, max_size=4))
def test_access_units_parse_to_the_entries_that_readers_find(vhost, prefix, camera, batch):
    """One framing frames them all, so the fields that it keeps from one to the next are seen, too."""
    framing = VideoFraming(vhost, prefix, camera, 1000)
    for unit in batch:
        payload = bytes(unit.size)
        data = framing.before(unit.unix_nano, unit.sequence, unit.size) + payload + framing.after(
            unit.unix_nano, unit.sequence, unit.size, unit.width, unit.height,
            ENCODINGS.index(unit.encoding), int(unit.keyframe), unit.number, unit.offset_us,
            unit.camera_time_nano or 0,
        )  # fmt: skip
        stored, listed = parse_requests(data)
        key = build_video_key(FrameKey(vhost, prefix, camera, unit.unix_nano, unit.sequence))
        assert stored == [b"SET", key.encode(), payload, b"PX", b"1000"]
        assert listed[:2] == [b"XADD", video_journal_key(vhost, prefix, camera).encode()]
        assert listed[3:] == list(entry_fields(unit))
        assert parse_entry(listed[2], listed[3:]) == unit


def frame_commands(vhost, prefix, camera, ttl_ms, frame):
    """What one frame's bytes must parse to."""
    unix_nano, sequence, payload, width, height, keyframe, entry = frame
    key = build_frame_key(FrameKey(vhost, prefix, camera, unix_nano, sequence)).encode()
    journal = journal_key(vhost, prefix, camera).encode()
    numbers = [b"%d" % number for number in (len(payload), width, height)]
    fields = [b"s", numbers[0], b"w", numbers[1], b"h", numbers[2], b"e", b"jpeg", b"k", b"%d" % keyframe]
    fields += [b"n", b"%d" % entry]
    return [
        [b"SET", key, payload, b"PX", b"%d" % ttl_ms],
        [b"XADD", journal, b"%d-%d" % (unix_nano, sequence), *fields],
    ]


def framed(framing, frame):
    unix_nano, sequence, payload, width, height, keyframe, entry = frame
    return (
        framing.before(unix_nano, sequence, len(payload))
        + payload
        + framing.after(unix_nano, sequence, len(payload), width, height, 0, keyframe, entry)
    )


frames = st.tuples(
    unix_nanos,
    sequences,
    st.binary(min_size=1, max_size=300) | st.sampled_from((b"\r\n", b"$5\r\nhello\r\n", b"%d%b%%")),
    st.integers(1, 99_999),
    st.integers(1, 99_999),
    st.integers(0, 1),
    st.integers(0, 2**40),
)
ttls = st.integers(1, 31_536_000_000)


@settings(max_examples=examples(300), deadline=None)
@given(names, names, names, ttls, st.lists(frames, min_size=1, max_size=3), unix_nanos)
def test_a_batch_parses_to_exactly_the_commands_of_its_frames(vhost, prefix, camera, ttl_ms, batch, oldest):
    framing = FrameFraming(vhost, prefix, camera, ttl_ms)
    journal = journal_key(vhost, prefix, camera).encode()
    data = resp.MULTI + b"".join(framed(framing, frame) for frame in batch)
    data += framing.keep() + framing.trim(oldest) + resp.EXEC
    expected = [command for frame in batch for command in frame_commands(vhost, prefix, camera, ttl_ms, frame)]
    assert parse_requests(data) == [
        [b"MULTI"],
        *expected,
        [b"PEXPIRE", journal, b"%d" % ttl_ms],
        [b"XTRIM", journal, b"MINID", b"~", b"%d" % oldest],
        [b"EXEC"],
    ]
    assert len(expected) == len(batch) * framing.replies_per_frame


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_in_any_place_leaves_the_framing_whole(name):
    frame = (1731024000123456789, 7, b"\xff\xd8%d\r\n\xff\xd9", 640, 480, 1, 5)
    for vhost, prefix, camera in ((name, "p", "c"), ("v", name, "c"), ("v", "p", name)):
        commands = parse_requests(framed(FrameFraming(vhost, prefix, camera, 1), frame))
        assert commands == frame_commands(vhost, prefix, camera, 1, frame)


@settings(max_examples=examples(100), deadline=None)
@given(names, names, names, unix_nanos, sequences)
def test_questions_about_a_journal_name_its_stream(vhost, prefix, camera, unix_nano, sequence):
    framing = FrameFraming(vhost, prefix, camera, 1000)
    journal = journal_key(vhost, prefix, camera).encode()
    identifier = b"%d-%d" % (unix_nano, sequence)
    assert parse_requests(framing.lookup(unix_nano, sequence)) == [[b"XRANGE", journal, identifier, identifier]]
    assert parse_requests(framing.discard(unix_nano, sequence)) == [
        [b"PEXPIRE", build_frame_key(FrameKey(vhost, prefix, camera, unix_nano, sequence)).encode(), b"0"]
    ]
    assert framing.journal.encode() == journal
    assert parse_requests(framing.newest()) == [[b"XREVRANGE", journal, b"+", b"-", b"COUNT", b"1"]]


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6))
def test_any_command_parses_back_to_its_arguments(arguments):
    assert parse_requests(resp.command(*arguments)) == [arguments]
