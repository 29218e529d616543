"""What metrics are made of is collected once for scrapes that come together, and by readers' rights."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from starlette.exceptions import HTTPException

from engine.config import Config, from_document
from engine.shm import ring_place, site
from engine.web import metrics as metrics_module
from engine.web import metrics_facts
from engine.web.metrics import SiteMetrics
from engine.web.metrics_facts import Collector, ProcessMemory
from engine.web.site import WebSite


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A site that does not run, with one ring, and without a Redis."""
    document = {
        "site": {"run_directory": str(tmp_path / "run")},
        "ring": {"directory": str(tmp_path), "capacity_mb": 1},
        "redis": {"address": "127.0.0.1:1"},
        "amqp": {"amqp_url": "amqp://127.0.0.1:1/tenant"},
        "cameras": [{"id": "gate", "url": "test://"}],
    }
    made = from_document(document, {})
    site.make_directory(made)
    ring_place.ensure(made, "gate")
    return made


def web_site(config: Config, *, local: bool = True) -> WebSite:
    return WebSite(config, structlog.get_logger(), local=local)


def test_a_site_that_does_not_run_has_metrics_too(config: Config):
    text = asyncio.run(SiteMetrics(web_site(config)).text(openmetrics=False, site_wide=True)).decode()
    assert "\nedge_video_site_running 0\n" in text
    assert '\nedge_video_frames_processed_total{camera_id="gate"} 0\n' in text
    assert "\nedge_video_redis_up 0\n" in text
    assert "publisher_" not in text, "it has never run"


def test_without_the_sites_rights_only_its_cameras_are_told(config: Config):
    text = asyncio.run(SiteMetrics(web_site(config)).text(openmetrics=False, site_wide=False)).decode()
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert samples
    assert all('camera_id="gate"' in line for line in samples)


def request(config: Config, reader: Any) -> Any:
    state = SimpleNamespace(site=web_site(config), reader=reader)
    return SimpleNamespace(state=state, app=SimpleNamespace(state=state))


def test_a_reader_sees_what_its_token_is_for(config: Config):
    sees_all = metrics_module._sees_all
    assert sees_all(request(config, None))
    assert sees_all(request(config, SimpleNamespace(vhost="tenant", all_tenants=True)))
    assert not sees_all(request(config, SimpleNamespace(vhost="tenant", all_tenants=False)))
    with pytest.raises(HTTPException) as refused:
        sees_all(request(config, SimpleNamespace(vhost="other", all_tenants=False)))
    assert refused.value.status_code == 403


def test_scrapes_that_come_together_share_one_collection_which_holds_up_nobody(
    config: Config, monkeypatch: pytest.MonkeyPatch
):
    collected: list[int] = []
    looped = threading.Event()
    collect = Collector.collect

    def slow(self: Collector) -> Any:
        collected.append(threading.get_ident())
        assert looped.wait(30), "the event loop goes on meanwhile"
        return collect(self)

    monkeypatch.setattr(Collector, "collect", slow)

    async def scrape() -> list[bytes]:
        metrics = SiteMetrics(web_site(config))
        asyncio.get_running_loop().call_later(0.05, looped.set)
        forms = [(False, True), (True, True)] * 5
        return await asyncio.gather(*(metrics.text(openmetrics=form, site_wide=wide) for form, wide in forms))

    texts = asyncio.run(scrape())
    assert len(collected) == 1
    assert collected[0] != threading.get_ident()
    assert len(set(texts)) == 2


def test_memory_is_read_in_turns_and_not_again_at_once(monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []

    def read(pid: int) -> int:
        asked.append(pid)
        return pid * 1000

    monkeypatch.setattr(metrics_facts, "own_memory", read)
    memory = ProcessMemory()
    # No time at all: one is read all the same.
    monkeypatch.setattr(metrics_facts, "_MEMORY_CPU_SECONDS", 0.0)
    sizes = [len(memory.read([1, 2, 3])) for _ in range(4)]
    assert sizes == [1, 2, 3, 3]
    assert memory.read([1, 2, 3]) == {1: 1000, 2: 2000, 3: 3000}
    assert sorted(asked) == [1, 2, 3]
    assert memory.read([3, 4]).keys() <= {3, 4}, "those that ended are forgotten"
    later = time.monotonic() + 31
    monkeypatch.setattr(metrics_facts.time, "monotonic", lambda: later)
    monkeypatch.setattr(metrics_facts, "_MEMORY_CPU_SECONDS", 1.0)
    memory.read([3, 4])
    assert asked.count(3) == 2


def test_the_memory_of_a_process_is_its_own():
    found = ProcessMemory().read([os.getpid(), 2**22 + 1])
    assert found.keys() == {os.getpid()}
    assert found[os.getpid()] > 2**20
