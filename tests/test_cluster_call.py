"""Round trips to a cluster, with nodes that are made up: what their answers lead to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError

from engine.errors import Cause, EngineError, RedisUnavailable, ServerRefused
from engine.servers.redis import cluster_state, patience
from engine.servers.redis.cluster_call import Pause, Renew, Send, cluster_call
from engine.servers.redis.cluster_state import ClusterState
from engine.wire.cluster import SLOTS, ClusterMap, Node, parse_slots, slot_of
from engine.wire.redis_address import parse_cluster
from tests.servers.wait import wait_until

pytestmark = pytest.mark.unit

A, B, REPLICA = Node("a", 1), Node("b", 2), Node("r", 3)
KEYS = [f"key{number}" for number in range(30)]
HELD = {key: key.encode() for key in KEYS[::2]}


class Cluster:
    """Two masters and a replica of the first; a slot may be on its way, or have gone while clients do not know."""

    def __init__(self) -> None:
        self.owner = {slot: A if slot < SLOTS // 2 else B for slot in range(SLOTS)}
        #: Slot -> where its keys go; some have arrived there.
        self.importing: dict[int, Node] = {}
        self.arrived: set[str] = set()
        self.down: set[Node] = set()
        self.lacking: set[str] = set()
        self.refusals: list[ResponseError] = []
        self.asked: list[tuple[Node, str]] = []
        self.pauses = 0
        self.renewals = 0

    def map(self) -> ClusterMap:
        """What the nodes say; slots one by one are enough where they are of interest."""
        ranges = []
        begin = 0
        for slot in range(1, SLOTS + 1):
            if slot == SLOTS or self.owner[slot] != self.owner[begin]:
                node = self.owner[begin]
                replicas = [[b"r", 3]] if node == A else []
                ranges.append([begin, slot - 1, [node.host.encode(), node.port], *replicas])
                begin = slot
        return parse_slots(ranges, A)

    def get(self, node: Node, key: str, *, asking: bool, readonly: bool) -> Any:
        if self.refusals:
            return self.refusals.pop()
        self.asked.append((node, key))
        slot = slot_of(key.encode())
        owner = self.owner[slot]
        if node == REPLICA and readonly and owner == A:
            return None if key in self.lacking else HELD.get(key)
        if node == owner:
            target = self.importing.get(slot)
            if target is not None and (key in self.arrived or key not in HELD):
                return AskError(f"{slot} {target.host}:{target.port}")
            return HELD.get(key)
        if node == self.importing.get(slot) and asking:
            return HELD.get(key) if key in self.arrived else None
        return MovedError(f"{slot} {owner.host}:{owner.port}")

    def answer(self, node: Node, commands: list[tuple[Any, ...]]) -> list[Any] | EngineError:
        if node in self.down:
            return RedisUnavailable(f"{node} is away", cause=Cause.REDIS_AWAY, subject=str(node))
        replies: list[Any] = []
        readonly = asking = False
        for name, *words in commands:
            if name in ("READONLY", "ASKING"):
                readonly, asking = readonly or name == "READONLY", name == "ASKING"
                replies.append(b"OK")
                continue
            found = [self.get(node, key, asking=asking, readonly=readonly) for key in words]
            error = next((one for one in found if isinstance(one, Exception)), None)
            replies.append(error or (found if name == "MGET" else found[0]))
            asking = False
        return replies


def state(cluster: Cluster, *, read_replicas: bool = False) -> ClusterState:
    found = ClusterState(parse_cluster(["a:1", "b:2"]), 5, read_replicas=read_replicas)
    found.map = cluster.map()
    return found


def run(
    cluster: Cluster,
    known: ClusterState,
    *commands: tuple[Any, ...],
    repeats: bool = True,
    seconds: float = 5,
    before: Callable[[], None] = lambda: None,
) -> list[Any]:
    """Carry out a call as connections do. ``before`` is called before each sending."""
    steps = cluster_call(known, commands, seconds, repeats=repeats)
    outcome: Any = None
    try:
        step = next(steps)
        while True:
            if isinstance(step, Renew):
                cluster.renewals += 1
                known.map = outcome = cluster.map()
            elif isinstance(step, Pause):
                cluster.pauses += 1
            else:
                assert isinstance(step, Send)
                before()
                requests: Mapping[Node, Any] = step.requests
                outcome = {node: cluster.answer(node, request.commands) for node, request in requests.items()}
            step = steps.send(outcome)
    except StopIteration as stop:
        found: list[Any] = stop.value
        return found


@pytest.fixture(autouse=True)
def short_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "TRIES", 2)


moves = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from([A, B]), st.sampled_from(["moved", "begins", "arrives"])),
    max_size=40,
)


@settings(deadline=None, max_examples=50)
@given(
    moves=moves,
    trips=st.lists(st.lists(st.sampled_from(KEYS), min_size=1, max_size=8), min_size=1, max_size=5),
    read_replicas=st.booleans(),
)
def test_whatever_moves_every_key_s_value_is_got(moves: Any, trips: list[list[str]], read_replicas: bool) -> None:
    cluster = Cluster()
    known = state(cluster, read_replicas=read_replicas)
    todo = list(moves)

    def move() -> None:
        for key, target, what in todo[:2]:
            slot = slot_of(key.encode())
            if what == "begins" and target != cluster.owner[slot]:
                cluster.importing[slot] = target
            elif what == "arrives" and slot in cluster.importing:
                cluster.arrived |= {other for other in KEYS if slot_of(other.encode()) == slot}
            elif what == "moved":
                cluster.owner[slot] = cluster.importing.pop(slot, target)
        del todo[:2]

    for keys in trips:
        found = run(cluster, known, ("MGET", *keys), *(("GET", key) for key in keys), before=move)
        wanted = [HELD.get(key) for key in keys]
        assert found == [wanted, *wanted]
    assert cluster.pauses == 0


def test_a_key_that_has_moved_is_asked_there_at_once_and_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_state, "_RENEWED_SECONDS", 1e9)
    cluster = Cluster()
    known = state(cluster)
    cluster.owner[slot_of(b"key0")] = other = B if cluster.owner[slot_of(b"key0")] == A else A
    for _ in range(2):
        assert run(cluster, known, ("GET", "key0"), repeats=False) == [b"key0"]
    assert [node for node, _ in cluster.asked] == [A if other == B else B, other, other]
    assert (cluster.pauses, cluster.renewals) == (0, 0)


@pytest.mark.parametrize(
    ("error", "renewals"),
    [
        (TryAgainError("Multiple keys"), 0),
        (ClusterDownError("The cluster is down"), 1),
        (ResponseError("UNBLOCKED"), 1),
    ],
    ids=["TRYAGAIN", "CLUSTERDOWN", "UNBLOCKED"],
)
@pytest.mark.parametrize("repeats", [True, False], ids=["store", "session"])
def test_a_node_that_cannot_answer_for_now_is_asked_again(error: ResponseError, renewals: int, repeats: bool) -> None:
    cluster = Cluster()
    cluster.refusals = [error]
    assert run(cluster, state(cluster), ("GET", "key0"), repeats=repeats) == [b"key0"]
    assert (cluster.pauses, cluster.renewals) == (1, renewals)


def test_in_the_end_the_error_is_the_reply() -> None:
    cluster = Cluster()
    error = TryAgainError("Multiple keys")
    cluster.refusals = [error] * 100
    assert run(cluster, state(cluster), ("GET", "key0"), ("GET", "key2"), seconds=0)[0] is error


def test_another_error_is_the_reply_at_once() -> None:
    cluster = Cluster()
    error = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    cluster.refusals = [error]
    replies = run(cluster, state(cluster), ("GET", "key0"), ("GET", "key2"))
    assert sorted(map(str, replies)) == sorted(map(str, [error, b"key2"])) or replies[1] is error
    assert cluster.pauses == 0


def test_a_session_repeats_nothing_after_a_broken_connection() -> None:
    cluster = Cluster()
    known = state(cluster)
    cluster.down = {A, B}
    with pytest.raises(RedisUnavailable, match="away"):
        run(cluster, known, ("GET", "key0"), repeats=False)
    assert known.map is None
    assert cluster.pauses == 0


def test_a_store_asks_again_until_another_node_has_taken_over() -> None:
    cluster = Cluster()
    known = state(cluster)
    cluster.down = {A}
    trips = 0

    def take_over() -> None:
        nonlocal trips
        trips += 1
        if trips == 4:
            cluster.owner = dict.fromkeys(cluster.owner, B)

    assert run(cluster, known, ("MGET", *KEYS), before=take_over) == [[HELD.get(key) for key in KEYS]]
    # The fourth trip met the old map.
    assert cluster.pauses == 4


def test_what_only_a_master_has_is_asked_of_it() -> None:
    cluster = Cluster()
    known = state(cluster, read_replicas=True)
    cluster.lacking = set(KEYS)
    assert run(cluster, known, ("MGET", *KEYS)) == [[HELD.get(key) for key in KEYS]]
    assert {REPLICA, A, B} == {node for node, _ in cluster.asked}


def test_a_replica_that_is_away_or_follows_another_master_is_passed_over() -> None:
    cluster = Cluster()
    known = state(cluster, read_replicas=True)
    cluster.down = {REPLICA}
    assert run(cluster, known, ("MGET", *KEYS)) == [[HELD.get(key) for key in KEYS]]
    assert cluster.pauses == 0
    cluster = Cluster()
    known = state(cluster, read_replicas=True)
    stale = known.map
    cluster.owner = {slot: B if node == A else A for slot, node in cluster.owner.items()}
    assert known.map is stale
    assert run(cluster, known, ("MGET", *KEYS)) == [[HELD.get(key) for key in KEYS]]


def test_a_refusal_is_raised() -> None:
    cluster = Cluster()
    cluster.answer = lambda node, commands: ServerRefused("no", cause=Cause.LOGIN)  # type: ignore[method-assign]
    with pytest.raises(ServerRefused):
        run(cluster, state(cluster), ("GET", "key0"))


def test_threads_that_wait_for_another_s_map_share_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, goes_on = threading.Semaphore(0), threading.Event()
    questions: list[int] = []

    def find(*_: object) -> ClusterMap:
        questions.append(1)
        asked.release()
        goes_on.wait(10)
        raise RedisUnavailable("no node answers", cause=Cause.REDIS_AWAY)

    monkeypatch.setattr(cluster_state, "find_nodes", find)
    state = ClusterState(parse_cluster(["a:1"]), 1.0)
    errors: list[str] = []

    def renew() -> None:
        try:
            state.renew()
        except RedisUnavailable as error:
            errors.append(error.fact)

    threads = [threading.Thread(target=renew) for _ in range(4)]
    threads[0].start()
    assert asked.acquire(timeout=10)
    count = _Counted(state._renewing)
    state._renewing = count  # type: ignore[assignment]
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: count.waiting == 3, 10, "three threads wait")
    goes_on.set()
    for thread in threads:
        thread.join(10)
    assert (errors, len(questions)) == (["no node answers"] * 4, 1)
    with pytest.raises(RedisUnavailable):
        state.renew()
    assert len(questions) == 2, "a later thread asks by itself"


class _Counted:
    """A lock that counts who waits for it."""

    def __init__(self, lock: Any) -> None:
        self._lock, self.waiting = lock, 0

    def __enter__(self) -> None:
        self.waiting += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_recent_map_is_asked_for_again_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Cluster().map()
    maps = [known, known.moved(0, Node("other", 1))]
    monkeypatch.setattr(cluster_state, "find_nodes", lambda *_: maps.pop(0))
    state = ClusterState(parse_cluster(["a:1"]), 1.0)
    assert len(state.recent().masters) == len(state.recent().masters) == 2
    later = time.monotonic() + 60
    monkeypatch.setattr(cluster_state.time, "monotonic", lambda: later)
    assert Node("other", 1) in state.recent().masters
