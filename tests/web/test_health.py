"""Health: which stage is not ready and why, from reports, and of a site whose servers and processes come and go."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from starlette.applications import Starlette

from engine.runtime.site_report import OutageReport, SiteReport
from engine.runtime.status import collect
from engine.web.app import build
from engine.web.health import Stage, health_of, stages_of
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.site import Site

VHOST = "health"


class Running:
    """A site with two cameras that go on, and its servers."""

    def __init__(self, site: Site, redis: RedisServer, url: str) -> None:
        self.site, self.redis, self._url = site, redis, url

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """The status and the JSON of an answer."""
        try:
            with urllib.request.urlopen(self._url + path, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def why(self) -> dict[str, str]:
        """The stages that are not ready, and why."""
        status, answer = self.get("/ready")
        broken = {stage["stage"]: stage["why"] for stage in answer["stages"] if not stage["ready"]}
        assert (status, answer["status"]) == ((503, "not ready") if broken else (200, "ready"))
        assert all(broken.values()), "each says why"
        return broken


@pytest.fixture(scope="module")
def running(rabbitmq: RabbitMQ) -> Iterator[Running]:
    directory = Path(tempfile.mkdtemp(prefix="ev-"))
    site = Site(directory / "run", warm=True)
    rabbitmq.add_vhost(VHOST)
    port = free_port()
    with RedisServer(directory / "redis") as server:
        site.write(
            cameras=[{"id": f"cam{n}", "url": "test://?fps=10&kb=8&size=160x120"} for n in range(2)],
            redis={"address": server.address, "ttl_seconds": 60, "timeout_seconds": 1},
            amqp_url=rabbitmq.url(VHOST),
            web={"listen": f"127.0.0.1:{port}"},
        )
        try:
            site.start()
            found = Running(site, server, f"http://127.0.0.1:{port}")
            wait_until(lambda: answers(found), 30, "the web process answers", log=site.log_text)
            wait_until(lambda: not found.why(), 30, "all stages are ready", log=site.log_text)
            # Half of the cameras are enough for that.
            wait_until(lambda: found.get("/health")[1]["cameras"]["active"] == 2, 30, "both cameras deliver")
            yield found
        finally:
            site.end()
            shutil.rmtree(directory, ignore_errors=True)


def answers(running: Running) -> bool:
    try:
        return running.get("/live") == (200, {"status": "ok"})
    except OSError:
        return False


def test_a_site_that_works_is_ready_and_ok(running: Running):
    _, answer = running.get("/ready")
    assert [stage["stage"] for stage in answer["stages"]] == [
        "supervisor", "publisher", "writer", "capture", "redis", "broker",
    ]  # fmt: skip
    status, health = running.get("/health")
    assert status == 200
    health.pop("uptime")
    assert health == {
        "status": "ok",
        "cameras": {"total": 2, "active": 2, "failed": 0},
        "amqp": {"configured": True, "connected": True, "error": ""},
        "redis": {"configured": True, "connected": True, "error": ""},
    }
    wait_until(lambda: running.get("/health")[1]["uptime"] > 0, 10, "the site has been up for a while")


def test_a_redis_that_is_away_is_named_and_the_site_is_down_until_it_is_back(running: Running):
    running.redis.stop()
    try:
        assert "redis" in wait_until(running.why, 30, "Redis is missed")
        status, health = running.get("/health")
        assert (status, health["status"], health["redis"]["connected"]) == (503, "down", False)
        assert "away for" in health["redis"]["error"]
        assert running.get("/live")[0] == 200
    finally:
        running.redis.start()
    wait_until(lambda: not running.why(), 30, "all is ready again")
    assert running.get("/health")[1]["status"] == "ok"


def test_a_publisher_that_is_down_is_named_and_the_site_is_degraded(running: Running):
    supervisor = running.site.status()["pid"]
    # Stopped, so that it does not start the publisher again at once.
    os.kill(supervisor, signal.SIGSTOP)
    try:
        running.site.signal(signal.SIGKILL, "publisher")
        found = wait_until(running.why, 10, "the publisher is missed")
        assert found["publisher"] == "publisher is down"
        status, health = running.get("/health")
        assert (status, health["status"], health["amqp"]["connected"]) == (200, "degraded", False)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    wait_until(lambda: not running.why(), 30, "the publisher is back")


def asked(app: Starlette, *paths: str) -> list[tuple[int, str]]:
    """The status and the text of a GET of each path, without a server."""

    async def get(path: str) -> tuple[int, str]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "GET", "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
            "query_string": b"", "headers": [(b"host", b"127.0.0.1")], "client": ("127.0.0.1", 1), "server": None,
        }  # fmt: skip
        await app(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode()

    async def get_all() -> list[tuple[int, str]]:
        found = [await get(path) for path in paths]
        await app.state.site.aclose()
        return found

    return asyncio.run(get_all())


def test_a_process_on_another_machine_says_only_whether_redis_answers(running: Running):
    config = running.site.config
    ready, health, metrics = asked(build(config, structlog.get_logger(), local=False), "/ready", "/health", "/metrics")
    assert (ready[0], json.loads(ready[1])["stages"]) == (200, [{"stage": "redis", "ready": True, "why": ""}])
    found = json.loads(health[1])
    assert (health[0], found["status"], found["cameras"]["total"]) == (200, "ok", 2)
    assert "edge_video_redis_up 1" in metrics[1]
    assert "camera_id" not in metrics[1]


def test_a_process_on_another_machine_that_finds_no_redis_is_not_ready(running: Running):
    config = running.site.config
    nowhere = msgspec.structs.replace(config, redis=msgspec.structs.replace(config.redis, address="127.0.0.1:1"))
    ready, health, metrics = asked(build(nowhere, structlog.get_logger(), local=False), "/ready", "/health", "/metrics")
    assert ready[0] == 503
    assert "127.0.0.1:1" in json.loads(ready[1])["stages"][0]["why"]
    assert health[0] == 503
    assert "edge_video_redis_up 0" in metrics[1]


def report(running: Running) -> SiteReport:
    return collect(running.site.config, memory=False)


def broken(found: SiteReport, *, publishes: bool = True) -> dict[str, str]:
    return {one.stage: one.why for one in stages_of(found, 20.0, publishes=publishes) if not one.ready}


def test_each_stage_says_what_is_wrong_with_it(running: Running):
    sound = report(running)
    replace = msgspec.structs.replace
    assert broken(sound) == {}
    assert broken(replace(sound, running=False)) == {"supervisor": "the site does not run"}
    hung = [replace(one, heartbeat_seconds=35.0) if one.role == "writer" else one for one in sound.processes]
    assert broken(replace(sound, processes=hung)) == {"writer": "writer has done nothing for 35 s"}
    down = [replace(one, alive=False) if one.role == "publisher" else one for one in sound.processes]
    assert broken(replace(sound, processes=down)) == {"publisher": "publisher is down"}
    never = [one for one in sound.processes if one.role != "writer"]
    assert broken(replace(sound, processes=never)) == {"writer": "no writer has been started"}
    dark = [replace(camera, state="offline") for camera in sound.cameras]
    assert broken(replace(sound, cameras=dark)) == {"capture": "0 of 2 cameras are active, at least 50% are wanted"}
    away = OutageReport("rabbitmq", "publisher", 0, 12.0, "RabbitMQ refused the connection")
    assert broken(replace(sound, outages=[away])) == {"broker": "away for 12 s: RabbitMQ refused the connection"}
    assert broken(replace(sound, outages=[away]), publishes=False) == {}
    assert broken(replace(sound, publisher=None)) == {"broker": "the publisher is not connected to it"}


def test_a_site_is_degraded_while_it_stores_and_down_when_it_does_not(running: Running):
    sound = report(running)
    replace = msgspec.structs.replace

    def status(found: SiteReport) -> str:
        return health_of(found, stages_of(found, 20.0, publishes=True), publishes=True).status

    one_dark = [replace(sound.cameras[0], state="stalled"), sound.cameras[1]]
    assert status(sound) == "ok"
    assert status(replace(sound, cameras=one_dark)) == "degraded"
    assert status(replace(sound, cameras=[replace(camera, state="offline") for camera in sound.cameras])) == "down"
    assert status(replace(sound, cameras=[replace(camera, finished=True) for camera in sound.cameras])) == "ok"
    assert status(replace(sound, publisher=None)) == "degraded"
    assert status(replace(sound, running=False)) == "down"
    totals = health_of(
        replace(sound, cameras=one_dark),
        [Stage(name, True, "") for name in ("supervisor", "writer", "redis")],
        publishes=False,
    )
    assert (totals.cameras.total, totals.cameras.active, totals.cameras.failed) == (2, 1, 1)
    assert (totals.amqp.configured, totals.amqp.connected) == (False, False)
