"""Alerts of a running site: in log, status, API, events and webhook, whatever else is away."""

from __future__ import annotations

import json
import time
from http.client import HTTPConnection
from typing import Any

import pytest

from engine.runtime.roles import instances
from engine.wire.alert import decode_alert_event
from tests.servers.mjpeg_http import MjpegCamera, make_jpegs
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.consumer import Consumer
from tests.system.site import Site, command
from tests.webhook_receiver import WebhookReceiver

#: Thresholds that a test can wait for.
QUICK = {
    "clear_seconds": 1.0,
    "camera_down_seconds": 1.0,
    "redis_away_seconds": 1.0,
    "broker_away_seconds": 1.0,
    "process_down_seconds": 600.0,
}
CAMERA: dict[str, Any] = {"stall_seconds": 1.0, "open_timeout_seconds": 1.0}


class Alerts(Consumer):
    """The events of alerts that RabbitMQ has delivered."""

    def of(self, name: str) -> list[str]:
        """The states of one alert, in the order received."""
        return [event["state"] for event in self.events() if event["name"] == name]

    def events(self) -> list[dict[str, Any]]:
        with self._lock:
            return [body for key, body in self._messages if key == "camera.metadata.event.system"]


def raised(site: Site) -> set[tuple[str, str]]:
    return {(alert["name"], alert["subject"]) for alert in site.status()["alerts"]}


def logged(site: Site, event: str, name: str) -> int:
    return sum(f'event="{event}"' in line and f"alert={name} " in line for line in site.log_text().splitlines())


def of_api(port: int) -> list[dict[str, Any]]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/api/v1/alerts")
        answer = connection.getresponse()
        assert answer.status == 200
        found: list[dict[str, Any]] = json.loads(answer.read())["alerts"]
        return found
    except ConnectionRefusedError:
        return []
    finally:
        connection.close()


def test_a_camera_that_stalls_is_an_alert_everywhere_once_until_it_is_back(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    port = free_port()
    with MjpegCamera(make_jpegs(5)) as camera, WebhookReceiver() as receiver, Alerts(rabbitmq, vhost) as consumer:
        site.write(
            cameras=[{"id": "door", "url": camera.url, **CAMERA}, {"id": "fine", "url": "test://?fps=5&kb=20"}],
            redis={"address": redis_server.address},
            amqp_url=rabbitmq.url(vhost),
            web={"listen": f"127.0.0.1:{port}"},
            alerts={**QUICK, "webhook": receiver.url, "webhook_token": "token-of-the-site"},
        )
        site.start()
        wait_until(lambda: site.total("stored") > 20, 30, "frames are stored")
        assert raised(site) == set()
        camera.mode = "silent"
        wait_until(lambda: ("camera_down", "door") in raised(site), 30, "the alert is raised", log=site.log_text)
        (alert,) = (one for one in site.status()["alerts"] if one["name"] == "camera_down")
        assert alert["severity"] == "critical"
        assert alert["text"].startswith("camera door has been ")
        assert alert["advice"]
        assert logged(site, "alert raised", "camera_down") == 1
        shown = command("status", "-c", str(site.file), environment={"COLUMNS": "300"}).stdout
        assert "critical: camera door has been " in shown
        assert wait_until(lambda: of_api(port), 30, "the API tells it")[0]["subject"] == "door"
        wait_until(lambda: consumer.of("camera_down") == ["raised"], 30, "the event arrives")
        (event,) = (one for one in consumer.events() if one["name"] == "camera_down")
        parsed = decode_alert_event(json.dumps(event).encode())
        assert (parsed.site, parsed.subject, parsed.timestamp_nano) == (
            site.config.site.name,
            "door",
            alert["since_nano"],
        )
        wait_until(lambda: event in receiver.taken, 30, "the webhook gets the same JSON")
        assert receiver.headers[0]["authorization"] == "Bearer token-of-the-site"

        site.kill("monitor")
        monitor = site.pid("monitor")
        looked = time.monotonic()
        wait_until(lambda: time.monotonic() > looked + 5 and site.pid("monitor") == monitor, 30, "its successor looks")
        assert ("camera_down", "door") in raised(site)
        camera.mode = "normal"
        wait_until(lambda: not raised(site), 30, "the alert is cleared", log=site.log_text)
        wait_until(lambda: consumer.of("camera_down") == ["raised", "cleared"], 30, "the event arrives")
        wait_until(
            lambda: [one["state"] for one in receiver.taken if one["name"] == "camera_down"] == ["raised", "cleared"],
            30,
            "the webhook gets the end",
        )
        assert (logged(site, "alert raised", "camera_down"), logged(site, "alert cleared", "camera_down")) == (1, 1)
        assert of_api(port) == []
        assert "very-secret-path" not in site.log_text()
        assert "token-of-the-site" not in site.log_text()
        assert site.stop() == 0


def test_events_of_alerts_arrive_when_the_broker_is_back_also_while_redis_is_away(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    with Alerts(rabbitmq, vhost) as consumer:
        site.write(
            cameras=[{"id": "cam1", "url": "test://?fps=10&kb=20"}],
            redis={"address": redis_server.address, "timeout_seconds": 1.0},
            amqp_url=rabbitmq.url(vhost),
            alerts=QUICK,
        )
        site.start()
        wait_until(lambda: len(consumer.frames()) > 10, 30, "events arrive")
        rabbitmq.set_alarm(True)
        try:
            wait_until(lambda: ("broker_away", "rabbitmq") in raised(site), 30, "RabbitMQ is away", log=site.log_text)
            redis_server.pause()
            wait_until(lambda: ("redis_away", "redis") in raised(site), 30, "Redis is away", log=site.log_text)
            heartbeat = next(one for one in site.status()["processes"] if one["role"] == "monitor")
            assert heartbeat["heartbeat_seconds"] < 5
            assert consumer.events() == []
        finally:
            rabbitmq.set_alarm(False)
        try:
            # The broker's alarm is over for this publisher; Redis does not answer yet.
            wait_until(lambda: consumer.of("redis_away") == ["raised"], 60, "the event arrives", log=site.log_text)
        finally:
            redis_server.resume()
        wait_until(lambda: consumer.of("redis_away") == ["raised", "cleared"], 60, "Redis is back", log=site.log_text)
        wait_until(lambda: consumer.of("broker_away")[-1:] == ["cleared"], 60, "so is RabbitMQ", log=site.log_text)
        wait_until(lambda: not raised(site) - {("frames_dropped", "cam1")}, 60, "all is well", log=site.log_text)
        assert site.stop() == 0


def test_a_user_without_info_has_no_alerts_on_redis_s_figures_and_one_line_says_so(
    site: Site, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "writer", "on", ">writer-password", "~*", "&*", "+@all", "-info")
    site.write(
        cameras=[{"id": "cam1", "url": "test://?fps=10&kb=20"}],
        redis={"address": redis_server.address, "username": "writer", "password": "writer-password"},
        alerts={**QUICK, "redis_clients": 1},
    )
    site.start()
    wait_until(lambda: "may not send INFO" in site.log_text(), 30, "the log says so", log=site.log_text)
    wait_until(lambda: site.total("stored") > 60, 30, "the site runs for a few looks")
    assert raised(site) == set()
    assert site.log_text().count("may not send INFO") == 1
    assert site.stop() == 0


@pytest.mark.parametrize("enabled", [True, False], ids=["on", "off"])
def test_a_site_without_a_monitor_has_no_alerts(site: Site, *, enabled: bool) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://?fps=10&kb=20"}], alerts={"enabled": enabled})
    assert [one.name for one in instances(site.config)] == ["writer", "capture cam1", *(["monitor"] if enabled else [])]
    if not enabled:
        done = command("monitor", "-c", str(site.file))
        assert (done.returncode, "alerts.enabled is false" in done.stderr) == (2, True)
