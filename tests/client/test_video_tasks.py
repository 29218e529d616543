"""Many tasks share one ``AsyncFrameStore``: each reads what it would read alone."""

from __future__ import annotations

import asyncio
import gc
import warnings

import numpy as np

from engine import AsyncFrameStore, FrameStore
from tests.client.stocked import T0, VHOST
from tests.client.stored_video import PERSON, arrivals, clip, stock_video

MOMENTS = [T0 + number * 10**8 + 5 * 10**7 for number in range(0, 30, 3)]


def test_tasks_beside_each_other_read_what_each_would_read_alone(shared_redis, client):
    for name in ("cam1", "cam2"):
        stock_video(client, [unit._replace(camera=name) for unit in arrivals(clip(PERSON, 30))])
    with FrameStore(shared_redis.address, VHOST) as store:
        alone = {moment: store.picture("cam1", moment) for moment in MOMENTS}
        packets = [unit.data for unit in store.video("cam1")]
        shown = [picture.unix_nano for picture in store.pictures("cam2")]
    assert len(packets) == len(shown) == 30

    async def read() -> None:
        async with AsyncFrameStore(shared_redis.address, VHOST) as store:

            async def at(moment: int) -> None:
                picture, same = await store.picture("cam1", moment), alone[moment]
                assert (picture is None) == (same is None)
                if picture is not None and same is not None:
                    assert picture.unix_nano == same.unix_nano
                    assert np.array_equal(picture.image, same.image)

            async def all_packets() -> None:
                assert [unit.data async for unit in store.video("cam1")] == packets

            async def all_pictures() -> None:
                assert [picture.unix_nano async for picture in store.pictures("cam2")] == shown

            async def left_early() -> None:
                async with store.pictures("cam2") as pictures:
                    async for _ in pictures:
                        break

            async def followed() -> None:
                async with store.tail_pictures("cam2", T0) as tail:
                    for _ in range(5):
                        assert await anext(tail)

            kinds = (all_packets, all_pictures, left_early, followed)
            await asyncio.gather(*(at(moment) for moment in MOMENTS), *(kind() for kind in kinds * 3))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(read(), debug=True)
        gc.collect()
