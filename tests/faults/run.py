"""One case under way: a loaded site behind proxies, the fault done to it, its recovery, and the accounts at the end."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
import redis

from engine.shm.ring_file import RingCounts
from engine.wire.journal import parse_entry_id
from engine.wire.keys import journal_key
from tests.faults.accounts import Accounts, check, read_ledgers
from tests.faults.cases import Case
from tests.faults.counts import final_counts
from tests.faults.proxy import Proxy
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.consumer import Consumer
from tests.system.site import Site, sent_to

#: Frames a second of each camera, and kilobytes a frame: enough for faults to hit frames under way, and little enough
#: for several cases at a time on two cores.
FPS = 10
KILOBYTES = 12
CAMERAS = tuple(f"cam{number:02}" for number in range(20))
#: So impatient that what hangs is noticed within a test.
IMPATIENT: dict[str, dict[str, Any]] = {
    "site": {"heartbeat_seconds": 3.0},
    "defaults": {"stall_seconds": 1.5, "open_timeout_seconds": 1.5},
    "amqp": {"heartbeat_seconds": 5, "timeout_seconds": 3.0},
}


def pattern(fps: float = FPS, kilobytes: int = KILOBYTES, frames: int = 0) -> str:
    return f"test://?size=320x240&fps={fps}&kb={kilobytes}&frames={frames}"


class FaultRun:
    """A site of twenty cameras, Redis and RabbitMQ behind a proxy each, a consumer that hears every event."""

    def __init__(self, case: Case, site: Site, redis: RedisServer, broker: RabbitMQ, vhost: str) -> None:
        self.case = case
        self.site = site
        self.redis = redis
        self.broker = broker
        self.vhost = vhost
        self.seed = random.SystemRandom().randrange(2**32)
        self.random = random.Random(self.seed)
        self.accounts: Accounts | None = None
        #: Whatever a case wants the table to say besides.
        self.note = ""
        #: Whether frames and journals are on several servers.
        self.apart = False
        self.recovery_seconds = 0.0
        self._stack = contextlib.ExitStack()
        self.redis_proxy = self._stack.enter_context(Proxy(redis.port))
        self.broker_proxy = self._stack.enter_context(Proxy(broker.port))
        self.consumer: Consumer | None = None
        self._mended_at = 0.0
        self._mended_captured: dict[str, int] = {}
        #: Cameras whose frames carry no stamp, and those that need not be active for the site to be well.
        self.unstamped: set[str] = set()
        self.unwell: set[str] = set()
        #: Cameras whose ring was lost and made anew: its counts do not cover what came before.
        self.renewed: set[str] = set()
        #: Cameras of which frames that count as damaged may be stored all the same.
        self.unsettled: set[str] = set()

    def close(self) -> None:
        self._stack.close()

    # The site

    def start(
        self,
        cameras: Sequence[dict[str, Any]] | None = None,
        *,
        redis: dict[str, Any] | None = None,
        publishes: bool = True,
        **sections: dict[str, Any],
    ) -> None:
        """Write the site file, start the consumer and the site, and wait until all flows."""
        self.configure(cameras, redis=redis, publishes=publishes, **sections)
        if publishes:
            self.listen()
        self.site.start()
        self.flows()

    def listen(self) -> None:
        """Hear every event from now on."""
        self.consumer = self._stack.enter_context(Consumer(self.broker, self.vhost))

    def configure(
        self,
        cameras: Sequence[dict[str, Any]] | None = None,
        *,
        redis: dict[str, Any] | None = None,
        publishes: bool = True,
        **sections: dict[str, Any],
    ) -> None:
        merged = {name: {**IMPATIENT.get(name, {}), **sections.get(name, {})} for name in {*IMPATIENT, *sections}}
        merged.setdefault("ring", {"capacity_mb": 1})
        amqp_url = self.broker.url(self.vhost).replace(f":{self.broker.port}/", f":{self.broker_proxy.port}/")
        self.site.write(
            cameras=list(cameras) if cameras is not None else [{"id": name, "url": pattern()} for name in CAMERAS],
            redis=self._redis_section(redis or {}),
            amqp_url=amqp_url if publishes else "",
            **merged,
        )

    def _redis_section(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Redis through the proxy, but for a Sentinel service, which names its servers itself."""
        address = {} if "sentinels" in settings else {"address": f"127.0.0.1:{self.redis_proxy.port}"}
        return {**address, "timeout_seconds": 1.0, **settings}

    def flows(self, seconds: float = 1.0, timeout: float = 40) -> None:
        """Wait until every camera that is to be well has stored so many seconds' frames more."""
        before = {camera["id"]: camera["stored"] for camera in self.cameras()}

        def more() -> bool:
            return all(camera["stored"] >= before[camera["id"]] + FPS * seconds for camera in self.cameras())

        wait_until(more, timeout, "frames flow", log=self.site.log_text, interval=0.1)

    def cameras(self) -> list[dict[str, Any]]:
        """The reports of the cameras that are to be well."""
        return [camera for camera in self.site.status()["cameras"] if camera["id"] not in self.unwell]

    def lasts(self, seconds: float) -> None:
        """The fault itself lasts so long: captures must go on meanwhile, whatever else stands still."""
        until = time.monotonic() + seconds
        before = self.site.total("captured")
        wait_until(lambda: time.monotonic() >= until, seconds + 5, "the fault has lasted")
        wait_until(lambda: self.site.total("captured") > before, 5, "cameras are captured meanwhile")

    def pids(self, *roles: str) -> list[int]:
        return [
            process["pid"]
            for process in self.site.status()["processes"]
            if process["role"] in roles and process["alive"]
        ]

    def signal(self, number: signal.Signals, *roles: str) -> None:
        for pid in self.pids(*roles):
            sent_to(pid, number)

    def signal_one(self, number: signal.Signals, role: str) -> int:
        """Send a signal to a random process of the role that has not ended; its id."""

        def sent() -> int:
            pid = self.random.choice(self.pids(role) or [0])
            return pid if pid and sent_to(pid, number) else 0

        return wait_until(sent, 30, f"a {role} gets a signal", log=self.site.log_text)

    @property
    def supervisor(self) -> psutil.Process:
        assert self.site.process is not None
        return psutil.Process(self.site.process.pid)

    def moment(self, longest: float = 0.4) -> None:
        """A random while."""
        time.sleep(self.random.uniform(0, longest))

    def client(self) -> redis.Redis | redis.RedisCluster:
        """A client of the Redis that the site stores in."""
        return self.redis.client()

    def embedded_client(self) -> redis.Redis:
        """A client of the site's own server."""
        return redis.Redis(unix_socket_path=self.site.config.redis_address.path)

    # Recovery and accounts

    def mended(self) -> None:
        """The fault is over; recovery counts from here."""
        self._mended_at = time.monotonic()
        self._mended_captured = {
            camera["id"]: camera["captured"] for camera in self.cameras() if camera["id"] not in self.renewed
        }

    def recovers(self) -> None:
        """Wait until all is as before: every camera active, what was captured when the fault ended settled, frames
        flowing, events on time. The report compares the time that this takes with the case's bound."""
        wait_until(
            self._well, self.case.bound, f"{self.case.key}: all is as before", log=self.site.log_text,
            interval=0.1,
        )  # fmt: skip
        self.recovery_seconds = time.monotonic() - self._mended_at

    def _well(self) -> bool:
        report = self.site.status()
        for camera in report["cameras"]:
            if camera["id"] in self.unwell:
                continue
            settled = camera["stored"] + sum(camera["dropped"].values())
            if camera["state"] != "active" or settled <= self._mended_captured.get(camera["id"], 0):
                return False
        publisher = report["publisher"]
        return publisher is None or bool(publisher["connected"] and publisher["lag_seconds"] < 1)

    def ends(self, *, evicting: bool = False, innocent: Sequence[str] = ()) -> Accounts:
        """The fault is over: all recovers, and the accounts are settled."""
        self.mended()
        self.recovers()
        return self.settle(evicting=evicting, innocent=innocent)

    def settle(self, *, evicting: bool = False, innocent: Sequence[str] = ()) -> Accounts:
        """Stop the site and account for every frame; nothing may be missing but what the case allows, and nothing at
        all of the ``innocent`` cameras."""
        with final_counts(self.site, publishes=self.consumer is not None, without=self.renewed) as final:
            assert self.site.stop() == 0, self.site.log_text()[-3000:]
            counts, expired = final()
        with self.client() as client:
            return self.account(counts, expired, client, evicting=evicting, innocent=innocent)

    def account(
        self,
        final: Mapping[str, RingCounts],
        expired: int,
        client: redis.Redis | redis.RedisCluster,
        *,
        evicting: bool = False,
        innocent: Sequence[str] = (),
    ) -> Accounts:
        """Account for every frame of a site that stores no more, by its ``final`` counts and what ``client`` finds."""
        counts: dict[str, RingCounts | None] = dict(final)
        for camera in innocent:
            assert not final[camera].dropped, f"{camera} suffers from another one's fault: {final[camera].drops}"
        publishes = self.consumer is not None
        counts.update(dict.fromkeys(self.renewed))
        listed = {
            (camera, parse_entry_id(entry)[1])
            for camera in counts
            for entry, _ in client.xrange(journal_key(self.vhost, "frames", camera))
        }
        events: list[dict[str, Any]] = []
        if self.consumer is not None:
            wait_until(lambda: len(listed - self.heard()) <= expired, 30, "every event has arrived", interval=0.1)
            events = self.consumer.frames()
        stamped = [camera for camera in counts if camera not in self.unstamped]
        ledgers = read_ledgers(client, self.vhost, counts, events, stamped=stamped)
        self.accounts = check(
            ledgers,
            expired=expired,
            evicting=evicting,
            publishes=publishes,
            unsettled=self.unsettled,
            apart=self.apart,
        )
        assert set(self.accounts.drops) <= self.case.drops, f"{self.case.key}: lost {self.accounts.drops}"
        assert self.case.repeats or not self.accounts.repeats, f"{self.accounts.repeats} events came twice"
        return self.accounts

    def balances(self, *, cut: bool, former: int = 0) -> int:
        """Stop the site: each frame's event has come, or is counted as expired; returns how many are. Where the
        connection to the broker was ``cut``, one that was on its way then may have come and be counted too. So many
        events are of a ``former`` run."""
        with final_counts(self.site, publishes=True) as final:
            assert self.site.stop() == 0, self.site.log_text()[-3000:]
            counts, expired = final()
        dropped = {reason for count in counts.values() for reason, number in count.drops.items() if number}
        assert dropped <= self.case.drops, dropped
        stored = former + sum(count.stored for count in counts.values())
        wait_until(
            lambda: len(self.heard()) + expired >= stored, 30, "each event has come, or is counted", interval=0.1
        )
        assert len(self.heard()) + expired <= stored + (self.site.config.publisher.window if cut else 0)
        self.note = "each frame's event came, or is counted as expired"
        return expired

    def heard(self) -> set[tuple[str, int]]:
        """The cameras and sequences of which an event has arrived."""
        assert self.consumer is not None
        return {(event["camera_id"], int(event["sequence"])) for event in self.consumer.frames()}
