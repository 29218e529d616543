"""``/api/v1/events``: the events of a running site, positions, filters; and the queue of a slow reader."""

from __future__ import annotations

import asyncio
import json

import pytest

from engine.errors import QueryError
from engine.web.events_position import Position
from engine.web.events_queue import EventQueue, sse
from engine.wire.events import parse_message
from engine.wire.metadata import FrameEvent, GopEvent, StatusEvent
from tests.servers.wait import wait_until
from tests.web.streaming import CLIP_GOP, Streaming


def test_frames_are_announced_in_order_without_gaps(streaming: Streaming) -> None:
    with streaming.open("events?type=frame&camera=cam1") as stream:
        assert stream.begin().headers["content-type"].startswith("text/event-stream")
        found = [stream.event() for _ in range(30)]
    events = [parse_message(event["data"].encode())[0] for event in found]
    assert all(isinstance(event, FrameEvent) and event.camera_id == "cam1" for event in events)
    numbers = [int(event.sequence) for event in events]  # type: ignore[union-attr]
    assert numbers == list(range(numbers[0], numbers[0] + 30))
    stored = streaming.redis.client().get(events[-1].redis_key)  # type: ignore[union-attr]
    assert len(stored) == events[-1].size_bytes  # type: ignore[union-attr]


def test_a_reader_continues_after_its_position(streaming: Streaming) -> None:
    """At least once: what was stored while it was away comes too, and nothing is missing."""
    path = "events?type=frame&camera=cam1&camera=a/b"
    with streaming.open(path) as stream:
        stream.begin()
        seen = [stream.event() for _ in range(20)]
    position = next(event["id"] for event in reversed(seen) if "id" in event)
    last = {camera: _numbers(seen, camera)[-1] for camera in ("cam1", "a/b")}
    client = streaming.redis.client()
    before = client.xlen("engine:default:journal:frames:cam1")
    wait_until(lambda: client.xlen("engine:default:journal:frames:cam1") > before + 30, 20, "more frames are stored")
    with streaming.open(path, headers={"Last-Event-ID": position}) as stream:
        stream.begin()
        again = [stream.event() for _ in range(100)]
    for camera, number in last.items():
        numbers = _numbers(again, camera)
        assert numbers[0] <= number + 1
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _numbers(events: list[dict[str, str]], camera: str) -> list[int]:
    found = [json.loads(event["data"]) for event in events]
    return [int(event["sequence"]) for event in found if event["camera_id"] == camera]


def test_states_and_gops(streaming: Streaming) -> None:
    with streaming.open("events?type=status&type=gop") as stream:
        stream.begin()
        kinds: dict[str, list[object]] = {"status": [], "gop": []}
        while len(kinds["status"]) < 3 or len(kinds["gop"]) < 2:
            event = stream.event()
            kinds[event["event"]] += parse_message(event["data"].encode())
    assert {event.camera_id: event.state for event in kinds["status"] if isinstance(event, StatusEvent)} == {
        "cam1": "active",
        "a/b": "active",
        "gate": "active",
    }
    gop = kinds["gop"][0]
    assert isinstance(gop, GopEvent)
    assert (gop.camera_id, gop.frames) == ("gate", CLIP_GOP)
    client = streaming.redis.client()
    assert client.exists(gop.first_key, gop.last_key) == 2


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        pytest.param("events?camera=cam9", 404, b"cam9", id="an unknown camera"),
        pytest.param("events?type=frames", 422, b"frame, gop", id="an unknown type"),
    ],
)
def test_what_cannot_be_is_refused(streaming: Streaming, path: str, status: int, text: bytes) -> None:
    with streaming.open(path) as answer:
        assert answer.begin().status == status
        assert text in answer.whole()


def test_a_wrong_position_is_refused(streaming: Streaming) -> None:
    with streaming.open("events", headers={"Last-Event-ID": "cam1=tomorrow"}) as answer:
        assert answer.begin().status == 422
        assert b"cam1=tomorrow" in answer.whole()


def test_positions_round_trip() -> None:
    position = Position()
    position.frames = {"cam1": "1731024000123456789-1", "a,b=c:é": "5-6"}
    position.video = {"v:x": "7-8"}
    again = Position.parse(str(position))
    assert (again.frames, again.video) == (position.frames, position.video)


@pytest.mark.parametrize("text", ["cam1", "=1-2", "cam1=1", "cam1=-", "cam1=1-99999999999999999999", "x" * 30_000])
def test_positions_are_untrusted(text: str) -> None:
    with pytest.raises(QueryError):
        Position.parse(text)


def test_a_full_queue_drops_the_oldest_and_counts_them() -> None:
    async def main() -> None:
        queue = EventQueue(events_max=4, bytes_max=10_000)
        for number in range(10):
            queue.put(sse("frame", b"%d" % number))
        assert await queue.take(1) == sse("lost", b'{"events":6}') + b"".join(
            sse("frame", b"%d" % number) for number in range(6, 10)
        )
        queue.put(sse("frame", b"10"))
        assert await queue.take(1) == sse("frame", b"10")
        assert await queue.take(0.01) == b""

    asyncio.run(main())


def test_a_full_queue_is_bounded_in_bytes_and_has_room_again() -> None:
    async def main() -> None:
        queue = EventQueue(events_max=100, bytes_max=300)
        for _ in range(50):
            queue.put(bytes(100))
        room = asyncio.ensure_future(queue.room())
        await asyncio.sleep(0)
        assert not room.done()
        assert (await queue.take(1)).endswith(bytes(300))
        await asyncio.wait_for(room, 5)

    asyncio.run(main())
