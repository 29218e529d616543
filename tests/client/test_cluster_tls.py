"""A cluster with TLS and users: frames through both stores, site files and commands; who is refused, and by whom."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import AsyncFrameStore, FrameStore, TlsFiles
from engine.errors import RedisUnavailable, ServerRefused
from tests.client.stocked import STORES, VHOST, frame, row, stock
from tests.servers.certificate import Authority
from tests.servers.cluster_client import ReadCluster, servers
from tests.system.site import command

USER, PASSWORD = "root", "geheim:4711/ä"
#: The user that reads: no more rights than `tenants acl` gives.
READER = "leser"
FRAMES = [*row("cam1", 40, size=2000), *row("cam2", 10)]
both_stores = pytest.mark.parametrize("kind", STORES, ids=["FrameStore", "AsyncFrameStore"])


class Guarded:
    """The cluster, and what its clients have to know."""

    def __init__(self, directory: Path) -> None:
        site, other = Authority(directory, "site"), Authority(directory, "other")
        signed = site.sign("nodes")
        files = TlsFiles(str(site.certificate), str(signed.certificate), str(signed.key))
        self.server = ReadCluster(directory / "c", username=USER, password=PASSWORD, tls=files)
        self.trusted, self.untrusted = TlsFiles(str(site.certificate)), TlsFiles(str(other.certificate))
        self.nodes = self.server.cluster.addresses

    def reader(self, **options: Any) -> dict[str, Any]:
        """The options of a store for the reader."""
        return {"username": READER, "password": PASSWORD, "tls_files": self.trusted, **options}

    def site_file(self, directory: Path, password: str = PASSWORD) -> Path:
        """A site file that names one node, and the reader."""
        redis = {"cluster": self.nodes[:1], "username": READER, "password": password}
        redis["tls_ca_file"] = self.trusted.ca_file
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in redis.items()]
        file = directory / "site.toml"
        file.write_text(
            f'[amqp]\namqp_url = "amqp://127.0.0.1/{VHOST}"\n[redis]\n' + "\n".join(lines) + "\n"
            '[[cameras]]\nid = "cam1"\nurl = "rtsp://127.0.0.1/a"\n[[cameras]]\nid = "cam2"\nurl = "rtsp://127.0.0.1/b"\n'
        )
        return file


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    made = Guarded(tmp_path_factory.mktemp("tls"))
    with made.server, made.server.client() as client:
        stock(client, FRAMES)
        rules = (f"%R~{VHOST}:*", f"%R~engine:{VHOST}:*", "-@all", "+@read", "+ping", "+cluster|slots")
        for server in servers(client):
            server.execute_command("ACL", "SETUSER", READER, "reset", "on", f">{PASSWORD}", *rules)
        yield made


def assert_reads(store: Any) -> None:
    """A store answers what is stored."""
    frames = [frame(stored) for stored in FRAMES if stored.camera == "cam1"]
    assert store.latest("cam1") == frames[-1]
    assert store.get(frames[3].key) == frames[3]
    assert store.get_many([one.key for one in frames]) == frames
    assert list(store.range("cam1")) == frames
    assert [one.key for one in store.entries("cam1", reverse=True)] == [one.key for one in reversed(frames)]
    assert set(store.snapshot()) == set(store.cameras()) == {"cam1", "cam2"}
    assert store.stats().total.frames == len(FRAMES)
    tailed = list(itertools.islice(store.tail(None, 0), len(FRAMES)))
    assert {one.key for one in tailed} == {frame(stored).key for stored in FRAMES}


@both_stores
def test_a_store_reads_all_nodes(guarded: Guarded, kind: Any) -> None:
    with kind(cluster=guarded.nodes[1:2], vhost=VHOST, **guarded.reader()) as store:
        assert_reads(store)
    with kind(guarded.server.url, VHOST, tls_files=guarded.trusted) as store:
        assert_reads(store)


def test_commands_read_with_a_site_file_and_without(guarded: Guarded, tmp_path: Path) -> None:
    file = guarded.site_file(tmp_path)
    with FrameStore.from_site(file) as store:
        assert_reads(store)
    done = command("frames", "list", "cam1", "-c", str(file), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    wanted = [frame(stored).key for stored in FRAMES if stored.camera == "cam1"]
    assert [json.loads(line)["key"] for line in done.stdout.splitlines()] == wanted
    done = command("frames", "latest", "cam1", "-o", str(tmp_path / "a.jpg"), "-c", str(file))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.jpg").read_bytes() == frame(FRAMES[39]).data
    # Without a site file, the authorities are the system's, which OpenSSL's own variable names.
    system = {"SSL_CERT_FILE": guarded.trusted.ca_file}
    done = command("frames", "get", wanted[7], "--redis", guarded.server.url, "--json", environment=system)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["key"] == wanted[7]


@both_stores
def test_who_is_not_let_in_is_told_why_and_by_which_node(guarded: Guarded, kind: Any) -> None:
    (node,) = nodes = guarded.nodes[:1]
    refusals = {
        "refuses the credentials": guarded.reader(password="geheim"),
        "unable to get local issuer|self-signed certificate": guarded.reader(tls_files=guarded.untrusted),
    }
    for words, options in refusals.items():
        with (
            kind(cluster=nodes, vhost=VHOST, **options) as store,
            pytest.raises(ServerRefused, match=words) as refused,
        ):
            store.latest("cam1")
        assert node in str(refused.value)
        assert "geheim" not in str(refused.value)
    plain = node.replace("rediss://", "")
    with (
        kind(cluster=[plain], vhost=VHOST, username=READER, password=PASSWORD, timeout_seconds=0.2) as store,
        pytest.raises(RedisUnavailable, match=f"Redis at redis://{plain}") as away,
    ):
        store.latest("cam1")
    assert PASSWORD not in str(away.value)


@both_stores
def test_a_node_that_does_not_know_the_user_is_named(guarded: Guarded, kind: Any) -> None:
    """Nodes do not tell each other of users: one that joined later has none."""
    last = guarded.server.cluster.nodes[-1]
    name = f"rediss://{last.host}:{last.announced_port}"
    rules = last.ask("ACL", "LIST")
    (rule,) = (one.decode().split()[2:] for one in rules if one.decode().split()[1] == READER)
    last.ask("ACL", "DELUSER", READER)
    try:
        with (
            kind(cluster=guarded.nodes[:1], vhost=VHOST, **guarded.reader()) as store,
            pytest.raises(ServerRefused, match=f"Redis at {name} refuses the credentials"),
        ):
            store.get_many([frame(stored).key for stored in FRAMES])
    finally:
        last.ask("ACL", "SETUSER", READER, *rule)


def test_an_asyncio_store_reads_from_a_site_file(guarded: Guarded, tmp_path: Path) -> None:
    async def newest() -> Any:
        async with AsyncFrameStore.from_site(guarded.site_file(tmp_path)) as store:
            return await store.latest("cam2")

    assert asyncio.run(newest()) == frame(FRAMES[-1])
