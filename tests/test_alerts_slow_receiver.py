"""A webhook whose receiver answers byte by byte, or never: each post ends, and is counted."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from engine.config import parse
from engine.monitor import webhook
from engine.monitor.webhook import Webhook
from engine.shm.status_page import MonitorCount
from engine.wire.alert import AlertState
from tests.servers.wait import free_port, wait_until

STATE = AlertState("camera_down", "cam1", "critical", "raised", 1, 31.0, 30.0, "camera cam1 is offline", "look at it")
#: What comes first, and then again and again.
SLOW = {
    "status": (b"HTTP/1.1 2", b"0"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize(("first", "then"), SLOW.values(), ids=SLOW.keys())
def test_a_post_to_a_slow_receiver_ends_and_is_tried_again(
    first: bytes, then: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "_POST_SECONDS_MAX", 0.5)
    monkeypatch.setattr(webhook, "_BACKOFF_SECONDS_MIN", 0.05)
    port, posts, over = free_port(), [], threading.Event()
    listener = socket.create_server(("127.0.0.1", port))

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            posts.append(connection.recv(65536))
            connection.sendall(first)
            while not over.wait(0.05):
                connection.sendall(then)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    text = f'[alerts]\nwebhook = "http://127.0.0.1:{port}/hook"\n[[cameras]]\nid = "cam1"\nurl = "test://"\n'
    config = parse(text.encode(), {})
    address = config.alerts.webhook_address
    assert address is not None
    counts: Counter[Any] = Counter()
    page: Any = SimpleNamespace(counts=counts)
    posting = Webhook(config, address, page, structlog.get_logger())
    begun = time.monotonic()
    posting.start()
    posting.put(STATE)
    try:
        wait_until(lambda: counts[MonitorCount.WEBHOOK_FAILED] >= 2, 20, "two tries fail")
        assert time.monotonic() - begun >= 2 * 0.5
        assert len(posts) >= 2
        assert counts[MonitorCount.WEBHOOK_SENT] == 0
    finally:
        posting.end()
        over.set()
        listener.close()
