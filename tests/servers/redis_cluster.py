"""A Redis Cluster of a test's own: killed, failed over, resharded, cut off, grown and shrunk on demand."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import redis
from redis.cluster import ClusterNode as StartupNode
from redis.crc import key_slot

from engine.wire.redis_address import TlsFiles
from tests.faults.proxy import Proxy
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until

SLOTS = 16_384

#: Slots that change hands at a time, and keys that one MIGRATE moves.
_SLOTS_AT_A_TIME = 256
_KEYS_AT_A_TIME = 50
#: Milliseconds that one MIGRATE may take.
_MIGRATE_MS_MAX = 5000
#: Seconds after which an orderly failover has happened or been given up by the replica.
_FAILOVER_SECONDS = 5.0


class ClusterServer(RedisServer):
    """One node: a server with a cluster bus, and an id that it keeps for life.

    Clients reach a proxied one through ``proxy``; its own port and the bus stay open to the test and the other nodes.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        directory: Path,
        *,
        binary: Literal["redis-server", "valkey"],
        proxied: bool,
        args: Sequence[str],
        login: Mapping[str, str],
        tls: TlsFiles | None,
    ) -> None:
        self.bus_port = free_port()
        super().__init__(directory, binary=binary, args=args, **login)
        self.args += ["--cluster-port", str(self.bus_port)]
        self.tls_port = free_port() if tls else 0
        if tls:
            self.host = "localhost"
            self.args += ["--tls-port", str(self.tls_port), "--cluster-announce-hostname", self.host, *_tls_args(tls)]
        self.id = hashlib.sha1(f"{directory}:{self.port}".encode()).hexdigest()
        self.proxy = Proxy(self.port) if proxied else None
        if self.proxy is not None:
            self.args += ["--cluster-announce-port", str(self.proxy.port)]

    @property
    def announced_port(self) -> int:
        """The port that the cluster tells clients."""
        return self.tls_port or (self.port if self.proxy is None else self.proxy.port)

    @property
    def running(self) -> bool:
        """Whether it can answer: neither ended nor stopped."""
        return self._child.running

    def ask(self, *command: str | int | bytes) -> Any:
        """What the server itself answers."""
        with self.client(socket_timeout=_MIGRATE_MS_MAX / 1000 + 5) as client:
            return client.execute_command(*command)

    def ask_all(self, commands: Iterable[Sequence[str | int]]) -> list[Any]:
        """The answers to several commands, sent at once."""
        with self.client(socket_timeout=30) as client:
            pipeline = client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return list(pipeline.execute())


def _tls_args(files: TlsFiles) -> list[str]:
    """The arguments of a server with TLS; clients need no certificate."""
    return [
        *("--tls-cluster", "yes", "--tls-replication", "yes", "--tls-auth-clients", "no"),
        *("--cluster-preferred-endpoint-type", "hostname"),
        *("--tls-ca-cert-file", files.ca_file, "--tls-cert-file", files.certificate_file),
        *("--tls-key-file", files.key_file),
    ]


class Known(NamedTuple):
    """What one node says about another, or about itself."""

    id: str
    flags: frozenset[str]
    master: str
    connected: bool
    slots: frozenset[int]


class RedisCluster:
    """``masters`` servers with ``replicas`` each. Every method returns when all nodes that can answer agree on it.

    ``full_coverage`` is ``cluster-require-full-coverage``: whether the loss of some slots stops the others. ``proxied``
    puts a `Proxy` before each node, so that clients can be cut off from one that the cluster counts as well. ``args``
    are further arguments of every server. ``username`` and ``password`` are those of `RedisServer`, the same on every
    node. With ``tls``, an authority and a certificate for localhost, the addresses are those of TLS, and nodes tell
    clients host names. The slots of a cluster with a login or TLS stay where they are.
    """

    def __init__(
        self,
        directory: Path,
        *,
        masters: int = 3,
        replicas: int = 1,
        binary: Literal["redis-server", "valkey"] = "redis-server",
        node_timeout_ms: int = 1000,
        full_coverage: bool = False,
        proxied: bool = False,
        args: Sequence[str] = (),
        username: str | None = None,
        password: str | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self.directory = directory
        self.binary = binary
        self.proxied = proxied
        self.tls = tls
        named = {"username": username, "password": password}
        self.login = {key: value for key, value in named.items() if value is not None}
        self._args = [
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms)),
            *("--cluster-require-full-coverage", "yes" if full_coverage else "no"),
            *("--repl-diskless-sync-delay", "0"),
            *(("--masteruser", username) if username else ()),
            *(("--masterauth", password) if password else ()),
            *args,
        ]
        self._stack = contextlib.ExitStack()
        self._made = 0
        self._removed: set[str] = set()
        self._first = [(self._make(), [self._make() for _ in range(replicas)]) for _ in range(masters)]
        #: All servers that belong to the cluster, also those that are down.
        self.nodes: list[ClusterServer] = [node for master, own in self._first for node in (master, *own)]

    @property
    def addresses(self) -> list[str]:
        """Those of all nodes, as a site's file has them and the cluster announces them."""
        scheme = "rediss://" if self.tls else ""
        return [f"{scheme}{node.host}:{node.announced_port}" for node in self.nodes]

    @property
    def client_options(self) -> dict[str, Any]:
        """What redis-py's client of a cluster has to know besides addresses."""
        # redis-py connects to the address behind "localhost", which is in no certificate.
        tls = {"ssl": True, "ssl_ca_certs": self.tls.ca_file, "ssl_check_hostname": False} if self.tls else {}
        return {**self.login, **tls}

    def client(self, **options: Any) -> redis.RedisCluster:
        """A client of the cluster, which ends with the cluster at the latest."""
        nodes = [StartupNode(node.host, node.announced_port) for node in self.nodes if node.running]
        made = redis.RedisCluster(startup_nodes=nodes, **self.client_options, **options)
        self._stack.callback(made.close)
        return made

    # Who is who

    def masters(self) -> list[ClusterServer]:
        """The masters by the word of a node that answers: by their first slot, those without slots last. One that is
        down is among them until its replica has taken over."""
        known = [each for each in self._view().values() if "master" in each.flags]
        known.sort(key=lambda each: (min(each.slots, default=SLOTS), each.id))
        return [self._node(each.id) for each in known]

    def replicas_of(self, master: ClusterServer) -> list[ClusterServer]:
        """Its replicas that can answer."""
        known = [each for each in self._view().values() if each.master == master.id]
        return [node for node in (self._node(each.id) for each in known) if node.running]

    def replica_of(self, master: ClusterServer) -> ClusterServer:
        """Its first replica that can answer."""
        return self.replicas_of(master)[0]

    def slots_of(self, server: ClusterServer) -> list[int]:
        """The slots that a master owns."""
        return sorted(self._view()[server.id].slots)

    def owner(self, key: str | bytes) -> ClusterServer:
        """The master of a key's slot."""
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        return self._node(next(each.id for each in self._view().values() if slot in each.slots))

    def keys_of(self, server: ClusterServer, pattern: str = "*") -> list[bytes]:
        """The keys that a node holds."""
        with server.client() as client:
            return list(client.scan_iter(match=pattern, count=5000))

    # Faults

    def kill_master(self, index: int) -> ClusterServer:
        """SIGKILL to the master of this place in ``masters()``; the replica that has taken over."""
        old = self.masters()[index]
        slots = set(self.slots_of(old))
        old.kill()
        return self._successor(old, slots)

    def kill_shard(self, index: int) -> list[ClusterServer]:
        """SIGKILL to a master and its replicas; these, the master first, when the others know that they are down."""
        master = self.masters()[index]
        shard = [master, *self.replicas_of(master)]
        for server in reversed(shard):
            server.kill()
        self.await_down(*shard)
        return shard

    def failover(self, index: int) -> ClusterServer:
        """The replica takes over, in order, with all that the master has; the new master."""
        old = self.masters()[index]
        slots, replica = set(self.slots_of(old)), self.replica_of(old)
        asked_at = 0.0

        def handed_over() -> bool:
            nonlocal asked_at
            if replica in self.masters():
                return True
            if time.monotonic() - asked_at > _FAILOVER_SECONDS:
                asked_at = time.monotonic()
                replica.ask("CLUSTER", "FAILOVER")
            return False

        wait_until(handed_over, 40, "the replica is the master")
        return self._successor(old, slots)

    def partition(self, *servers: ClusterServer) -> None:
        """Nobody reaches these servers, and they reach nobody: their processes stand still (SIGSTOP)."""
        for server in servers:
            server.pause()
        for server in servers:
            wait_until(lambda server=server: not server.running, 5, "it stands still")  # type: ignore[misc]

    def partition_master(self, index: int) -> ClusterServer:
        """Cut off the master of this place in ``masters()``; the replica that has taken over."""
        old = self.masters()[index]
        slots = set(self.slots_of(old))
        self.partition(old)
        return self._successor(old, slots)

    def heal(self, *servers: ClusterServer) -> None:
        """They go on one after the other, with all that they had. A master that was replaced meanwhile follows its
        successor. Where both stood still, either may be the master then: Valkey's replica takes over at once."""
        for server in servers:
            server.resume()
            self.settle()

    def restart(self, *servers: ClusterServer) -> None:
        """Start servers that were killed, one after the other; they come back empty, and with their ids."""
        for server in servers:
            server.start()
            self.settle()

    def _successor(self, old: ClusterServer, slots: Collection[int]) -> ClusterServer:
        """The server that has the slots of an old master."""

        def found() -> ClusterServer | None:
            owners = [each for each in self._view().values() if each.slots and each.slots <= set(slots)]
            return next((self._node(each.id) for each in owners if each.id != old.id), None)

        successor = wait_until(found, 30, f"a replica has taken over from {old.address}", interval=0.05)
        self.settle()
        return successor

    def await_down(self, *servers: ClusterServer) -> None:
        """Wait until the others have agreed that these are down."""

        def agreed() -> bool:
            views = [self._view_of(node) for node in self.nodes if node.running]
            return all("fail" in view[server.id].flags for view in views for server in servers)

        wait_until(agreed, 30, f"{', '.join(server.address for server in servers)} count as down", interval=0.05)

    # Growing, shrinking, resharding

    def add_node(self) -> ClusterServer:
        """A master without slots, which has joined."""
        node = self._make()
        node.start()
        node.id = node.ask("CLUSTER", "MYID").decode()
        peer = next(each for each in self.nodes if each.running)
        self.nodes.append(node)
        node.ask("CLUSTER", "MEET", "127.0.0.1", peer.port, peer.bus_port)
        self.settle()
        return node

    def remove_node(self, server: ClusterServer) -> None:
        """Its slots go to the other masters, its replicas with them; the others forget it, and it ends."""
        others = [each for each in self.masters() if each is not server and each.running]
        if slots := self.slots_of(server):
            for place, other in enumerate(others):
                self.move_slots(server, other, slots[place :: len(others)])
        for replica in self.replicas_of(server):
            replica.ask("CLUSTER", "REPLICATE", others[-1].id)
        # A replica forgets a master that it follows not before it follows another one.
        wait_until(lambda: not self.replicas_of(server), 20, "nobody follows it")
        self.settle()
        self.nodes.remove(server)
        self._removed.add(server.id)
        for node in self.nodes:
            if node.running:
                node.ask("CLUSTER", "FORGET", server.id)
        server.stop()
        self.settle()

    def move_slots(
        self,
        source: ClusterServer,
        target: ClusterServer,
        slots: Iterable[int],
        *,
        midway: Callable[[], None] = lambda: None,
    ) -> None:
        """Hand slots over with all their keys, as ``redis-cli --cluster reshard`` does; clients may read and write.

        ``midway`` is called twice for every 256 slots: before their keys are moved, when only new keys are made at the
        target; and when all keys are there, and the source still counts as the owner.
        Redis takes 0.5 ms a slot. Valkey takes 6 ms, because replicas confirm each step.
        """
        remaining = list(slots)
        while remaining:
            part, remaining = remaining[:_SLOTS_AT_A_TIME], remaining[_SLOTS_AT_A_TIME:]
            target.ask_all(("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id) for slot in part)
            source.ask_all(("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id) for slot in part)
            midway()
            self._migrate(source, target, part)
            midway()
            # The target first: it serves the slots before the source gives them up, so that some node always does.
            masters = [target, source, *(each for each in self.masters() if each not in (source, target))]
            for master in masters:
                if master.running:
                    self._assign(master, target, part)
        self.settle()

    def _assign(self, master: ClusterServer, target: ClusterServer, slots: Sequence[int]) -> None:
        """Tell a master who owns the slots."""
        try:
            master.ask_all(("CLUSTER", "SETSLOT", slot, "NODE", target.id) for slot in slots)
        except redis.ResponseError as error:
            # A master that heard from the target that it has no slots left follows the target at once.
            if "only with masters" not in str(error):
                raise

    def _migrate(self, source: ClusterServer, target: ClusterServer, slots: Sequence[int]) -> None:
        """Move the keys until none is left: a key that does not exist is made at the target from now on."""
        while True:
            found = source.ask_all(("CLUSTER", "GETKEYSINSLOT", slot, _KEYS_AT_A_TIME) for slot in slots)
            if not any(found):
                return
            for keys in filter(None, found):
                destination = ("127.0.0.1", target.port, "", 0, _MIGRATE_MS_MAX)
                source.ask("MIGRATE", *destination, "REPLACE", "KEYS", *keys)

    # Life

    def start(self) -> None:
        """Start all, and wait until each answers for its slots and every replica follows its master."""
        self._stack.callback(self._end)
        lines = self._lines()
        for node in self.nodes:
            node.directory.mkdir(parents=True, exist_ok=True)
            # Nobody has to meet: each finds in its file what `redis-cli --cluster create` would bring about.
            text = "".join(
                f"{line.replace(' master ', ' myself,master ').replace(' slave ', ' myself,slave ')}\n"
                if line.startswith(node.id)
                else f"{line}\n"
                for line in lines
            )
            (node.directory / "nodes.conf").write_text(f"{text}vars currentEpoch {len(self._first)} lastVoteEpoch 0\n")
            node.start()
        self.settle()

    def _lines(self) -> list[str]:
        """One of each node, as ``nodes.conf`` has them: an equal share of the slots for every master."""
        lines, first = [], 0
        for epoch, (master, replicas) in enumerate(self._first, 1):
            last = SLOTS * epoch // len(self._first) - 1
            # Valkey would draw one by lot for each node, and find replicas in other shards than their masters.
            shard = f",,shard-id={master.id}" if self.binary == "valkey" else ""
            for node in (master, *replicas):
                role = f"master - 0 0 {epoch}" if node is master else f"slave {master.id} 0 0 {epoch}"
                slots = f" {first}-{last}" if node is master else ""
                name = f",{node.host}" if self.tls else ""
                place = f"127.0.0.1:{node.announced_port}@{node.bus_port}{name}{shard}"
                lines.append(f"{node.id} {place} {role} connected{slots}")
            first = last + 1
        return lines

    def stop(self) -> None:
        """End all of them."""
        self._stack.close()

    def _end(self) -> None:
        for node in self.nodes:
            node.kill()

    def settle(self) -> None:
        """Wait until all nodes that can answer agree, and replicas have what their masters have."""
        wait_until(lambda: not self._unsettled(), 40, "the cluster's nodes agree", interval=0.05, log=self._unsettled)

    def _unsettled(self) -> str:
        """What is not settled yet; empty if all is."""
        running = [node for node in self.nodes if node.running]
        views = []
        for node in running:
            with suppress(redis.ConnectionError, redis.TimeoutError):
                view = self._view_of(node)
                views.append({each.id: (each.master, each.slots) for each in view.values()})
                if b"cluster_state:ok" not in node.ask("CLUSTER", "INFO"):
                    return f"{node.address} says that the cluster is down"
                if missing := {each.id for each in self.nodes} ^ set(view):
                    return f"{node.address} knows of too few nodes, or too many: {missing}"
                for other in running:
                    each = view[other.id]
                    if not each.connected or each.flags & {"fail", "fail?", "handshake"}:
                        return f"{node.address} does not reach {other.address}: {sorted(each.flags)}"
                if view[node.id].master and not self._follows(node, view[node.id].master):
                    return f"{node.address} does not follow its master"
        if len(views) < len(running):
            return "not all answer"
        return "" if all(view == views[0] for view in views) else f"they disagree: {views}"

    def _follows(self, replica: ClusterServer, master_id: str) -> bool:
        """Whether it follows its master; one whose master is down cannot."""
        master = self._node(master_id)
        if not master.running:
            return True
        with replica.client() as client:
            own = client.info("replication")
        with master.client() as client:
            online = sum(
                isinstance(value, dict) and value.get("state") == "online"
                for value in client.info("replication").values()
            )
        return bool(own.get("master_link_status") == "up" and online >= len(self.replicas_of(master)))

    def _view(self) -> dict[str, Known]:
        """What a node that can answer says; of several, one that is not alone with its word."""
        for node in self.nodes:
            if node.running:
                with suppress(redis.ConnectionError, redis.TimeoutError):
                    return self._view_of(node)
        raise AssertionError("no node of the cluster answers")

    def _view_of(self, node: ClusterServer) -> dict[str, Known]:
        lines = node.ask("CLUSTER", "NODES").decode().splitlines()
        known = {each.id: each for each in map(_known, lines)}
        return {key: each for key, each in known.items() if key not in self._removed}

    def _node(self, node_id: str) -> ClusterServer:
        return next(node for node in self.nodes if node.id == node_id)

    def _make(self) -> ClusterServer:
        directory = self.directory / f"node{self._made}"
        self._made += 1
        node = ClusterServer(
            directory, binary=self.binary, proxied=self.proxied, args=self._args, login=self.login, tls=self.tls
        )
        if node.proxy is not None:
            self._stack.enter_context(node.proxy)
        return node

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _known(line: str) -> Known:
    """One line of CLUSTER NODES. Slots on their way (in brackets) belong to their owner's range."""
    node_id, _, flags, master, _, _, _, link, *ranges = line.split()
    slots: set[int] = set()
    for part in ranges:
        if not part.startswith("["):
            first, _, last = part.partition("-")
            slots.update(range(int(first), int(last or first) + 1))
    roles = frozenset(flags.split(","))
    connected = link == "connected" or "myself" in roles
    return Known(node_id, roles, "" if master == "-" else master, connected, frozenset(slots))
