"""Several embedded servers: a cluster that is started, adopted, repaired and ended, and that nobody else gets into."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from engine.client.store import FrameStore
from engine.config import Config
from engine.errors import ConfigError, InputError
from engine.runtime.embedded import EmbeddedServer
from engine.runtime.embedded_layout import ServerFiles, layout
from engine.runtime.embedded_pids import running_pids
from engine.runtime.embedded_servers import EmbeddedServers
from engine.runtime.preflight import check_redis
from engine.servers.redis.cluster import find_nodes
from engine.servers.redis.session import Session
from engine.shm.segment import private_directory
from engine.wire.cluster import SLOTS
from tests.runtime.test_embedded import config as one_server
from tests.servers.wait import wait_until


def config(directory: Path, servers: int = 3, **redis_: Any) -> Config:
    made: Config = one_server(directory, embedded_servers=servers, **redis_)
    return made


@pytest.fixture
def directory(short_path: Path) -> Iterator[Path]:
    path = private_directory(short_path / "s")
    yield path
    EmbeddedServers(config(path)).clean()
    assert not running_pids(config(path))


def started(made: Config) -> EmbeddedServers:
    servers = EmbeddedServers(made)
    servers.start()
    return servers


def fill(made: Config, count: int = 100) -> None:
    with Session(made.redis_address, 5) as session:
        session.call_many([("SET", f"default:frames:cam1:{number}", "frame") for number in range(count)])
        session.call(("SET", "engine:default:cursor:frames", "x"))


def keys_of(made: Config) -> list[int]:
    """The number of keys of each server."""
    found = []
    for files in layout(made):
        with redis.Redis(unix_socket_path=files.address.path) as client:
            found.append(client.dbsize())
    return found


def held(made: Config) -> int:
    """The frames of all servers."""
    return sum(EmbeddedServer(made, files).frames() for files in layout(made))


@pytest.mark.parametrize("servers", [2, 3, 7])
def test_the_servers_share_all_slots_and_the_memory(servers: int, directory: Path) -> None:
    made = config(directory, servers)
    running = started(made)
    assert check_redis(made).version
    known = find_nodes(made.redis_address, 5)
    assert [str(node) for node in known.masters] == [f"embedded:{number + 1}" for number in range(servers)]
    assert known.covered
    shares = [len(known.slots_of(node)) for node in known.masters]
    assert sum(shares) == SLOTS
    assert max(shares) - min(shares) <= 1
    fill(made)
    assert min(keys_of(made)) > 0
    assert held(made) == 100
    total = int(one_server_memory(made))
    for files in layout(made):
        with redis.Redis(unix_socket_path=files.address.path) as client:
            assert int(client.config_get("maxmemory")["maxmemory"]) == total // servers
    with FrameStore(made.redis_address) as store:
        assert store.cameras() == {}
    running.stop()
    assert not running_pids(made)
    assert not list(directory.iterdir())


def one_server_memory(made: Config) -> str:
    return ServerFiles(made.run_directory).settings(made)["maxmemory"]


def test_no_server_listens_anywhere_but_at_a_socket_of_its_user(directory: Path) -> None:
    made = config(directory)
    running = started(made)
    pids = running_pids(made)
    assert len(pids) == 3
    for pid in pids:
        # Neither for clients nor for the cluster's bus, and no connection between servers.
        assert not psutil.Process(pid).net_connections("inet")
    for files in layout(made):
        assert Path(files.address.path).stat().st_mode & 0o777 == 0o600
        assert files.data.stat().st_mode & 0o777 == 0o700
    running.stop()


def test_servers_of_a_killed_supervisor_are_adopted_with_all_that_they_hold(directory: Path) -> None:
    made = config(directory)
    started(made).leave()
    fill(made)
    pids = running_pids(made)
    second = EmbeddedServers(config(directory, max_memory_percent=10, persistence="aof"))
    second.start()
    assert [server.pid for server in second.adopted] == pids
    assert held(made) == 100
    with redis.Redis(unix_socket_path=layout(made)[2].address.path) as client:
        assert client.config_get("appendonly")["appendonly"] == "yes"
    assert not second.exited()
    second.stop()
    # What was written to files is read again.
    third = started(config(directory, persistence="aof"))
    assert (third.adopted, held(made)) == ([], 100)
    third.stop()


def test_a_server_that_is_killed_is_started_again_and_the_others_go_on(directory: Path) -> None:
    made = config(directory)
    running = started(made)
    fill(made)
    before = keys_of(made)
    pid = running_pids(made)[1]
    psutil.Process(pid).send_signal(signal.SIGKILL)
    wait_until(running.exited, 10, "it has ended")
    (ended,) = running.exited()
    assert ended.files.number == 2
    ended.start()
    assert keys_of(made) == [before[0], 0, before[2]]
    assert not running.exited()
    fill(made)
    assert keys_of(made) == before
    running.stop()


@pytest.mark.parametrize(("former", "wanted"), [(1, 2), (2, 1), (2, 3)])
def test_another_number_of_servers_is_refused_while_the_former_run(former: int, wanted: int, directory: Path) -> None:
    made = config(directory, former)
    started(made).leave()
    fill(made, 1)
    pids = running_pids(made)
    with pytest.raises(InputError, match=rf"redis.embedded_servers = {former} still run .* hold 1 frames"):
        EmbeddedServers(config(directory, wanted)).start()
    assert running_pids(made) == pids
    ended, kept = EmbeddedServers(config(directory, wanted)).clean()
    assert (sorted(ended), kept) == (sorted(pids), 1)
    running = started(config(directory, wanted))
    assert held(config(directory, wanted)) == 0
    running.stop()


@pytest.mark.parametrize(("former", "wanted"), [(1, 2), (3, 1), (3, 2)])
def test_append_only_files_of_another_number_of_servers_are_not_passed_over(
    former: int, wanted: int, directory: Path
) -> None:
    made = config(directory, former, persistence="aof")
    running = started(made)
    fill(made)
    running.stop()
    with pytest.raises(InputError, match=f"append-only files of redis.embedded_servers = {former}, .* remove /"):
        EmbeddedServers(config(directory, wanted, persistence="aof")).start()
    assert not running_pids(made)
    again = started(made)
    assert held(made) == 100
    again.stop()


def test_if_one_server_cannot_start_none_runs(directory: Path) -> None:
    made = config(directory)
    third = layout(made)[2]
    third.data.mkdir()
    (third.data / "nodes.conf").mkdir()
    with pytest.raises(InputError, match="embedded server cannot be started"):
        EmbeddedServers(made).start()
    assert not running_pids(made)
    (third.data / "nodes.conf").rmdir()


def test_several_servers_are_for_the_embedded_address(directory: Path) -> None:
    with pytest.raises(ConfigError, match=r"redis\.embedded_servers = 2 is for"):
        config(directory, 2, address="127.0.0.1:6379")


def test_the_handle_of_one_server_is_the_same_as_before(directory: Path) -> None:
    made = config(directory, 1)
    assert EmbeddedServer(made).address == made.redis_address
    assert [files.lock.name for files in layout(made)] == ["server.lock"]
