"""Alerts without a site: what the rules measure, and when a value becomes an alert."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import AlertsSection
from engine.monitor.facts import CameraFacts, DiskFacts, Facts, ProcessFacts, RedisFacts
from engine.monitor.hysteresis import Alerts
from engine.monitor.rules import RULES, Reading, Rule
from engine.monitor.window import Expiry, Windowed
from engine.wire.alert import STATES_MAX

DEFAULTS = AlertsSection()
NANO = 1_800_000_000_000_000_000
GIB = 2**30
REDIS = RedisFacts(GIB // 2, GIB, 20, 900, 100, 0.0)
#: A site in which all is well.
GOOD = Facts(
    window_seconds=60.0,
    ttl_seconds=300,
    cameras=(CameraFacts("cam1"), CameraFacts("cam2", clock_offset_seconds=0.1)),
    processes=(ProcessFacts("writer"),),
    redis=REDIS,
    publishes=True,
    broker_away_seconds=0.0,
    lag_seconds=0.1,
    disks=(DiskFacts("/run", 0.5, GIB),),
)


def but(facts: Facts = GOOD, **changes: object) -> Facts:
    """A site in which all but ``changes`` is well."""
    fields = {name: getattr(facts, name) for name in facts.__struct_fields__} | changes
    return Facts(**fields)


def redis(**changes: object) -> Facts:
    return but(redis=RedisFacts(**({name: getattr(REDIS, name) for name in REDIS.__struct_fields__} | changes)))


#: For each rule: facts that raise it, and the sentence that it says then.
BAD: dict[str, tuple[Facts, str]] = {
    "camera_down": (
        but(cameras=(CameraFacts("cam1", 61.0, "offline", "401 from 192.0.2.10"),)),
        "camera cam1 has been offline for 61 s: 401 from 192.0.2.10",
    ),
    "camera_clock": (
        but(cameras=(CameraFacts("cam1", clock_offset_seconds=-3600.0),)),
        "the clock of camera cam1 is 3,600.0 s behind ours",
    ),
    "frames_dropped": (
        but(cameras=(CameraFacts("cam1", dropped={"outage": 1200, "corrupt": 1, "lost": 0}),)),
        "camera cam1 lost 1,201 frames within 60 s (1 corrupt, 1,200 outage)",
    ),
    "ring_fill": (
        but(cameras=(CameraFacts("cam1", fill=0.8),)),
        "the ring of camera cam1 is 80% full: frames come faster than they are stored",
    ),
    "redis_away": (
        but(redis=None, redis_away_seconds=12.0, redis_error="connection refused"),
        "Redis has been away for 12 s: connection refused",
    ),
    "redis_memory": (redis(used_memory_bytes=GIB * 9 // 10), "Redis uses 0.90 of 1.00 GiB (90 %)"),
    "redis_misses": (
        redis(hits=700, misses=300),
        "300 of 1,000 look-ups within 60 s found nothing (30 %)",
    ),
    "redis_clients": (redis(clients=1234), "Redis has 1,234 clients"),
    "redis_expiry": (
        redis(overdue_seconds=75.0),
        "nothing expires in Redis: frames are stored for 300 s, and the oldest should have expired 75 s ago",
    ),
    "broker_away": (
        but(broker_away_seconds=11.0, broker_error="refused"),
        "RabbitMQ has been away for 11 s: refused",
    ),
    "publisher_lag": (but(lag_seconds=45.0), "events are 45 s behind the stored frames"),
    "process_down": (but(processes=(ProcessFacts("writer", 20.0),)), "process writer has been down for 20 s"),
    "process_restarts": (
        but(processes=(ProcessFacts("writer", 0.0, 5),)),
        "process writer was started again 5 times within 60 s",
    ),
    "disk_full": (
        but(disks=(DiskFacts("/run", 0.95, GIB // 20),)),
        "the file system of /run is 95% full, 0.05 GiB are free",
    ),
    "clock_stepped": (but(clock_step_seconds=-7200.0), "this machine's clock was set back by 7,200.0 s"),
}


def after(alerts: Alerts, facts: Facts, seconds: float, start: float = 0.0) -> list[tuple[str, str]]:
    """The changes while these facts hold for ``seconds``, a look every two."""
    changes = []
    now = start
    while now <= start + seconds:
        changes += [(one.name, one.state) for one in alerts.judge(facts, now, NANO + int(now * 1e9))]
        now += 2.0
    return changes


def test_every_rule_has_facts_that_raise_it() -> None:
    assert BAD.keys() == {rule.name for rule in RULES}
    assert {rule.key for rule in RULES} <= set(AlertsSection.__struct_fields__)
    assert len({rule.name for rule in RULES}) == len({rule.key for rule in RULES}) == len(RULES)


def test_a_site_in_which_all_is_well_has_no_alert() -> None:
    assert after(Alerts(DEFAULTS), GOOD, 600) == []


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_raises_its_rule_only_says_so_and_is_cleared(name: str) -> None:
    alerts = Alerts(DEFAULTS)
    facts, text = BAD[name]
    assert after(alerts, facts, 60) == [(name, "raised")]
    (state,) = alerts.states
    (rule,) = (rule for rule in RULES if rule.name == name)
    assert (state.text, state.advice, state.severity) == (text, rule.advice, rule.severity)
    assert state.value >= state.threshold == rule.threshold(DEFAULTS)
    assert after(alerts, GOOD, 60, start=100.0) == [(name, "cleared")] or name in ("camera_clock",)
    if name == "camera_clock":
        # A camera that does not tell its time may be wrong still; one that tells it is not.
        right = but(cameras=(CameraFacts("cam1", clock_offset_seconds=0.1),))
        assert after(alerts, right, 60, start=200.0) == [(name, "cleared")]
    assert [one.state for one in alerts.states] == ["cleared"]


@pytest.mark.parametrize("name", BAD)
def test_a_threshold_of_0_turns_a_rule_off(name: str) -> None:
    (key,) = (rule.key for rule in RULES if rule.name == name)
    assert after(Alerts(AlertsSection(**{key: 0})), BAD[name][0], 60) == []


def test_unknown_figures_leave_an_alert_as_it_is() -> None:
    alerts = Alerts(DEFAULTS)
    after(alerts, BAD["redis_memory"][0], 20)
    assert after(alerts, but(redis=None), 60, start=30.0) == []
    assert [one.state for one in alerts.states] == ["raised"]


def test_a_publisher_that_is_down_tells_nothing_of_rabbitmq() -> None:
    for name in ("broker_away", "publisher_lag"):
        alerts = Alerts(DEFAULTS)
        after(alerts, BAD[name][0], 20)
        assert after(alerts, but(broker_away_seconds=None, lag_seconds=None), 60, start=30.0) == []
        # It runs again: the outage counts anew, and RabbitMQ is still away.
        back = but(broker_away_seconds=1.0, lag_seconds=45.0 if name == "publisher_lag" else 0.1)
        assert after(alerts, back, 60, start=100.0) == []
        assert [one.state for one in alerts.states] == ["raised"]


def test_an_alert_of_a_rule_that_was_turned_off_is_cleared() -> None:
    before = Alerts(DEFAULTS)
    after(before, BAD["redis_away"][0], 2)
    successor = Alerts(AlertsSection(redis_away_seconds=0), before.states)
    assert after(successor, BAD["redis_away"][0], 2, start=10.0) == [("redis_away", "cleared")]
    assert successor.states[0].text == "redis_away is turned off"


@pytest.mark.parametrize("name", ["frames_dropped", "process_restarts", "clock_stepped"])
def test_counts_that_have_just_begun_clear_nothing(name: str) -> None:
    """A monitor that was started again knows nothing of the window before."""
    before = Alerts(DEFAULTS)
    after(before, BAD[name][0], 2)
    successor = Alerts(DEFAULTS, before.states)
    fresh = but(processes=(ProcessFacts("writer"),), cameras=(CameraFacts("cam1"),), window_full=False)
    assert after(successor, fresh, 58, start=10.0) == []
    assert after(successor, but(processes=(ProcessFacts("writer"),)), 30, start=70.0) == [(name, "cleared")]


def test_an_alert_of_a_camera_that_left_the_site_is_cleared() -> None:
    alerts = Alerts(DEFAULTS)
    after(alerts, BAD["camera_down"][0], 2)
    assert after(alerts, but(cameras=()), 2, start=10.0) == [("camera_down", "cleared")]


def test_a_successor_raises_nothing_twice() -> None:
    before = Alerts(DEFAULTS)
    after(before, BAD["camera_down"][0], 2)
    successor = Alerts(DEFAULTS, before.states)
    assert after(successor, BAD["camera_down"][0], 30, start=10.0) == []
    assert after(successor, GOOD, 30, start=60.0) == [("camera_down", "cleared")]


def test_a_raised_alert_tells_its_present_value_without_a_change() -> None:
    alerts = Alerts(DEFAULTS)
    after(alerts, redis(clients=1001), 20)
    assert after(alerts, redis(clients=5000), 30, start=30.0) == []
    assert [one.value for one in alerts.states] == [5000]


def test_the_number_of_states_is_bounded_and_raised_ones_stay() -> None:
    alerts = Alerts(DEFAULTS)
    for round_ in range(4):
        down = tuple(CameraFacts(f"cam{round_} {number}", 60.0, "offline") for number in range(STATES_MAX // 2))
        alerts.judge(but(cameras=down), round_ * 10.0, NANO)
    states = alerts.states
    assert len(states) <= STATES_MAX
    assert sum(one.state == "raised" for one in states) == STATES_MAX // 2


def test_hostile_names_fit() -> None:
    alerts = Alerts(DEFAULTS)
    alerts.judge(but(cameras=(CameraFacts("\u2603" * 5000, 60.0, "offline", "x" * 10_000),)), 0.0, NANO)
    (state,) = alerts.states
    assert len(state.subject) == 300
    assert len(state.text) == 400


@given(
    values=st.lists(st.sampled_from([0.0, 49.0, 51.0, 95.0, 100.0, 150.0, None]), max_size=80),
    for_seconds=st.sampled_from([0.0, 4.0]),
    share=st.sampled_from([0.0, 0.5, 0.9]),
)
def test_an_alert_is_raised_and_cleared_once_for_each_crossing_of_both_bounds(
    values: list[float | None], for_seconds: float, share: float
) -> None:
    """Whatever a value does: changes take turns, each after its side was held for its time, and there is at most one
    pair for each crossing of both bounds."""
    box: list[float | None] = [None]
    rule = Rule(
        "r", "warning", "disk_percent", lambda _: iter([Reading("s", box[0], "bad", "good")]), "", for_seconds, share
    )
    alerts = Alerts(AlertsSection(disk_percent=100.0, clear_seconds=4.0), rules=[rule])
    lower = 100.0 * share
    crossings, side, raised = 0, "low", False
    for step, value in enumerate(values):
        box[0] = value
        changes = alerts.judge(GOOD, 2.0 * step, NANO + step)
        if value is not None and value >= 100.0:
            crossings += side == "low"
            side = "high"
        elif value is not None and (value < lower or value == 0):
            crossings += side == "high"
            side = "low"
        assert len(changes) <= 1
        for change in changes:
            assert (change.state == "raised") is not raised
            raised = not raised
            crossings -= 1
            held = int((for_seconds if raised else 4.0) // 2) + 1
            recent = values[step + 1 - held : step + 1]
            assert len(recent) == held
            for one in recent:
                assert one is not None
                assert one >= 100.0 if raised else (one < lower or one == 0)
        assert crossings >= 0
    assert (alerts.states[-1].state == "raised" if alerts.states else False) is raised


def test_a_counter_s_rise_within_the_window() -> None:
    counter = Windowed(10.0)
    assert [counter.take(now, count) for now, count in [(0.0, 50), (2.0, 53), (4.0, 53), (6.0, 60)]] == [0, 3, 3, 10]
    # At 12 s, the rise of 2 s is out of the window; at 14 s the counter was started again from 0.
    assert [counter.take(now, count) for now, count in [(12.0, 60), (14.0, 2), (30.0, 2)]] == [7, 9, 0]


def test_nothing_is_overdue_while_keys_expire() -> None:
    expiry, gone = Expiry(300.0), 0
    for second in range(0, 2000, 2):
        gone += 60 * (second >= 302)
        assert expiry.take(float(second), 60 * second, gone) == 0.0


def test_a_camera_that_ends_is_no_reason() -> None:
    """Its last frames expire after their lifetime, and then there is nothing left to expire."""
    expiry, gone = Expiry(300.0), 0
    for second in range(0, 3000, 2):
        gone += 60 * (302 <= second < 1304)
        assert expiry.take(float(second), 60 * min(second, 1000), gone) == 0.0


def test_an_expiry_that_is_seen_early_counts() -> None:
    """Frames stored just before a look, and gone just before the look at which they are due: nothing is left."""
    expiry = Expiry(300.0)
    expiry.take(0.0, 0, 0)
    expiry.take(2.0, 100, 0)
    assert expiry.take(301.0, 100, 100) == 0.0
    assert expiry.take(1000.0, 100, 100) == 0.0


def test_frames_that_outlive_their_ttl_are_overdue() -> None:
    expiry = Expiry(300.0)
    overdue = [expiry.take(float(second), 60 * second, 0) for second in range(0, 1000, 2)]
    assert overdue[150] == 0.0
    assert overdue[-1] == pytest.approx(998 - 300 - 2)
    # Long after the last frame was stored, nothing need be left: keys may have been deleted.
    assert expiry.take(1400.0, 60 * 998, 0) == 0.0
    assert expiry.take(1402.0, 60_000, 0) == 0.0
    # One key that expires shows that keys do.
    assert expiry.take(1404.0, 60_000, 1) == 0.0
    assert expiry.take(1406.0, 60_000, 0) == 0.0, "Redis was started again"
