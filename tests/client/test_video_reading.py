"""Access units as they are stored: by time, counted, live; and what it costs to find and decode a picture."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import redis

from engine import FrameEntry, VideoEntry, VideoUnit
from engine.client.decoder import Decoder
from engine.client.tenant import ENTRIES_MAX
from engine.errors import QueryError, UnknownName
from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_fields, entry_id
from tests.client.stocked import PREFIX, T0, VHOST, row, stock
from tests.client.stored_video import (
    CAR,
    PERSON,
    StoredUnit,
    arrivals,
    clip,
    dropped,
    expected,
    gone,
    psnr,
    stock_video,
)
from tests.client.test_store_cost import Meter

JOURNAL = keys.video_journal_key(VHOST, PREFIX, "cam1")


def unit(stored: StoredUnit) -> VideoUnit:
    """What a reader is to get of a stored unit."""
    camera, unix_nano, sequence, offset_us, raw, encoding, width, height, _ = stored
    size = len(raw.data)
    return VideoUnit(
        VHOST, PREFIX, camera, unix_nano, sequence, size, width, height, encoding, raw.keyframe, offset_us, raw.data
    )


def entry(stored: StoredUnit) -> VideoEntry:
    whole = unit(stored)
    return VideoEntry(**{name: getattr(whole, name) for name in VideoEntry.__struct_fields__})


@pytest.fixture
def units(client: redis.Redis) -> list[StoredUnit]:
    """60 units with B-frames and a key frame every 10, beside JPEGs of the same camera."""
    units = arrivals(clip(PERSON, 60))
    stock_video(client, units)
    stock(client, row("cam1", 5))
    return units


def test_units_come_as_they_are_stored_in_the_order_of_their_arrival(store, units):
    assert list(store.video("cam1")) == [unit(one) for one in units]
    assert list(store.video_entries("cam1")) == [entry(one) for one in units]
    start, end = units[7].unix_nano, units[21].unix_nano
    part = units[7:22]
    assert list(store.video("cam1", start, end)) == [unit(one) for one in part]
    assert list(store.video("cam1", start, end, reverse=True, limit=4)) == [unit(one) for one in part[:-5:-1]]
    assert list(store.video_entries("cam1", start + 1, end - 1)) == [entry(one) for one in part[1:-1]]


def test_a_unit_tells_its_key_and_when_it_is_shown(store, client, units):
    first, second = list(store.video("cam1", limit=2))
    assert first.key == units[0].key()
    assert client.get(first.key) == first.data
    assert (first.keyframe, first.encoding, first.width, first.height) == (True, "h264", 768, 432)
    assert second.shown_nano == second.unix_nano + second.offset_us * 1000 == T0 + 400_000_000
    assert repr(second).startswith("<VideoUnit cam1 2024-11-08T00:00:00.223456789Z, 768x432 h264, ")
    assert len(repr(second)) < 250


@pytest.mark.parametrize("number", [0, 1, 7, 10, 13, 59])
def test_from_a_key_frame_on_everything_decodes_that_is_shown_from_then_on(store, units, number):
    start = units[number].shown_nano
    key = max((one for one in units if one.unit.keyframe and one.shown_nano <= start), key=lambda one: one.unix_nano)
    wanted = [one for one in units if one.unix_nano >= key.unix_nano]
    assert list(store.video("cam1", start, from_key=True)) == [unit(one) for one in wanted]
    found = list(store.video_entries("cam1", start, start + 10**9, from_key=True, limit=3))
    assert found == [entry(one) for one in wanted[:3]]


def test_from_a_key_frame_on_where_there_is_none_so_early(store, client):
    units = arrivals(clip(PERSON, 30))
    stock_video(client, units[3:])
    for start in (T0, units[5].unix_nano):
        found = list(store.video_entries("cam1", start, from_key=True))
        assert found == [entry(one) for one in units[3:] if one.unix_nano >= start]
    assert list(store.video_entries("cam1", T0 + 10**12, from_key=True)) == [entry(one) for one in units[20:]]
    with pytest.raises(QueryError, match="from_key or reverse"):
        store.video("cam1", from_key=True, reverse=True)


def test_counts_and_rates_are_of_frames_or_of_units(store, units):
    start, end = units[10].unix_nano, units[29].unix_nano
    assert (store.count("cam1"), store.count("cam1", video=True)) == (5, 60)
    assert store.count("cam1", start, end, video=True) == 20
    (bucket,) = store.rate("cam1", bucket="1h", video=True)
    assert (bucket.frames, bucket.bytes) == (60, sum(len(one.unit.data) for one in units))
    (bucket,) = store.rate("cam1", bucket="1h")
    assert bucket.frames == 5


def test_what_has_expired_is_left_out_and_counted(store, client):
    units = arrivals(clip(PERSON, 60))
    stock_video(client, gone(units, *range(25)))
    for found in (store.video("cam1"), store.video_entries("cam1")):
        assert [one.sequence for one in found] == list(range(26, 61))
        assert found.missing == 25
    assert store.count("cam1", video=True) == 35


def test_entries_that_the_engine_did_not_write_are_counted(store, client, units):
    strange: list[tuple[str, ...] | tuple[bytes, ...]] = [
        ("x", "1"),
        entry_fields(JournalEntry(T0, 1, 5, 64, 48, "jpeg", True)),
        entry_fields(JournalEntry(T0, 1, 5, 64, 48, "h266", True)),
        (*entry_fields(JournalEntry(T0, 1, 5, 64, 48, "h264", True))[:-2], b"p", b"soon"),
    ]
    for number, fields in enumerate(strange):
        client.execute_command("XADD", JOURNAL, entry_id(units[-1].unix_nano + 1 + number, 70), *fields)
    found = store.video("cam1")
    assert len(list(found)) == 60
    assert found.unreadable == len(strange)
    pictures = store.pictures("cam1")
    assert len(list(pictures)) == 60
    assert pictures.unreadable == len(strange)
    assert store.picture("cam1") is not None


def test_a_tail_of_units(store, client):
    units = arrivals(clip(PERSON, 30))
    stock_video(client, units[:5])
    tail, entries = store.tail_video(["cam1"]), store.tail_video_entries()
    assert tail.poll() is None
    assert entries.poll() is None
    stock_video(client, units[5:])
    assert list(itertools.islice(tail, 25)) == [unit(one) for one in units[5:]]
    assert list(itertools.islice(entries, 25)) == [entry(one) for one in units[5:]]
    rest = store.tail_video(since={"cam1": entry(units[27]).entry_id})
    assert [rest.poll(), rest.poll(), rest.poll()] == [unit(units[28]), unit(units[29]), None]


def test_frames_know_nothing_of_video(store, client, units):
    frames = [FrameEntry(VHOST, PREFIX, "cam1", T0 + n * 10**9, n + 1, 6, 64, 48, "jpeg", True) for n in range(5)]
    assert list(store.entries("cam1")) == frames
    assert len(list(store.range("cam1"))) == 5
    assert store.latest("cam1").encoding == store.at("cam1", "now").encoding == "jpeg"
    assert store.snapshot()["cam1"].encoding == "jpeg"
    assert store.stats().total.frames == 5
    assert len(list(itertools.islice(store.tail("cam1", T0), 5))) == 5
    assert store.get(frames[0].key).encoding == "jpeg"
    with pytest.raises(QueryError):
        store.get(units[0].key())


def test_an_unknown_camera_is_named_and_a_known_one_may_have_no_video(store, client):
    stock(client, row("till", 2))
    assert list(store.video("till")) == []
    assert store.count("till", video=True) == 0
    with pytest.raises(UnknownName, match="till"):
        list(store.video("tll"))
    with pytest.raises(UnknownName, match="till"):
        store.tail_video("tll").poll()


@pytest.mark.parametrize(
    "question",
    [
        lambda store: store.video("cam1", "now", "-1m"),
        lambda store: store.video("cam1", limit=-1),
        lambda store: store.video("", from_key=True),
        lambda store: store.video_entries("cam1", 1731024000),
        lambda store: store.tail_video([]),
        lambda store: store.tail_video(since={"cam1": "x"}),
        lambda store: store.rate("cam1", bucket="5", video=True),
    ],
)
def test_invalid_questions_are_refused(store, question):
    with pytest.raises(QueryError):
        question(store)


# What it costs


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sequences of the units that were given to FFmpeg."""
    numbers: list[int] = []
    decode = Decoder._decode

    def counted(self: Decoder, one: Any) -> Any:
        numbers.append(one.sequence)
        return decode(self, one)

    monkeypatch.setattr(Decoder, "_decode", counted)
    return numbers


@pytest.mark.one_server
def test_a_moment_s_picture_takes_one_round_trip_for_the_key_frame_and_one_for_the_packets(store, client, fed):
    source = clip(CAR)
    units = arrivals(source)
    stock_video(client, units)
    wanted = expected(units, source)
    meter = Meter(store, client)
    for number in (0, 1, 59, 60, 61, 250, 376):
        fed.clear()
        with meter:
            picture = store.picture("cam1", wanted[number][0])
        assert psnr(picture.image, wanted[number][1]) > 50
        assert meter.commands == {"xrevrange": 1, "mget": 1}
        assert fed == list(range(number // 60 * 60 + 1, number + 2))
    fed.clear()
    with meter:
        assert store.picture("cam1").unix_nano == wanted[-1][0]
    assert meter.commands == {"xrevrange": 1, "mget": 1}
    assert len(fed) == 377 - 360


def test_b_frames_behind_the_moment_s_picture_are_not_decoded(store, client, fed):
    source = clip(PERSON, 40)
    units = arrivals(source)
    stock_video(client, units)
    for number, one in enumerate(units):
        fed.clear()
        assert store.picture("cam1", one.shown_nano).entry.sequence == number + 1
        assert fed == list(range(number // 10 * 10 + 1, number + 2))


@pytest.mark.one_server
def test_a_followed_camera_s_newest_picture_takes_one_decode_and_one_round_trip_of_packets(store, client, fed):
    units = arrivals(clip(CAR, 60))
    stock_video(client, units[:20])
    tail = store.tail_pictures("cam1")
    assert tail.poll() is None
    meter = Meter(store, client)
    for one in units[20:40]:
        stock_video(client, [one])
        fed.clear()
        with meter:
            assert tail.poll().unix_nano == one.shown_nano
        assert fed == [one.sequence]
        assert meter.commands == {"xread": 1, "mget": 1}


@pytest.mark.one_server
def test_a_range_fetches_each_unit_once(store, client, fed):
    units = arrivals(clip(PERSON, 60))
    stock_video(client, units)
    meter = Meter(store, client)
    with meter:
        assert len(list(store.pictures("cam1", T0 + 3_300_000_000, T0 + 4_500_000_000))) == 13
    assert meter.commands == {"xrevrange": 1, "xrange": 1, "mget": 1}
    assert fed[0] == 31
    assert len(fed) == len(set(fed))


@pytest.mark.one_server
def test_few_pictures_a_second_neither_fetch_nor_decode_the_gops_between(store, client, fed, monkeypatch):
    monkeypatch.setattr("engine.client.payloads._FRAMES_MAX", 10)
    source = clip(PERSON, 1394)
    stock_video(client, arrivals(source))
    meter = Meter(store, client)
    with meter:
        assert len(list(store.pictures("cam1", T0, fps=0.1))) == 14
    assert len(fed) < 14 * 12
    fetched = sum(len(command) - 1 for trip in meter.trips for command in trip if command[0] == "MGET")
    assert fetched < 14 * 25
    assert sum(command[0] == "XRANGE" for trip in meter.trips for command in trip) == 1394 // ENTRIES_MAX + 1


@pytest.mark.one_server
def test_gone_key_frames_are_passed_over_in_a_few_round_trips(store, client):
    """However many: the journal's entries may stand longer than their units."""
    units = arrivals(clip(PERSON, 1000))
    stock_video(client, gone(units, *(number for number in range(20, 1000) if number % 10 == 0)))
    meter = Meter(store, client)
    with meter:
        picture = store.picture("cam1")
    assert picture.unix_nano == max(one.shown_nano for one in units[:20])
    assert len(meter.trips) < 10


@pytest.mark.one_server
def test_a_moment_long_before_or_after_costs_no_more(store, client):
    stock_video(client, dropped(arrivals(clip(PERSON, 30)), 0))
    meter = Meter(store, client)
    with meter:
        assert store.picture("cam1", T0 - 10**12) is None
    assert len(meter.trips) <= 3
    with meter:
        assert store.picture("cam1", "now") is not None
    assert len(meter.trips) == 2
