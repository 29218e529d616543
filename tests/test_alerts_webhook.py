"""The webhook of alerts, against a real HTTP server: order, retries, refusals, redirects, bounds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from engine.config import from_document
from engine.monitor import webhook
from engine.shm.status_page import MonitorCount, StatusPage
from engine.wire.alert import AlertState
from tests.servers.answering import Answering
from tests.servers.wait import free_port, wait_until
from tests.webhook_receiver import WebhookReceiver


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "_BACKOFF_SECONDS_MIN", 0.05)
    monkeypatch.setattr(webhook, "_BACKOFF_SECONDS_MAX", 0.1)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[StatusPage]:
    with contextlib.closing(StatusPage.claim(tmp_path / "monitor.status")) as found:
        yield found


def state(number: int) -> AlertState:
    return AlertState("camera_down", f"cam{number}", "critical", "raised", 1731076270123456789, 31.5, 30.0, "down")


@contextlib.contextmanager
def posting(url: str, page: StatusPage, *, token: str = "", started: bool = True) -> Iterator[webhook.Webhook]:
    config = from_document(
        {"cameras": [{"id": "cam1", "url": "test://"}], "alerts": {"webhook": url, "webhook_token": token}}, {}
    )
    address = config.alerts.webhook_address
    assert address is not None
    hook = webhook.Webhook(config, address, page, structlog.get_logger())
    if started:
        hook.start()
    try:
        yield hook
    finally:
        hook.end()


def subjects(receiver: WebhookReceiver) -> list[str]:
    return [body["subject"] for body in receiver.taken]


def test_alerts_are_posted_in_order_each_until_it_is_taken(page: StatusPage) -> None:
    with WebhookReceiver() as receiver, structlog.testing.capture_logs() as lines:
        receiver.statuses = [500, 429, 503, 503]
        with posting(receiver.url, page, token="a-token") as hook:
            for number in range(5):
                hook.put(state(number))
            wait_until(lambda: page.counts[MonitorCount.WEBHOOK_SENT] == 5, 30, "all are taken")
        assert subjects(receiver) == [f"cam{number}" for number in range(5)]
        assert {one["path"] for one in receiver.headers} == {"/hooks/very-secret-path?key=1"}
        assert {one["authorization"] for one in receiver.headers} == {"Bearer a-token"}
    assert page.counts[MonitorCount.WEBHOOK_FAILED] == 4
    assert page.counts[MonitorCount.WEBHOOK_LOST] == 0
    reasons = [line.get("reason", line["event"]) for line in lines]
    assert reasons == ["status 500", "status 429", "status 503", "webhook takes alerts again"]
    assert "secret" not in str(lines)
    assert "a-token" not in str(lines)


def test_what_is_refused_for_good_is_given_up_and_counted(page: StatusPage) -> None:
    with WebhookReceiver() as receiver, posting(receiver.url, page) as hook:
        receiver.statuses = [404]
        hook.put(state(1))
        hook.put(state(2))
        wait_until(lambda: subjects(receiver) == ["cam2"], 30, "the next is taken")
        assert "authorization" not in receiver.headers[0]
    assert page.counts[MonitorCount.WEBHOOK_LOST] == 1


def test_a_redirect_is_not_followed_and_holds_up_nothing(page: StatusPage) -> None:
    with WebhookReceiver() as receiver, WebhookReceiver() as elsewhere, posting(receiver.url, page, token="t") as hook:
        receiver.location, receiver.statuses = elsewhere.url, [307, 301]
        for number in (1, 2, 3):
            hook.put(state(number))
        wait_until(lambda: subjects(receiver) == ["cam3"], 30, "the next is taken where it was meant to go")
        assert elsewhere.headers == []
    assert page.counts[MonitorCount.WEBHOOK_LOST] == 2


def test_a_receiver_that_is_away_gets_them_later(page: StatusPage) -> None:
    with (
        structlog.testing.capture_logs() as lines,
        posting(f"http://127.0.0.1:{free_port()}/x", page) as hook,
    ):
        hook.put(state(1))
        wait_until(lambda: page.counts[MonitorCount.WEBHOOK_FAILED] > 3, 30, "it is tried again")
    assert [line["reason"] for line in lines] == ["Connection refused"], "one line for one reason"


def test_the_queue_is_bounded_and_the_oldest_go(page: StatusPage) -> None:
    with WebhookReceiver() as receiver, posting(receiver.url, page, started=False) as hook:
        for number in range(webhook._WAITING_MAX + 3):
            hook.put(state(number))
        assert page.counts[MonitorCount.WEBHOOK_LOST] == 3
        hook.start()
        wait_until(lambda: len(receiver.taken) == webhook._WAITING_MAX, 60, "the others are posted")
        assert subjects(receiver)[0] == "cam3"


def test_bytes_that_are_no_answer_are_a_failure(page: StatusPage) -> None:
    with (
        Answering(lambda _: "\0\xff no HTTP\r\n\r\n") as server,
        posting(f"http://127.0.0.1:{server.port}/x", page) as hook,
    ):
        hook.put(state(1))
        wait_until(lambda: page.counts[MonitorCount.WEBHOOK_FAILED] > 1, 30, "it is tried again")
