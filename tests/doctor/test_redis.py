"""The doctor before Redis servers that are well, and ill in each way."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config, from_document
from engine.doctor.examine import redis as examine_redis
from engine.doctor.findings import Finding
from engine.jobs.tenants import acl_rules, apply_rules
from engine.servers.redis.session import Session
from engine.wire import keys
from engine.wire.redis_address import parse_redis_address
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port
from tests.stored_video import store_video, video_units

FRAME = "default:frames:a:1731024000123456789:00001"


CAMERAS = ({"id": "a", "url": "test://"},)


def config_of(address: str, *, cameras: Sequence[object] = CAMERAS, **redis: object) -> Config:
    return from_document({"redis": {"address": address, "timeout_seconds": 2, **redis}, "cameras": list(cameras)}, {})


def look(address: str, **redis: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine_redis(config_of(address, **redis), running=False)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    args = ["--maxmemory", "64mb", "--maxmemory-policy", "volatile-ttl"]
    with RedisServer(tmp_path_factory.mktemp("redis"), args=args) as started:
        yield started


@pytest.fixture
def client(server):
    """Whatever a test does to the server is undone."""
    with server.client() as made:
        yield made
        made.config_set("maxmemory", "64mb")
        made.config_set("maxmemory-policy", "volatile-ttl")
        made.config_set("save", "")
        made.config_set("slowlog-log-slower-than", "10000")
        made.config_set("requirepass", "")
        made.replicaof("NO", "ONE")
        made.flushall()
        made.slowlog_reset()


def test_a_good_server_is_good_and_left_as_it_was(server, client):
    client.set(FRAME, b"x", px=60_000)
    client.xadd(keys.journal_key("default", "frames", "a"), {"s": 1})
    client.pexpire(keys.journal_key("default", "frames", "a"), 60_000)
    before = sorted(client.keys())
    found = look(server.address)
    found.pop("latency")  # the machine's business
    assert {finding.verdict for finding in found.values()} == {"ok"}, found
    assert found["TTL of frames"].found == "none of 1 is without"
    assert found["TTL of journals"].found == "none of 1 is without"
    assert sorted(client.keys()) == before


def test_the_probe_key_is_of_the_engine_and_matches_no_documented_pattern(server, client):
    client.config_resetstat()
    with client.monitor() as monitor:
        look(server.address)
        for line in monitor.listen():
            if line["command"].startswith("SET "):
                break
    key = line["command"].split()[1].encode()
    for pattern in ("default:*", "*:frames:*", "engine:*:cameras:*", "engine:*:journal:*", "engine:*:cursor:*"):
        client.set(key, 1, px=1000)
        assert key not in client.keys(pattern)
    assert key.startswith(b"engine:default:rebuild:doctor-")


def test_memory_nearly_full(server, client):
    client.config_set("maxmemory", client.info("memory")["used_memory"] * 100 // 85)
    assert look(server.address)["memory"].verdict == "warning"


def test_memory_full_and_nothing_to_evict(server, client):
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1mb")
    found = look(server.address)
    assert (found["memory"].verdict, found["eviction"].verdict) == ("warning", "warning")
    assert found["expiry"].verdict == "broken"
    assert "maxmemory" in found["expiry"].found


def test_no_bound_and_a_policy_that_evicts_journals(server, client):
    client.config_set("maxmemory", "0")
    client.config_set("maxmemory-policy", "allkeys-lru")
    found = look(server.address)
    assert "not set" in found["memory"].found
    assert "journals" in found["eviction"].found


def test_keys_without_ttl(server, client):
    client.set(FRAME, b"x")
    client.set("other:frames:a:1731024000123456789:00001", b"x")
    client.xadd(keys.journal_key("default", "frames", "a"), {"s": 1})
    found = look(server.address)
    assert found["TTL of frames"].found == "1 of 1 never expire"
    assert found["TTL of journals"].verdict == "warning"


def test_stored_video_is_the_engine_s_own(server, client):
    """Its keys and journals are among those that must have a TTL, and nothing else is said of them."""
    site: dict[str, Any] = {"cameras": [{"id": "a", "url": "rtsp://192.0.2.1/x", "video": True}]}
    before = set(look(server.address, **site))
    assert before >= {"TTL of video"}
    units = video_units("a", "K....K....")
    store_video(client, "default", units)
    found = look(server.address, **site)
    assert set(found) == before
    assert found["TTL of video"].found == "none of 10 is without"
    assert found["TTL of frames"].found == "none of 0 is without"
    assert found["TTL of journals"].found == "none of 1 is without"
    client.persist(units[0].key("default"))
    client.persist(keys.video_journal_key("default", "frames", "a"))
    found = look(server.address, **site)
    assert found["TTL of video"].found == "1 of 10 never expire"
    assert found["TTL of journals"].verdict == "warning"
    assert "TTL of video" not in look(server.address)


def test_slow_commands_are_named_without_their_arguments(server, client):
    client.config_set("slowlog-log-slower-than", "0")
    client.get("a-secret-key")
    found = look(server.address)["slow log"]
    assert found.verdict == "warning"
    assert "a-secret-key" not in found.found


def test_snapshots(server, client):
    client.config_set("save", "3600 1000000")
    assert look(server.address)["persistence"].verdict == "information"


def test_a_replica(server, client):
    client.replicaof("127.0.0.1", free_port())
    found = look(server.address)
    assert found["role"].verdict == "broken"
    assert "read only" in found["expiry"].found


def test_a_wrong_password(server, client):
    client.config_set("requirepass", "right")
    found = look(server.address, password="wrong-secret")
    client.auth("right")
    assert list(found) == ["authentication"]
    assert found["authentication"].verdict == "broken"
    assert "redis.password" in found["authentication"].todo
    assert "wrong-secret" not in str(found)


@pytest.mark.parametrize("roles", [["writer"], ["writer", "publisher"]], ids=["writer", "both"])
def test_a_user_of_least_privilege_is_told_what_he_may_not_ask(server, client, roles):
    client.set(FRAME, b"x", px=60_000)
    with Session(parse_redis_address(server.address), 2) as session:
        apply_rules(session, "engine", acl_rules("default", roles, "password"))
    found = look(server.address, username="engine", password="password")
    assert found["reachable"].verdict == "ok"
    assert {finding.verdict for finding in found.values()} == {"ok", "information"}, found
    for check in ("server's figures", "expiry", "TTL of frames", "slow log"):
        assert "this user may not ask" in found[check].found
        assert "REDIS_USERNAME" in found[check].todo
    client.acl_deluser("engine")


def test_nothing_there(tmp_path: Path):
    port = free_port()
    assert "refused (nothing listens there)" in look(f"127.0.0.1:{port}")["reachable"].found
    assert "no socket" in look(f"unix://{tmp_path}/none.sock")["reachable"].found
    assert "no such name" in look("host.invalid:6379")["reachable"].found


def test_an_embedded_server_of_a_site_that_does_not_run_is_no_trouble(tmp_path: Path):
    found = look("embedded")["reachable"]
    assert (found.verdict, "does not run" in found.found) == ("information", True)


def test_the_example_in_the_documents_is_what_is_printed(server, client):
    from rich.console import Console

    from engine.cli.doctor import print_findings
    from tests.system.site import ROOT

    client.config_set("maxmemory", "0")
    found = look(server.address)
    shown = io.StringIO()
    print_findings(Console(width=160, color_system=None, file=shown), [found["reachable"], found["memory"]])
    printed = shown.getvalue()
    example = (ROOT / "docs/operations.md").read_text().split("```")[1].strip("\n")
    assert words(printed) == words(example)


def words(text: str) -> list[str]:
    """Without the figures and ports of one run."""
    return re.sub(r"[0-9][0-9.]*", "0", text).replace("80%", "0%").split()
