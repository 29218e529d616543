"""One case of video under way: cameras that send H.264 by RTSP, the fault done to their site, the accounts at the end.

The cameras' access units are known bit by bit. So the checker finds each stored unit in what the camera sent, and sees
that all of them decode: behind each gap stands a key frame.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from pathlib import Path
from typing import Any

from engine.shm.ring_file import Observer, RingCounts
from tests.faults.accounts import Accounts
from tests.faults.cases import Case
from tests.faults.proxy import Proxy
from tests.servers.clips import Stream
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_video import Mount, RtspVideo
from tests.servers.wait import wait_until
from tests.system.site import Site
from tests.system.stored_units import places_of, runs_of, stored_units

CAMERAS = tuple(f"cam{number}" for number in range(6))
#: Access units a second of each camera.
FPS = 15
#: Reasons that are allowed beside those of a case: what a GOP needs was dropped.
REST_OF_GOP = "broken_gop"


class VideoRun:
    """A site of six cameras whose video is stored, with JPEGs of the key frames. Redis is behind a proxy."""

    def __init__(self, case: Case, site: Site, redis: RedisServer, directory: Path, stream: Stream) -> None:
        self.case = case
        self.site = site
        self.redis = redis
        self.stream = stream
        self.accounts: Accounts | None = None
        self.recovery_seconds = 0.0
        self._stack = contextlib.ExitStack()
        self.proxy = self._stack.enter_context(Proxy(redis.port))
        keys = stream.keyframes
        mounts = {f"/{name}": Mount(stream, keys[place % len(keys)]) for place, name in enumerate(CAMERAS)}
        self.server = self._stack.enter_context(RtspVideo(directory, mounts))
        self._mended_at = 0.0
        self._mended: dict[str, int] = {}

    def close(self) -> None:
        self._stack.close()

    def start(self, **sections: dict[str, Any]) -> None:
        """Write the site file, start the site, and wait until all flows."""
        sections.setdefault("video", {"capacity_mb": 1})
        self.site.write(
            cameras=[
                {"id": name, "url": self.server.url(f"/{name}"), "video": True, "decode": "key"} for name in CAMERAS
            ],
            redis={"address": f"127.0.0.1:{self.proxy.port}", "timeout_seconds": 1.0, "ttl_seconds": 3600},
            **{"ring": {"capacity_mb": 1}, "defaults": {"stall_seconds": 1.5, "open_timeout_seconds": 1.5}, **sections},
        )
        self.site.start()
        self.flows()

    def video(self) -> dict[str, dict[str, Any]]:
        """The report of each camera's video."""
        return {camera["id"]: camera["video"] for camera in self.site.status()["cameras"]}

    def dropped(self, reason: str) -> int:
        """Units dropped for a reason, all cameras together."""
        return sum(int(video["dropped"].get(reason, 0)) for video in self.video().values())

    def flows(self, seconds: float = 2.0, timeout: float = 40) -> None:
        """Wait until of every camera so many seconds' units more are stored."""
        before = {name: video["stored"] for name, video in self.video().items()}

        def more() -> bool:
            return all(video["stored"] >= before[name] + FPS * seconds for name, video in self.video().items())

        wait_until(more, timeout, "units flow", log=self.site.log_text, interval=0.1)

    def lasts(self, seconds: float) -> None:
        """The fault itself lasts so long: captures go on meanwhile."""
        until = time.monotonic() + seconds
        before = sum(video["captured"] for video in self.video().values())
        wait_until(lambda: time.monotonic() >= until, seconds + 5, "the fault has lasted")
        wait_until(
            lambda: sum(video["captured"] for video in self.video().values()) > before, 5, "cameras are captured"
        )

    def ends(self) -> Accounts:
        """The fault is over: all recovers, and the accounts are settled."""
        self._mended_at = time.monotonic()
        self._mended = {name: video["captured"] for name, video in self.video().items()}
        wait_until(
            self._well, self.case.bound, f"{self.case.key}: all is as before", log=self.site.log_text, interval=0.1
        )
        self.recovery_seconds = time.monotonic() - self._mended_at
        return self.settle()

    def _well(self) -> bool:
        report = self.site.status()
        settled = {
            camera["id"]: camera["video"]["stored"] + sum(camera["video"]["dropped"].values())
            for camera in report["cameras"]
        }
        return all(camera["state"] == "active" for camera in report["cameras"]) and all(
            settled[name] > self._mended[name] for name in CAMERAS
        )

    def settle(self) -> Accounts:
        """Stop the site and account for every unit. Nothing may be missing but what the case allows, and what is stored
        is what the cameras sent, and decodes."""
        paths = self.site.paths
        with contextlib.ExitStack() as stack:
            observers = {
                name: stack.enter_context(contextlib.closing(Observer(paths.ring(name, video=True), name)))
                for name in CAMERAS
            }
            assert self.site.stop() == 0, self.site.log_text()[-3000:]
            counts = {name: observer.counts() for name, observer in observers.items()}
        drops: Counter[str] = Counter()
        for name, found in counts.items():
            self._check(name, found)
            drops.update({reason: count for reason, count in found.drops.items() if count})
        self.accounts = Accounts(
            captured=sum(found.captured for found in counts.values()),
            stored=sum(found.stored for found in counts.values()),
            drops=dict(drops),
            gone=0,
            announced=0,
            repeats=0,
            expired=0,
        )
        assert set(drops) <= self.case.drops, f"{self.case.key}: lost {dict(drops)}"
        return self.accounts

    def _check(self, camera: str, counts: RingCounts) -> None:
        units = stored_units(self.redis.client(), camera)
        sequences = [unit.entry.sequence for unit in units]
        assert sequences == sorted(set(sequences)), f"{camera}: sequences repeat or run back"
        assert counts.held == 0, f"{camera}: {counts.held} units are still in the ring"
        assert counts.captured == counts.stored + counts.dropped, f"{camera}: {counts}"
        assert len(units) == counts.stored, (
            f"{camera}: {counts.stored} counted as stored, {len(units)} listed; {counts}"
        )
        for run in runs_of(units):
            places_of(run, self.stream)
