"""Live pictures: each packet is decoded once, from whichever moment on, and what is lost costs its GOP at most."""

from __future__ import annotations

import asyncio
import gc
import itertools
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from engine import AsyncFrameStore, FrameStore
from engine.client.decoder import Decoder
from engine.client.picture_reader import PictureReader
from tests.client.stocked import PREFIX, T0, VHOST
from tests.client.stored_video import (
    CAR,
    PERSON,
    Image,
    StoredUnit,
    arrivals,
    clip,
    decoded,
    dropped,
    encoded,
    expected,
    gone,
    joined,
    psnr,
    stock_video,
    without_reordering_hints,
)
from tests.system.site import ROOT

SAME_DB = 50


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sequences of the units that were given to FFmpeg."""
    numbers: list[int] = []
    decode = Decoder._decode

    def counted(self: Decoder, unit: Any) -> Any:
        numbers.append(unit.sequence)
        return decode(self, unit)

    monkeypatch.setattr(Decoder, "_decode", counted)
    return numbers


def drained(tail: Any) -> list[Any]:
    """All pictures that are there."""
    return list(iter(tail.poll, None))


def assert_same(found: list[Any], wanted: list[tuple[int, Image]]) -> None:
    assert [picture.unix_nano for picture in found] == [shown for shown, _ in wanted]
    for picture, (_, image) in zip(found, wanted, strict=True):
        assert psnr(picture.image, image) > SAME_DB, picture


@pytest.mark.one_server
def test_a_tail_gives_each_picture_as_its_packet_comes_and_decodes_it_once(store, client, fed):
    source = clip(CAR, 80)
    units = arrivals(source)
    wanted = expected(units, source)
    stock_video(client, units[:23])
    tail = store.tail_pictures("cam1")
    assert tail.poll() is None
    assert fed == list(range(1, 24)), "from the key frame on, at once"
    for number in range(23, 80):
        stock_video(client, [units[number]])
        assert_same(drained(tail), [wanted[number]])
    assert fed == list(range(1, 81))
    assert (tail.missing, tail.skipped) == (0, 0)


@pytest.mark.one_server
@pytest.mark.parametrize("hints", [True, False])
def test_pictures_with_b_frames_come_in_the_order_in_which_they_are_shown(store, client, hints):
    source = encoded("h264", bframes=7, params="b-pyramid=normal:b-adapt=0", frames=60)
    source = source if hints else without_reordering_hints(source)
    units = arrivals(source)
    stock_video(client, units[:15])
    tail = store.tail_pictures("cam1")
    found = drained(tail)
    for number in range(15, 60):
        stock_video(client, [units[number]])
        found += drained(tail)
    wanted = expected(units, source)
    # The last ones wait for those that may be shown before them.
    first = [shown for shown, _ in wanted].index(found[0].unix_nano)
    assert 0 < len(wanted) - first - len(found) <= 2
    assert_same(found, wanted[first : first + len(found)])


def test_a_tail_begins_at_any_time(store, client, fed):
    source = clip(PERSON, 60)
    units = arrivals(source)
    stock_video(client, units)
    wanted = expected(units, source)
    for since in (T0, wanted[17][0], wanted[17][0] - 1, wanted[40][0] + 1):
        fed.clear()
        tail = store.tail_pictures("cam1", since)
        found = drained(tail)
        later = [one for one in wanted if one[0] >= since]
        # The last one waits for those that may be shown before it.
        assert_same(found, later[:-1])
        # From the key frame on.
        assert fed == list(range((60 - len(later)) // 10 * 10 + 1, 61))


def test_a_tail_s_position_resumes_behind_the_picture_that_was_taken(store, client):
    source = clip(PERSON, 50)
    units = arrivals(source)
    stock_video(client, units)
    wanted = expected(units, source)
    tail = store.tail_pictures(since=T0)
    found = list(itertools.islice(tail, 3))
    while len(found) < 45:
        tail.close()
        position = tail.position
        tail = store.tail_pictures(since=position)
        found += itertools.islice(tail, 3)
    assert_same(found, wanted[:45])


def test_a_tail_s_position_resumes_although_what_was_taken_has_expired(store, client):
    source = clip(PERSON, 40)
    units = arrivals(source)
    stock_video(client, units)
    wanted = expected(units, source)
    tail = store.tail_pictures("cam1", T0)
    assert_same(list(itertools.islice(tail, 5)), wanted[:5])
    client.xtrim(f"engine:{VHOST}:journal:{PREFIX}/cam1", minid=units[20].unix_nano, approximate=False)
    assert_same(drained(store.tail_pictures(since=tail.position)), wanted[20:-1])


def test_a_tail_over_several_cameras_has_a_decoder_for_each(store, client, fed):
    clips = {"h264": clip(PERSON, 30), "h265": encoded("h265", bframes=2), "till": clip(CAR, 30)}
    for camera, source in clips.items():
        stock_video(client, arrivals(source, camera))
    tail = store.tail_pictures(since=T0)
    found = drained(tail)
    for camera, source in clips.items():
        pictures = [picture for picture in found if picture.camera == camera]
        wanted = expected(arrivals(source, camera), source)
        assert len(wanted) - 2 <= len(pictures)
        assert_same(pictures, wanted[: len(pictures)])
    assert len(fed) == sum(len(source.units) for source in clips.values())


def test_a_camera_that_appears_is_followed_from_its_first_unit(store, client, monkeypatch):
    monkeypatch.setattr("engine.client.tail._CAMERAS_SECONDS", 0.0)
    tail = store.tail_pictures()
    assert tail.poll() is None
    source = clip(CAR, 20)
    stock_video(client, arrivals(source, "new"))
    assert_same(drained(tail), expected(arrivals(source, "new"), source))


def test_after_a_loss_a_tail_goes_on_with_the_next_key_frame(store, client):
    source = clip(CAR, 130)
    units = arrivals(source)
    wanted = expected(units, source)
    stock_video(client, units[:10])
    tail = store.tail_pictures("cam1", T0)
    assert_same(drained(tail), wanted[:10])
    stock_video(client, gone(dropped(units, 30), 65)[10:])
    assert_same(drained(tail), wanted[10:30] + wanted[60:66] + wanted[120:])
    assert (tail.skipped, tail.missing) == (29 + 53, 1)


@pytest.mark.one_server
def test_a_tail_goes_on_over_a_change_of_size_and_codec(store, client):
    clips = [clip(CAR, 20), encoded("h264"), encoded("h265")]
    units = joined(*clips)
    tail = store.tail_pictures("cam1", T0)
    found = []
    stock_video(client, units[:1])
    for number in range(1, len(units)):
        found += drained(tail)
        stock_video(client, [units[number]])
    assert_same([*found, *drained(tail)], expected(units, *clips))


def test_a_tail_that_begins_without_a_key_frame_waits_for_one(store, client):
    source = clip(CAR, 70)
    units = arrivals(source)
    stock_video(client, units[1:5])
    tail = store.tail_pictures("cam1")
    assert tail.poll() is None
    stock_video(client, units[5:])
    assert_same(drained(tail), expected(units, source)[60:])
    assert tail.skipped == 55


# Decoders and memory


@pytest.mark.one_server
@pytest.mark.parametrize("end", ["exhausted", "closed", "left", "forgotten"])
def test_decoders_are_freed_at_the_end(shared_redis, client, end):
    stock_video(client, arrivals(clip(PERSON, 30)))
    with FrameStore(shared_redis.address, VHOST) as store:
        for make in (lambda: store.pictures("cam1"), lambda: store.tail_pictures("cam1", T0)):
            pictures = make()
            next(pictures)
            decoder = next(one for one in gc.get_objects() if isinstance(one, Decoder) and one._context is not None)
            there = weakref.ref(decoder)
            if end == "exhausted":
                if "tail" in repr(pictures._reader).lower():
                    pictures.close()
                assert list(pictures)[0:0] == []
            elif end == "closed":
                pictures.close()
                assert next(pictures, None) is None
                assert pictures.poll() is None
            elif end == "left":
                with pictures:
                    pass
            if end == "forgotten":
                del pictures, decoder
                assert there() is None, "without the garbage collector"
            else:
                assert decoder._context is None


@pytest.mark.one_server
def test_what_a_long_range_holds_in_memory_does_not_grow_with_it(shared_redis, client):
    """20,000 units, about 50 MB, of which the reader gets 4 MB at a time."""
    source = clip(PERSON)
    units: list[StoredUnit] = []
    for number in range(14):
        units += arrivals(source, first=T0 + number * 200 * 10**9, sequence=1 + len(units))
    stock_video(client, units)
    script = f"""
import sys
sys.path[:0] = ["."]
from engine import FrameStore
def own_kb():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Private_"))
with FrameStore({shared_redis.address!r}, {VHOST!r}) as store:
    pictures = store.pictures("cam1", fps=1)
    for _, picture in zip(range(300), pictures):
        pass
    before = own_kb()
    count = sum(1 for _ in pictures)
    print(count, own_kb() - before, pictures.skipped)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True, cwd=ROOT
    )
    count, grown_kb, skipped = map(int, done.stdout.split())
    assert (count, skipped) == (14 * 140 - 300, 0)
    assert grown_kb < 8_000


# asyncio


@pytest.mark.one_server
def test_decoding_does_not_run_in_the_event_loop_s_thread(shared_redis, client, monkeypatch):
    stock_video(client, arrivals(clip(PERSON, 30)))
    threads: set[int] = set()
    work = PictureReader.work

    def noted(self: PictureReader) -> None:
        threads.add(threading.get_ident())
        work(self)

    monkeypatch.setattr(PictureReader, "work", noted)

    async def read() -> int:
        async with AsyncFrameStore(shared_redis.address, VHOST) as store:
            assert await store.picture("cam1") is not None
            tail = store.tail_pictures("cam1", T0)
            assert await tail.poll() is not None
            await tail.close()
            return len([picture async for picture in store.pictures("cam1")])

    assert asyncio.run(read()) == 30
    assert threads
    assert threading.get_ident() not in threads


def test_a_task_that_is_cancelled_loses_no_picture(shared_redis, client):
    source = clip(PERSON, 40)
    units = arrivals(source)
    stock_video(client, units)

    async def read() -> list[Any]:
        found: list[Any] = []
        async with (
            AsyncFrameStore(shared_redis.address, VHOST, chunk_bytes=1) as store,
            store.pictures("cam1") as pictures,
        ):
            for turn in itertools.count():
                task = asyncio.ensure_future(anext(pictures, None))
                # It is cancelled later and later, and at times not at all.
                for _ in range(turn % 12):
                    await asyncio.sleep(0)
                if turn % 12 < 10:
                    task.cancel()
                try:
                    picture = await task
                except asyncio.CancelledError:
                    continue
                if picture is None:
                    break
                found.append(picture)
        return found

    assert_same(asyncio.run(read()), expected(units, source))


@pytest.mark.one_server
def test_two_iterators_of_one_store_do_not_meet(store, client):
    source = clip(PERSON, 20)
    units = arrivals(source)
    stock_video(client, units)
    one, other = store.pictures("cam1"), store.pictures("cam1", colour="rgb")
    pairs = list(zip(one, other, strict=True))
    assert [first.unix_nano for first, _ in pairs] == [second.unix_nano for _, second in pairs]
    assert len(pairs) == len(decoded(source))
    assert all((first.image == second.image[:, :, ::-1]).all() for first, second in pairs)


def test_threads_may_share_a_store(shared_redis, client):
    source = clip(PERSON, 30)
    stock_video(client, arrivals(source))
    counts: list[int] = []
    with FrameStore(shared_redis.address, VHOST) as store:
        threads = [threading.Thread(target=lambda: counts.append(_count(store.pictures("cam1")))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts == [30] * 4


def _count(pictures: Iterator[Any]) -> int:
    return sum(1 for _ in pictures)
