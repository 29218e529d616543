"""Reading video over and over again leaves no descriptors, no threads and no memory behind."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

import psutil

from engine.client.video_film import fragments
from tests.client.stocked import T0
from tests.client.stored_video import arrivals, encoded, stock_video

#: Rounds, of which each calls every function once: together 2,000 calls of each kind of store.
ROUNDS = 340
#: Bytes that memory may grow in the second half.
GROWTH_MAX = 8 * 2**20
#: An event loop's executor adds threads up to this bound, whenever none of them is idle yet.
EXECUTOR_THREADS_MAX = min(32, (os.cpu_count() or 1) + 4)


def test_reading_leaves_nothing_behind(store: Any, client: Any) -> None:
    units = arrivals(encoded("h264", width=160, height=96, frames=12, gop=6))
    stock_video(client, units)
    process = psutil.Process()
    begun = threading.active_count()

    def read() -> None:
        for number, _ in enumerate(store.pictures("cam1")):
            if number == 4:
                break
        assert store.picture("cam1", units[7].shown_nano) is not None
        tail = store.tail_pictures("cam1", since=T0)
        next(tail)
        tail.close()
        stored_units = list(store.video("cam1"))
        assert len(stored_units) == len(units)
        assert sum(map(len, fragments(stored_units))) > 1000
        assert len(list(store.video_entries("cam1", limit=3))) == 3
        next(store.tail_video("cam1", since=T0))

    def seen() -> tuple[int, int, int]:
        gc.collect()
        return process.num_fds(), threading.active_count(), process.memory_info().rss

    for _ in range(ROUNDS // 2):
        read()
    half = seen()
    for _ in range(ROUNDS // 2):
        read()
    end = seen()
    assert end[0] == half[0]
    assert end[1] <= begun + EXECUTOR_THREADS_MAX
    assert end[2] - half[2] < GROWTH_MAX
