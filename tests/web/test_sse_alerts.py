"""Alerts as server-sent events: those that stand, then each change."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec

from engine.client.async_store import AsyncFrameStore
from engine.shm import alerts_file
from engine.shm.alerts_file import AlertsReader
from engine.shm.site import SitePaths
from engine.web.events_position import Position
from engine.web.events_queue import EventQueue
from engine.web.events_sources import Wanted, alerts
from engine.wire.alert import AlertState


def alert(subject: str, state: str, since: int) -> AlertState:
    return msgspec.convert(
        {
            "name": "camera_down", "subject": subject, "severity": "critical", "state": state, "since_nano": since,
            "value": 1.0, "threshold": 0.5, "text": "it is away",
        },
        AlertState,
    )  # fmt: skip


async def told(queue: EventQueue) -> list[tuple[str, str]]:
    piece = await queue.take(5)
    found: list[dict[str, Any]] = [json.loads(line[6:]) for line in piece.splitlines() if line.startswith(b"data: ")]
    assert all(event["event_type"] == "alert" and event["site"] == "plant" for event in found)
    assert piece.count(b"event: alert\n") == len(found)
    return [(event["subject"], event["state"]) for event in found]


def run(directory: Path, cameras: list[str] | None) -> list[list[tuple[str, str]]]:
    paths, queue = SitePaths(directory), EventQueue()
    begin = [alert("cam1", "raised", 1), alert("cam2", "cleared", 2), alert("cam3", "raised", 3)]
    later = [alert("cam1", "cleared", 5), alert("cam2", "cleared", 2), alert("cam3", "raised", 3)]

    async def main() -> list[list[tuple[str, str]]]:
        store = AsyncFrameStore("127.0.0.1:1")
        wanted = Wanted(store, queue, Position.parse(""), cameras, 300, 300, "plant", AlertsReader(paths))
        alerts_file.write(paths, begin)
        task = asyncio.ensure_future(alerts(wanted))
        first = await told(queue)
        alerts_file.write(paths, later)
        second = await told(queue)
        task.cancel()
        return [first, second]

    return asyncio.run(main())


def test_alerts_that_stand_are_told_and_then_each_change(tmp_path: Path) -> None:
    assert run(tmp_path, None) == [[("cam1", "raised"), ("cam3", "raised")], [("cam1", "cleared")]]


def test_alerts_of_some_cameras_only(tmp_path: Path) -> None:
    assert run(tmp_path, ["cam1"]) == [[("cam1", "raised")], [("cam1", "cleared")]]


def test_who_may_not_see_alerts_gets_none() -> None:
    wanted = Wanted(AsyncFrameStore("127.0.0.1:1"), EventQueue(), Position.parse(""), None, 300, 300)
    asyncio.run(asyncio.wait_for(alerts(wanted), 5))
