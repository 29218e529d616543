"""The site over HTTP: cameras, tenants, servers, history; beside the site and away from it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
import uvicorn

from engine.client.store import FrameStore
from engine.client.tenant import Tenant
from engine.client.usage_queries import usage
from engine.runtime.status import look
from engine.web.app import build
from engine.web.history import Sampler
from tests.servers.wait import free_port, wait_until
from tests.web.conftest import FEW, HOSTILE, WebSite

CAMERAS = {"cam1", "cam2", "few", "gate", *HOSTILE}


def test_cameras_are_those_of_the_status(web_site: WebSite):
    listed = web_site.get("cameras").json["cameras"]
    assert {camera["id"] for camera in listed} == CAMERAS
    assert set(listed[0]) == set(web_site.site.camera("cam1"))
    # A report may be half a second old.
    one = wait_until(lambda: finished(web_site), 10, "the camera's end is reported")
    assert (one["id"], one["stored_total"]) == ("few", FEW)
    assert web_site.get("status").json["site"] == web_site.site.config.site.name
    assert "cam1" in web_site.get("cameras/cam11").detail, "the nearest name is told"


def test_tenants_are_counted(web_site: WebSite):
    answer = web_site.get("tenants").json
    (tenant,) = answer["tenants"]
    assert (answer["complete"], tenant["vhost"], tenant["prefix"]) == (True, "default", "frames")
    cameras = {camera["id"]: camera for camera in tenant["cameras"]}
    assert set(cameras) == CAMERAS
    frames = web_site.get("cameras/few/frames").json["frames"]
    assert cameras["few"] == {
        "id": "few",
        "frames": FEW,
        "bytes": sum(frame["size_bytes"] for frame in frames),
        "oldest_nano": frames[0]["timestamp_nano"],
        "newest_nano": frames[-1]["timestamp_nano"],
        "video_units": 0,
        "video_bytes": 0,
        "exact": True,
    }
    assert cameras["gate"]["frames"] == 0
    assert cameras["gate"]["video_units"] > 0
    for name in ("frames", "bytes", "video_units", "video_bytes"):
        assert tenant[name] == sum(camera[name] for camera in tenant["cameras"])


def test_another_tenant_of_the_server_is_listed(web_site: WebSite):
    with web_site.redis.client() as redis:
        redis.hset("engine:shop%3A1:cameras:frames", "till", "{}")
        # Vhosts that cannot be the name of a tenant are left out.
        redis.hset("engine::cameras:frames", "x", "{}")
        try:
            wait_until(lambda: len(listed(web_site)) > 1, 60, "the new tenant is listed", interval=0.5)
            tenants = listed(web_site)
        finally:
            redis.delete("engine:shop%3A1:cameras:frames", "engine::cameras:frames")
    assert [tenant["vhost"] for tenant in tenants] == ["default", "shop:1"]
    assert [camera["id"] for camera in tenants[1]["cameras"]] == ["till"]


def finished(web_site: WebSite) -> dict[str, Any] | None:
    one: dict[str, Any] = web_site.get("cameras/few").json
    return one if one["finished"] else None


def listed(web_site: WebSite) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = web_site.get("tenants").json["tenants"]
    return found


def test_long_journals_are_estimated_from_their_ends(web_site: WebSite):
    """Also where frames have expired that the journal still lists."""
    tenant = Tenant("estimated", "frames")
    first, step, count, gone = 1_700_000_000 * 10**9, 100_000_000, 2000, 700
    with web_site.redis.client() as redis:
        pipeline = redis.pipeline()
        for number in range(1, count + 1):
            nano = first + number * step
            fields = {"s": 1000 + number % 2, "w": 1, "h": 1, "e": "jpeg", "k": 1, "n": number}
            pipeline.xadd(tenant.journal("cam"), fields, id=f"{nano}-{number}")
            if number > gone:
                pipeline.set(f"estimated:frames:cam:{nano}:{number:05d}", b"x", ex=60)
        pipeline.execute()
        try:
            with FrameStore(web_site.redis.url, "estimated") as store:
                (found,) = store._transport.run(usage(tenant, ["cam"], 100))
                (exact,) = store._transport.run(usage(tenant, ["cam"], count))
        finally:
            redis.delete(tenant.journal("cam"))
    living = count - gone
    assert (exact.exact, exact.frames, exact.oldest_nano) == (True, living, first + (gone + 1) * step)
    assert not found.exact
    assert abs(found.frames - living) <= count / 500
    assert abs(found.bytes - found.frames * 1000.5) <= found.frames
    assert found.newest_nano == exact.newest_nano == first + count * step
    assert abs(found.oldest_nano - exact.oldest_nano) <= count * step / 500


def test_servers_tell_their_figures(web_site: WebSite):
    servers = web_site.get("servers").json
    redis = servers["redis"]
    assert (redis["up"], redis["error"]) == (True, "")
    assert redis["address"] == f"redis://127.0.0.1:{web_site.redis.port}"
    assert redis["used_memory_bytes"] > 100_000
    assert redis["connected_clients"] >= 2
    assert redis["version"].count(".") == 2
    assert servers["amqp"]["configured"] is False


def test_history_has_a_camera_and_the_site(web_site: WebSite):
    def known() -> Any:
        found = web_site.get("history?camera=cam1").json
        return found if any(found["stored"]) else None

    camera = wait_until(known, 20, "two samples", interval=0.3)
    series = {name: values for name, values in camera.items() if isinstance(values, list)}
    assert {len(values) for values in series.values()} == {len(camera["times"])}
    assert camera["interval_seconds"] == 2
    place = next(place for place, stored in enumerate(camera["stored"]) if stored)
    assert 0 < camera["p50_ms"][place] <= camera["p99_ms"][place]
    assert camera["ring_fill"][place] < 1
    site = web_site.get("history?minutes=1").json
    assert max(site["fps"]) > max(camera["fps"]) > 5
    assert site["packet_fps"][-1] > 10


def test_samples_are_of_their_interval_only_and_the_oldest_go(web_site: WebSite):
    sampler = Sampler(None)  # type: ignore[arg-type]
    seen = look(web_site.site.config, memory=False)
    sampler.keep(sampler.compute(seen), 0.0)
    sampler.keep(sampler.compute(seen), 2.0)
    still = sampler.series("cam1", 15)
    assert still is not None
    # Nothing happened between two looks at the same counts; before the first, nobody knows.
    assert (still.stored, still.dropped) == ([0, 0], [0, 0])
    assert [value != value for value in still.p50_ms] == [True, True]
    for number in range(460):
        sampler.keep(sampler.compute(seen), 2.0 * number)
    whole, minute = sampler.series("", 15), sampler.series("few", 1)
    assert whole is not None
    assert minute is not None
    assert (len(whole.times), whole.times[-1], len(whole.fps)) == (450, 918.0, 450)
    assert (len(minute.times), len(minute.ring_fill)) == (30, 30)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the tests."""
        yield


@pytest.fixture
def away(web_site: WebSite) -> Iterator[WebSite]:
    """The same site's web process on another machine."""
    app, port = build(web_site.site.config, structlog.get_logger(), local=False), free_port()
    server = _Server(uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, 20, "the web process listens")
    yield web_site._replace(port=port)
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def test_away_from_the_site_cameras_and_frames_come_from_redis(away: WebSite):
    cameras = {camera["id"]: camera for camera in away.get("cameras").json["cameras"]}
    assert set(cameras) == CAMERAS
    assert (cameras["cam1"]["state"], cameras["cam1"]["width"]) == ("active", 320)
    assert away.get("cameras/a%2Fb").json == cameras["a/b"]
    assert away.get("cameras/cam1/latest.jpg").status == 200
    assert away.get("tenants").json["tenants"][0]["vhost"] == "default"
    servers = away.get("servers").json
    assert (servers["redis"]["up"], servers["amqp"]) == (True, None)
    for path in ("status", "history", "history?camera=cam1"):
        answer = away.get(f"{path}")
        assert (answer.status, answer.json["detail"].split(",")[0]) == (
            404,
            "this web process does not run beside the site",
        )
