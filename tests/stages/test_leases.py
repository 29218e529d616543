"""Leases over a real Redis, one site beside another."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import structlog

from engine.config import Config, from_document
from engine.runtime.claims import identity
from engine.stages.writer import leases
from engine.stages.writer.leases import open_leases
from tests.servers.redis_server import RedisServer


@pytest.fixture
def config(redis_server: RedisServer, tmp_path: Path) -> Config:
    return from_document(
        {
            "site": {"run_directory": str(tmp_path / "run")},
            "redis": {"address": redis_server.address},
            "cameras": [{"id": "cam1", "url": "test://"}],
        },
        {},
    )


def test_the_lease_of_a_camera_that_went_is_given_back(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.0)
    one = identity(config)
    other = msgspec.structs.replace(one, holder="other")
    log = structlog.get_logger()
    with open_leases(config, one, log) as ours, open_leases(config, other, log) as theirs:
        ours.look(["a", "b"])
        theirs.look(["a", "b", "c"])
        assert theirs.rivals == {"a": one, "b": one}
        ours.look(["b"])
        # PEXPIRE with a millisecond.
        assert all(left <= 1 for left in ours.remaining(["a"]))
        ours.look(["b", "c"])
        assert ours.rivals == {"c": other}
        ours.release(["b", "c"])
        assert theirs.remaining(["c"])[0] > 1000


def test_many_cameras_are_asked_for_in_several_steps(config: Config) -> None:
    names = [f"cam{number}" for number in range(250)]
    with open_leases(config, identity(config), structlog.get_logger()) as ours:
        assert ours.take(names) == {}
        assert all(left > 0 for left in ours.remaining(names))
