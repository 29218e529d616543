"""Keys with hash tags: all of a camera's keys in one slot, parsed back exactly, apart from keys without tags."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire import keys
from engine.wire.cluster import slot_of
from engine.wire.events import key_of
from engine.wire.journal import JournalEntry
from engine.wire.keys import FrameKey, TaggedPrefix
from engine.wire.metadata import FrameEvents, Gop, GopEvents
from engine.wire.resp import FrameFraming, VideoFraming
from engine.wire.ring_owner import RingOwner, build_owner, show_owner
from tests.examples import examples
from tests.wire.names import names, sequences, unix_nanos

NANO = 1731024000123456789
FRAMES = TaggedPrefix("frames")
ENTRY = JournalEntry(NANO, 1, 60_000, 640, 480, "jpeg", True)
plain = names.filter(lambda name: not set("{}") & set(name))
tagged_keys = st.builds(FrameKey, plain, plain.map(TaggedPrefix), plain, unix_nanos, sequences)


def test_the_camera_s_part_is_in_braces_and_nothing_else():
    key = FrameKey("default", FRAMES, "cam1", NANO, 1)
    assert keys.build_frame_key(key) == "default:frames:{cam1}:1731024000123456789:00001"
    assert keys.build_video_key(key) == "engine:default:video:frames/{cam1}:1731024000123456789:00001"
    assert keys.journal_key("default", FRAMES, "cam1") == "engine:default:journal:frames:{cam1}"
    assert keys.video_journal_key("default", FRAMES, "cam1") == "engine:default:journal:frames/{cam1}"
    assert keys.rebuilt_key("default", FRAMES, "cam1") == "engine:default:rebuild:frames:{cam1}"
    assert keys.video_rebuilt_key("default", FRAMES, "cam1") == "engine:default:rebuild:frames/{cam1}"
    assert keys.draft_key("default", FRAMES, "cam1", "0a1b") == "engine:default:rebuild:0a1b{cam1}"
    assert keys.build_video_key(key._replace(camera="a/b:c")) == (
        "engine:default:video:frames/{a%2Fb%3Ac}:1731024000123456789:00001"
    )
    # Two sites, one with tags and one without, meet in these.
    for name in (keys.cameras_key, keys.written_key, keys.cursor_key):
        assert name("default", FRAMES) == name("default", "frames")
    assert keys.lease_key("default", FRAMES, "cam1") == keys.lease_key("default", "frames", "cam1")


def test_the_bytes_of_a_frame_and_of_an_access_unit_name_tagged_keys():
    framing = FrameFraming("default", FRAMES, "cam1", 300_000)
    assert framing.before(NANO, 1, 3) == (
        b"*5\r\n$3\r\nSET\r\n$47\r\ndefault:frames:{cam1}:1731024000123456789:00001\r\n$3\r\n"
    )
    assert b"*15\r\n$4\r\nXADD\r\n$36\r\nengine:default:journal:frames:{cam1}\r\n" in framing.after(
        NANO, 1, 3, 640, 480, 0, 1
    )
    video = VideoFraming("default", FRAMES, "cam1", 300_000)
    assert b"$60\r\nengine:default:video:frames/{cam1}:1731024000123456789:00001\r\n" in video.before(NANO, 1, 3)
    assert video.journal == "engine:default:journal:frames/{cam1}"


def test_events_carry_tagged_keys_and_are_read_back():
    event = FrameEvents("default", FRAMES, "cam1", 300).event(ENTRY)
    assert event.redis_key == "default:frames:{cam1}:1731024000123456789:00001"
    key = key_of(event.redis_key, "cam1")
    assert key == ("default", "frames", "cam1", NANO, 1)
    assert keys.build_frame_key(key) == event.redis_key
    gop = GopEvents("default", FRAMES, "cam1", 300).event(Gop(ENTRY, ENTRY, 1, 60_000, NANO))
    assert gop.first_key == gop.last_key == "engine:default:video:frames/{cam1}:1731024000123456789:00001"


def test_an_event_of_a_camera_whose_own_name_has_braces_is_no_tagged_one():
    text = keys.build_frame_key(FrameKey("default", "frames", "{cam1}", NANO, 1))
    key = key_of(text, "{cam1}")
    assert (key.camera, keys.is_tagged(key.prefix)) == ("{cam1}", False)


@settings(max_examples=examples(300), deadline=None)
@given(tagged_keys)
def test_every_tagged_key_parses_back(key):
    for build, parse in (
        (keys.build_frame_key, keys.parse_frame_key),
        (keys.build_video_key, keys.parse_video_key),
    ):
        text = build(key)
        found = parse(text, tagged=True)
        assert found == parse(text.encode(), tagged=True) == key
        assert build(found) == text
        with pytest.raises(WireError):
            parse(build(key._replace(prefix=str(key.prefix))), tagged=True)


@settings(max_examples=examples(300), deadline=None)
@given(tagged_keys)
def test_all_keys_of_a_camera_that_transactions_change_are_in_one_slot(key):
    vhost, prefix, camera = key[:3]
    frames = {
        keys.build_frame_key(key),
        keys.journal_key(vhost, prefix, camera),
        keys.rebuilt_key(vhost, prefix, camera),
        keys.draft_key(vhost, prefix, camera, "0123456789abcdef"),
    }
    assert len({slot_of(name.encode()) for name in frames}) == 1
    video = {
        keys.build_video_key(key),
        keys.video_journal_key(vhost, prefix, camera),
        keys.video_rebuilt_key(vhost, prefix, camera),
    }
    assert len({slot_of(name.encode()) for name in video}) == 1
    if "/" not in camera:
        # A slash is encoded in names of video only, so that their hash tag differs there.
        assert len({slot_of(name.encode()) for name in frames | video}) == 1


@settings(max_examples=examples(300), deadline=None)
@given(st.text(max_size=60))
def test_only_what_building_writes_parses(part):
    for text in (f"v:frames:{part}:{NANO}:00001", f"v:frames:{{{part}}}:{NANO}:00001"):
        try:
            key = keys.parse_frame_key(text, tagged=True)
        except WireError:
            continue
        assert keys.build_frame_key(key) == text


@pytest.mark.parametrize("place", range(3), ids=("vhost", "prefix", "camera"))
@pytest.mark.parametrize("name", ["a{b", "a}b", "{a}", "{}"])
def test_a_name_with_a_brace_is_refused(name, place):
    parts = ["default", "frames", "cam1"]
    parts[place] = name
    vhost, prefix, camera = parts
    for build in (keys.frame_key_prefix, keys.video_key_prefix, keys.journal_key, keys.video_journal_key):
        build(vhost, prefix, camera)
        with pytest.raises(WireError, match="has a brace"):
            build(vhost, TaggedPrefix(prefix), camera)


def test_rings_of_a_site_with_tags_have_another_owner():
    tagged, without = RingOwner("client-a", FRAMES, "embedded"), RingOwner("client-a", "frames", "embedded")
    assert build_owner(tagged) == b"client-a:frames:embedded:tags"
    assert build_owner(without) == b"client-a:frames:embedded"
    assert show_owner(build_owner(tagged)) == "vhost 'client-a', prefix 'frames' with key tags, Redis embedded"
    long = RingOwner("client-a", TaggedPrefix("x" * 600), "embedded")
    assert build_owner(long) != build_owner(long._replace(prefix="x" * 600))
