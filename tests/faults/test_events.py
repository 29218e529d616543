"""Publishers that are behind for longer than frames live: each event comes, or is counted as expired, once."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.wire.keys import journal_key
from tests.faults.run import FPS, FaultRun, pattern
from tests.faults.stepped_clock import write_step
from tests.servers.wait import wait_until

NAMES = ("cam1", "cam2", "cam3", "cam4")
TTL = {"ttl_seconds": 2}
#: Longer than an entry stands behind its frame: the TTL, the writer's grace of 5 s, and a mark or two.
BEHIND_SECONDS = 9
#: Few messages on their way, where their connection is to be cut.
NARROW = {"window": 8}
#: Patient where the publisher is to stand still.
PATIENT: dict[str, Any] = {"site": {"heartbeat_seconds": 30.0}, "amqp": {"heartbeat_seconds": 60}}


def cameras(fps: float = FPS, frames: int = 0) -> list[dict[str, Any]]:
    return [{"id": name, "url": pattern(fps, 4, frames)} for name in NAMES]


def expired(run: FaultRun) -> int:
    return int(run.site.status()["publisher"]["expired"])


def stays(run: FaultRun, until: Callable[[], bool]) -> None:
    """The fault lasts for longer than entries stand, and until its effect is seen."""
    run.lasts(BEHIND_SECONDS)
    wait_until(until, 30, "it shows", interval=0.1)


@pytest.mark.case("events-slow-uplink")
def test_a_slow_uplink(run: FaultRun) -> None:
    run.start(cameras(fps=75), redis=TTL, publisher={"window": 32}, **PATIENT)
    run.broker_proxy.bytes_per_second = 20_000
    run.lasts(15)
    run.broker_proxy.bytes_per_second = 0
    run.mended()
    run.recovers()
    assert run.balances(cut=False) > 500


@pytest.mark.case("events-alarm")
def test_an_alarm(run: FaultRun) -> None:
    run.start(cameras(), redis=TTL)
    run.broker.set_alarm(True)
    try:
        stays(run, lambda: True)
    finally:
        run.broker.set_alarm(False)
    run.mended()
    run.recovers()
    assert run.balances(cut=False) > 100


@pytest.mark.case("events-redis-user")
def test_the_publisher_s_redis_user_is_off(run: FaultRun) -> None:
    client = run.redis.client()
    client.execute_command("ACL", "SETUSER", "publisher", "on", ">password", "~*", "+@all")
    run.start(cameras(), redis={**TTL, "publisher_username": "publisher", "publisher_password": "password"}, **PATIENT)
    client.execute_command("ACL", "SETUSER", "publisher", "off")
    client.execute_command("CLIENT", "KILL", "USER", "publisher")
    stays(run, lambda: "refuses the credentials" in run.site.log_text())
    client.execute_command("ACL", "SETUSER", "publisher", "on")
    run.mended()
    run.recovers()
    assert run.balances(cut=False) > 100


@pytest.mark.case("events-publisher-stopped")
def test_a_publisher_that_stands_still(run: FaultRun) -> None:
    run.start(cameras(), redis=TTL, **PATIENT)
    run.signal(signal.SIGSTOP, "publisher")
    stays(run, lambda: True)
    run.signal(signal.SIGCONT, "publisher")
    run.mended()
    run.recovers()
    assert run.balances(cut=False) > 100


@pytest.mark.case("events-publisher-killed")
def test_a_publisher_killed_while_events_expire(run: FaultRun) -> None:
    run.start(cameras(fps=50), redis=TTL, publisher=NARROW)
    run.broker_proxy.refusing = True
    run.broker_proxy.reset()
    for _ in range(5):
        before = expired(run)
        # What is counted, and not yet saved where the successor begins, must not count twice.
        wait_until(lambda before=before: expired(run) > before, 30, "events expire", interval=0.001)
        run.site.signal(signal.SIGKILL, "publisher")
    run.broker_proxy.refusing = False
    run.mended()
    run.recovers()
    assert run.balances(cut=True) > 500


@pytest.mark.case("events-clock")
def test_a_clock_that_steps_back_before_an_outage(run: FaultRun, short_path: Path) -> None:
    step = short_path / "step"
    write_step(step, 0)
    run.site.command = [sys.executable, "-m", "tests.faults.stepped_clock", str(step)]
    run.start(cameras(), redis=TTL, publisher=NARROW)
    write_step(step, -3600)
    run.flows(1)
    run.broker_proxy.refusing = True
    run.broker_proxy.reset()
    stays(run, lambda: expired(run) > 100)
    run.broker_proxy.refusing = False
    run.mended()
    run.recovers()
    run.balances(cut=True)


@pytest.mark.case("events-foreign-journal")
@pytest.mark.usefixtures("neighbour")
def test_something_else_in_a_journal_s_place(run: FaultRun) -> None:
    run.start(cameras())
    assert run.consumer is not None
    client, journal, victim = run.redis.client(), journal_key(run.vhost, "frames", NAMES[0]), NAMES[0]
    with client.pipeline() as swap:
        swap.rename(journal, "aside").set(journal, "somebody else's").execute()
    run.unwell = {victim}
    wait_until(lambda: f"redis-cli DEL {journal}" in run.site.log_text(), 20, "it is said what to do")
    before = {name: len(numbers) for name, numbers in run.consumer.sequences().items()}

    def others_flow() -> bool:
        numbers = run.consumer.sequences()
        return all(len(numbers[name]) > before.get(name, 0) + 3 * FPS for name in NAMES[1:])

    wait_until(others_flow, 20, "events of the others arrive", interval=0.1)
    assert "redis is away" not in run.site.log_text()
    with client.pipeline() as swap:
        swap.delete(journal).rename("aside", journal).execute()
    run.unwell = set()
    wait_until(lambda: "read again" in run.site.log_text(), 20, "it is said to be mended")
    run.mended()
    run.recovers()
    drops = {camera["id"]: camera["dropped"] for camera in run.site.status()["cameras"]}
    assert drops.pop(victim)["refused"] > 0
    assert not any(number for reasons in drops.values() for number in reasons.values())
    assert run.balances(cut=False) == 0
    run.note = ""
    assert run.site.log_text().count("passed over") == 1


@pytest.mark.case("events-journal-gone")
def test_journals_that_expire_unread(run: FaultRun) -> None:
    *ending, staying = NAMES
    short = [{"id": name, "url": pattern(FPS, 4, 60)} for name in ending]
    run.start([*short, {"id": staying, "url": pattern(FPS, 4)}], redis=TTL, **PATIENT)
    run.signal(signal.SIGSTOP, "publisher")
    journals = [journal_key(run.vhost, "frames", name) for name in ending]
    wait_until(lambda: not run.redis.client().exists(*journals), 40, "journals expire", interval=0.1)
    run.signal(signal.SIGCONT, "publisher")
    run.mended()
    run.unwell = set(ending)
    run.recovers()
    assert run.balances(cut=False) > 100


@pytest.mark.case("events-stop-and-start")
def test_numbers_go_on_after_journals_have_expired(run: FaultRun) -> None:
    run.start(cameras(), redis=TTL)
    run.balances(cut=False)
    assert run.consumer is not None
    client, former = run.redis.client(), run.consumer.sequences()
    wait_until(lambda: not client.keys(f"engine:{run.vhost}:journal:*"), 20, "journals expire", interval=0.1)
    run.broker_proxy.refusing = True
    run.site.start()
    wait_until(lambda: run.site.total("stored") > 100, 30, "frames are stored")
    run.site.signal(signal.SIGKILL, "publisher")
    wait_until(lambda: expired(run) > 50, 30, "events expire", interval=0.1)
    run.broker_proxy.refusing = False
    run.mended()
    run.recovers()
    run.balances(cut=False, former=sum(map(len, former.values())))
    for name, numbers in run.consumer.sequences().items():
        assert min(numbers[len(former[name]) :]) > max(former[name])
