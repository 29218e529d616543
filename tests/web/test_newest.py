"""Requests for newest frames share looks at Redis, and never one that began before them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from engine.client.tenant import Tenant
from engine.errors import QueryError, RedisUnavailable
from engine.web.newest import Newest

START = 1_700_000_000_000_000_000
FIELDS = [b"s", b"3", b"w", b"1", b"h", b"1", b"e", b"jpeg", b"k", b"1", b"n", b"1"]
TENANT = Tenant("default", "frames")


class Redis:
    """Answers queries as Redis does, from the newest frame of each camera; may be held between answer and arrival."""

    def __init__(self, *cameras: str) -> None:
        self.newest = dict.fromkeys(cameras, 1)
        self.gone: set[str] = set()
        self.trips: list[list[tuple[Any, ...]]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None

    async def run(self, query: Any) -> Any:
        try:
            commands = next(query)
            while True:
                self.trips.append(commands)
                error, replies = self.error, [self.reply(*command) for command in commands]
                await self.open.wait()
                await asyncio.sleep(0)
                if error:
                    raise error
                commands = query.send(replies)
        except StopIteration as stop:
            return stop.value

    def reply(self, name: str, *arguments: Any) -> Any:
        if name == "XREVRANGE":
            number = self.newest.get(arguments[0].rpartition(":")[2])
            return [[f"{START + number}-{number}".encode(), FIELDS]] if number else []
        if name == "EXISTS":
            return int(arguments[0] not in self.gone)
        assert name == "MGET"
        return [None if key in self.gone else key[-3:].encode() for key in arguments]

    def count(self, name: str) -> int:
        return sum(command[0] == name for trip in self.trips for command in trip)

    async def close(self) -> None:
        pass


def play(scene: Callable[[Redis, Newest], Coroutine[Any, Any, None]], *cameras: str) -> None:
    async def run() -> None:
        redis = Redis(*(cameras or ("cam",)))
        newest = Newest(redis, TENANT)  # type: ignore[arg-type]
        await asyncio.wait_for(scene(redis, newest), 10)
        await newest.close()

    asyncio.run(run())


async def began(redis: Redis) -> None:
    """A look is under way: Redis has answered, and nobody has the answer yet."""
    while not redis.trips:
        await asyncio.sleep(0)


def test_a_request_is_not_answered_by_a_look_that_began_before_it():
    async def scene(redis: Redis, newest: Newest) -> None:
        redis.open.clear()
        early = asyncio.create_task(newest.get("cam"))
        await began(redis)
        redis.newest["cam"] = 2
        late = [asyncio.create_task(newest.get("cam")) for _ in range(10)]
        await asyncio.sleep(0.01)
        redis.open.set()
        assert [(await task).sequence for task in (early, *late)] == [1, *[2] * 10]
        assert redis.count("XREVRANGE") == 2, "those who came meanwhile share a look"

    play(scene)


def test_a_payload_that_is_kept_is_not_fetched_again():
    async def scene(redis: Redis, newest: Newest) -> None:
        first = await newest.get("cam")
        again = await newest.get("cam")
        assert (first.data, again.data, redis.count("MGET"), len(redis.trips)) == (b"001", b"001", 1, 3)
        redis.newest["cam"] = 2
        assert (await newest.get("cam")).data == b"002"
        redis.gone.add("default:frames:cam:1700000000000000002:00002")
        assert await newest.get("cam") is None, "it was deleted"

    play(scene)


def test_a_reader_that_has_the_frame_gets_its_entry_only():
    async def scene(redis: Redis, newest: Newest) -> None:
        key = "default:frames:cam:1700000000000000001:00001"
        entry = await newest.get("cam", key)
        assert (entry.key, hasattr(entry, "data"), redis.count("MGET")) == (key, False, 0)
        both = await asyncio.gather(newest.get("cam", key), newest.get("cam"))
        assert [one.data for one in both] == [b"001"] * 2

    play(scene)


def test_many_cameras_share_a_look_and_too_many_do_not():
    names = [f"cam{number}" for number in range(40)]

    async def scene(redis: Redis, newest: Newest) -> None:
        found = await asyncio.gather(*(newest.get(name) for name in names))
        assert [frame.camera for frame in found] == names
        assert [sum(command[0] == "XREVRANGE" for command in trip) for trip in redis.trips] == [32, 0, 8, 0]

    play(scene, *names)


def test_an_error_ends_all_who_wait_and_the_next_request_asks_again():
    async def scene(redis: Redis, newest: Newest) -> None:
        redis.error = RedisUnavailable("away")
        redis.open.clear()
        tasks = [asyncio.create_task(newest.get("cam"))]
        await began(redis)
        tasks += [asyncio.create_task(newest.get("cam")) for _ in range(3)]
        await asyncio.sleep(0.01)
        redis.open.set()
        assert all(isinstance(one, RedisUnavailable) for one in await asyncio.gather(*tasks, return_exceptions=True))
        assert len(redis.trips) == 1
        redis.error = None
        assert (await newest.get("cam")).sequence == 1

    play(scene)


def test_a_reader_that_goes_away_takes_nothing_from_others():
    async def scene(redis: Redis, newest: Newest) -> None:
        redis.open.clear()
        first, second = (asyncio.create_task(newest.get("cam")) for _ in range(2))
        await began(redis)
        first.cancel()
        await asyncio.sleep(0)
        redis.open.set()
        assert (await second).sequence == 1

    play(scene)


def test_unknown_cameras_have_nothing_and_impossible_names_are_refused():
    async def scene(redis: Redis, newest: Newest) -> None:
        assert await newest.get("nobody") is None
        with pytest.raises(QueryError):
            await newest.get("")
        assert (await newest.get("cam")).sequence == 1

    play(scene)
