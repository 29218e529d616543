from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire import keys
from engine.wire.keys import FrameKey, build_frame_key, parse_frame_key
from tests.examples import examples
from tests.wire.globs import matches
from tests.wire.names import HOSTILE, names, sequences, unix_nanos

EXAMPLE = "supermercado_vhost:frames:cam4:1731024000123456789:00001"
frame_keys = st.builds(FrameKey, names, names, names, unix_nanos, sequences)


def test_the_design_s_example_is_built_and_parsed():
    key = FrameKey("supermercado_vhost", "frames", "cam4", 1731024000123456789, 1)
    assert build_frame_key(key) == EXAMPLE
    assert parse_frame_key(EXAMPLE) == key
    assert parse_frame_key(EXAMPLE.encode()) == key


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("a:b", "a%3Ab"),
        ("50%", "50%25"),
        ("two words", "two%20words"),
        ("\n\x00\x7f", "%0A%00%7F"),
        ("*?[]\\", "%2A%3F%5B%5D%5C"),
        ("\u2028", "%E2%80%A8"),
        ("\x85", "%C2%85"),
        ("/loja/câmera-1_~.", "/loja/câmera-1_~."),
    ],
)
def test_only_what_would_be_ambiguous_is_encoded(name, part):
    assert keys.encode_part(name) == part
    assert keys.decode_part(part) == name


@settings(max_examples=examples(300), deadline=None)
@given(frame_keys)
def test_every_key_parses_back_to_what_built_it(key):
    text = build_frame_key(key)
    assert parse_frame_key(text) == key
    assert parse_frame_key(text.encode()) == key


@settings(max_examples=examples(300), deadline=None)
@given(names)
def test_an_encoded_part_has_no_separator_space_control_or_glob_character(name):
    part = keys.encode_part(name)
    assert not re.search(r"[:*?\[\]\\\s\x00-\x1f\x7f-\x9f]", part)
    assert keys.decode_part(part) == name


@settings(max_examples=examples(200), deadline=None)
@given(frame_keys, frame_keys)
def test_different_frames_have_different_keys(one, other):
    assume(one != other)
    assert build_frame_key(one) != build_frame_key(other)


@settings(max_examples=examples(300), deadline=None)
@given(st.text(max_size=30) | st.text(alphabet="%0123456789abcdefABCDEF:é ", max_size=12))
def test_a_part_is_refused_unless_it_is_exactly_what_encoding_writes(part):
    try:
        name = keys.decode_part(part)
    except WireError:
        return
    assert keys.encode_part(name) == part


@pytest.mark.parametrize(
    "part", ["", "%3a", "%41", "%2F", "%", "%3", "%zz", "%C2", "%FF", "%E2%80", "%C0%BA", "%ED%B3%BF", "a b", "*", "\n"]
)
def test_text_that_encoding_would_not_have_written_is_refused(part):
    with pytest.raises(WireError, match=re.escape(repr(part))):
        keys.decode_part(part)


@pytest.mark.parametrize("name", ["", "\ud800", "a\udcff"])
def test_a_name_that_no_key_can_hold_is_refused(name):
    with pytest.raises(WireError):
        keys.encode_part(name)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a:frames:cam1:1731024000123456789", "4 parts"),
        (EXAMPLE + ":1", "6 parts"),
        ("", "1 parts"),
        ("::cam1:1731024000123456789:00001", "key part ''"),
        ("a:b:c%3a:1731024000123456789:00001", "key part 'c%3a'"),
        ("a:b:c:173102400012345678:00001", "unix_nano '173102400012345678'"),
        ("a:b:c:17310240001234567890:00001", "unix_nano '17310240001234567890'"),
        ("a:b:c:0731024000123456789:00001", "unix_nano '0731024000123456789'"),
        ("a:b:c:1731024000123456789\n:00001", r"unix_nano '1731024000123456789\\n'"),
        ("a:b:c:١٧٣١٠٢٤٠٠٠١٢٣٤٥٦٧٨٩:00001", "unix_nano"),
        ("a:b:c:1731024000123456789:1", "sequence '1'"),
        ("a:b:c:1731024000123456789:000001", "sequence '000001'"),
        ("a:b:c:1731024000123456789:00000", "sequence '00000'"),
        ("a:b:c:1731024000123456789:+0001", r"sequence '\+0001'"),
        ("a:b:c:1731024000123456789:0000١", "sequence"),
    ],
)
def test_a_key_that_does_not_parse_says_which_part_is_wrong(text, part):
    with pytest.raises(WireError, match=part):
        parse_frame_key(text)


def test_a_key_that_is_not_utf8_is_refused():
    with pytest.raises(WireError, match="UTF-8"):
        parse_frame_key(b"a:b:\xff:1731024000123456789:00001")


@settings(max_examples=examples(300), deadline=None)
@given(st.text(max_size=80) | st.binary(max_size=80))
@example("a:b:c:9999999999999999999:99999")
def test_only_what_building_writes_parses(text):
    try:
        key = parse_frame_key(text)
    except WireError:
        return
    assert build_frame_key(key) == (text if isinstance(text, str) else text.decode())


@pytest.mark.parametrize("unix_nano", [0, -1, 10**18 - 1, 10**19])
def test_a_stamp_that_has_not_19_digits_is_refused(unix_nano):
    with pytest.raises(WireError, match="unix_nano"):
        keys.frame_key_suffix(unix_nano, 1)


@pytest.mark.parametrize("sequence", [0, -1, 100_000])
def test_a_number_that_has_not_five_digits_from_1_is_refused(sequence):
    with pytest.raises(WireError, match="sequence"):
        keys.frame_key_suffix(10**18, sequence)


def test_numbers_run_from_1_to_99999_and_begin_again():
    assert keys.next_sequence(0) == 1
    assert keys.next_sequence(1) == 2
    assert keys.next_sequence(99_999) == 1


def test_the_engine_s_own_keys_are_as_designed():
    assert keys.journal_key("meu-cliente", "frames", "cam4") == "engine:meu-cliente:journal:frames:cam4"
    assert keys.cursor_key("meu-cliente", "frames") == "engine:meu-cliente:cursor:frames"
    assert keys.cameras_key("meu-cliente", "frames") == "engine:meu-cliente:cameras:frames"
    assert keys.lease_key("meu-cliente", "frames", "cam4") == "engine:meu-cliente:lease:frames:cam4"
    assert keys.journal_key("a:b", "c*", "d e") == "engine:a%3Ab:journal:c%2A:d%20e"


# A small pool makes the names of the pattern meet the names in the key, which is where a match could come from.
pool = st.sampled_from(
    ("engine", "journal", "cursor", "cameras", "lease", "frames", "cam1", "a", "a:b", "*", "engine:a")
)
words = (pool | names).filter(lambda name: name not in keys.RESERVED_WORDS)
vhosts = (pool | names).filter(lambda name: name != keys.ENGINE)


@settings(max_examples=examples(1000), deadline=None)
@given(vhosts, words, words, vhosts, words, words)
def test_no_pattern_of_the_product_page_meets_a_key_of_the_engine(vhost, prefix, camera, v, p, c):
    v, p, c = (keys.encode_part(name) for name in (v, p, c))
    own = (
        keys.journal_key(vhost, prefix, camera),
        keys.cursor_key(vhost, prefix),
        keys.cameras_key(vhost, prefix),
        keys.recovery_key(vhost, prefix),
        keys.rebuild_key(vhost, "0123456789abcdef"),
        keys.rebuilt_key(vhost, prefix, camera),
        keys.lease_key(vhost, prefix, camera),
        keys.site_key(vhost, camera),
        keys.written_key(vhost, prefix),
        keys.video_journal_key(vhost, prefix, camera),
        keys.video_written_key(vhost, prefix),
        keys.video_cursor_key(vhost, prefix),
        keys.build_video_key(keys.FrameKey(vhost, prefix, camera, 10**18, 1)),
    )
    for pattern in (f"{v}:*", f"{v}:{p}:*", f"{v}:{p}:{c}:*", f"*:{p}:{c}:*"):
        for key in own:
            assert not matches(pattern, key)


@settings(max_examples=examples(300), deadline=None)
@given(frame_keys)
def test_every_key_of_video_parses_back(key):
    text = keys.build_video_key(key)
    assert keys.parse_video_key(text) == keys.parse_video_key(text.encode()) == key
    with pytest.raises(WireError):
        keys.parse_frame_key(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "engine:v:video:frames:1731024000123456789:00001",
        "engine:v:video:a/b/c:1731024000123456789:00001",
        "engine:v:video:/c:1731024000123456789:00001",
        "engine:v:video:a/:1731024000123456789:00001",
        "engine:v:videos:a/b:1731024000123456789:00001",
        "motor:v:video:a/b:1731024000123456789:00001",
        "engine:v:video:a/b:1731024000123456789:00000",
        "engine:v:video:a/b:123:00001",
        b"engine:v:video:a/\xff:1731024000123456789:00001",
    ],
)
def test_what_is_no_key_of_video_is_refused(text):
    with pytest.raises(WireError):
        keys.parse_video_key(text)


def test_a_camera_like_a_time_stamp_under_a_prefix_with_a_slash_would_meet_video():
    """So the configuration refuses it."""
    unit = keys.build_video_key(keys.FrameKey("v", "a", "b", 1731024000123456789, 1))
    assert matches("*:a/b:1731024000123456789:*", unit)
    assert keys.matched_by_frames("a/b", "1731024000123456789")
    assert not keys.matched_by_frames("ab", "1731024000123456789")
    assert not keys.matched_by_frames("a/b", "cam1")


@settings(max_examples=examples(300), deadline=None)
@given(frame_keys)
def test_the_product_page_s_patterns_meet_the_frames(key):
    v, p, c = (keys.encode_part(name) for name in key[:3])
    for pattern in (f"{v}:*", f"{v}:{p}:*", f"{v}:{p}:{c}:*", f"*:{p}:{c}:*"):
        assert matches(pattern, build_frame_key(key))


@pytest.mark.parametrize("word", sorted(keys.RESERVED_WORDS))
def test_a_reserved_word_would_let_a_pattern_meet_a_key_of_the_engine(word):
    own = {keys.journal_key("a", "b", "c"), keys.cursor_key("a", "b"), keys.cameras_key("a", "b")}
    own |= {keys.rebuild_key("a", "0123"), keys.lease_key("a", "b", "c")}
    own |= {keys.build_video_key(keys.FrameKey("a", "b", "c", 10**18, 1))}
    assert any(matches(f"*:a:{word}:*", key) for key in own)


def test_vhost_engine_would_let_a_pattern_meet_a_key_of_the_engine():
    assert matches("engine:*", keys.journal_key("a", "b", "c"))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_survive_in_every_place(name):
    for key in (
        FrameKey(name, "frames", "cam", 10**18, 1),
        FrameKey("v", name, "cam", 10**18, 1),
        FrameKey("v", "frames", name, 10**18, 1),
    ):
        assert parse_frame_key(build_frame_key(key)) == key
