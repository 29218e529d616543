"""Who may see what of a site: it runs without rights that it does not need, and shows others nothing."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import redis
from pika.exceptions import ChannelClosedByBroker

from engine.client.store import FrameStore
from engine.config import load
from engine.errors import ServerRefused
from engine.jobs.tenants import acl_rules
from engine.runtime.elsewhere import Elsewhere
from engine.runtime.status import collect
from engine.servers.amqp.check import check
from engine.servers.amqp.parameters import metadata_exchange
from engine.shm.site import SitePaths
from tests.runtime.test_embedded import servers
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.users import SOMEBODY, STRANGER, as_user, command_of
from tests.servers.wait import wait_until
from tests.system.consumer import Consumer
from tests.system.site import ROOT, Site, command, own_name, roles_section, stored_frames

PASSWORD = "k9fV-least-rights"
EXCHANGE = "camera.metadata"


# Least rights


@pytest.fixture
def least_user(rabbitmq: RabbitMQ, vhost: str) -> str:
    """A user who may write the site's exchange, and nothing else."""
    rabbitmq.add_user(vhost, PASSWORD, vhost, configure="", write=r"^camera\.metadata$", read="")
    return vhost


def test_a_site_runs_under_users_who_may_do_nothing_else(
    site: Site, short_path: Path, rabbitmq: RabbitMQ, vhost: str, least_user: str
) -> None:
    cameras = [{"id": f"cam{number}", "url": "test://?fps=20&kb=10&size=320x240&frames=40"} for number in range(4)]
    with RedisServer(short_path / "redis", username="root", password=PASSWORD) as server:
        admin = server.client()
        for role in ("writer", "publisher"):
            admin.execute_command("ACL", "SETUSER", role, *acl_rules(vhost, [role], PASSWORD))
        admin.set("other:frames:cam0:1:1", b"x")
        site.write(
            cameras=cameras,
            redis=roles_section(server.address, PASSWORD),
            amqp_url=rabbitmq.url(vhost, least_user, PASSWORD),
        )
        # The consumer, who may, declares the exchange.
        with Consumer(rabbitmq, vhost) as consumer:
            site.start()
            wait_until(lambda: site.status()["publisher"]["confirmed"] == 160, 30, "all events are confirmed")
            assert site.total("stored") == 160
            assert site.stop() == 0
            wait_until(lambda: len(consumer.frames()) == 160, 30, "all events arrived")
            assert consumer.sequences() == stored_frames(admin, vhost).numbers
        for role in ("writer", "publisher"):
            with server.client(username=role, password=PASSWORD) as client:
                for words in ("GET other:frames:cam0:1:1", "FLUSHALL", "KEYS *", "CONFIG GET requirepass", "ACL LIST"):
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        client.execute_command(*words.split())
    for what in ("declare", "queue", "bind", "consume", "publish elsewhere"):
        assert refusal(rabbitmq, vhost, least_user, what) == 403, what


def refusal(rabbitmq: RabbitMQ, vhost: str, user: str, what: str) -> int:
    """The reply code with which the broker refuses that user."""
    with rabbitmq.connect(vhost) as admin:
        admin.channel().queue_declare("theirs")
    with rabbitmq.connect(vhost, user, PASSWORD) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        try:
            if what == "declare":
                channel.exchange_declare("mine", "topic")
            elif what == "queue":
                channel.queue_declare("mine")
            elif what == "bind":
                channel.queue_bind("theirs", EXCHANGE, "#")
            elif what == "consume":
                channel.basic_get("theirs")
            else:
                channel.basic_publish("amq.topic", "x", b"x")
        except ChannelClosedByBroker as error:
            return int(error.reply_code)
    return 0


def test_an_exchange_that_neither_stands_nor_may_be_declared_is_refused_with_the_way_out(
    site: Site, rabbitmq: RabbitMQ, vhost: str, least_user: str
) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://"}], amqp_url=rabbitmq.url(vhost, least_user, PASSWORD))
    config = site.config
    with pytest.raises(ServerRefused, match=r"\(404\).*declare the exchange beforehand") as caught:
        check(config.amqp, metadata_exchange(config.metadata))
    assert PASSWORD not in str(caught.value)


# A normal user


class OwnSite:
    """A site of SOMEBODY, with everything where it is by default."""

    def __init__(self, workspace: Path) -> None:
        self.name = own_name()
        self.file = workspace / "site.toml"
        self.file.write_text(
            f"""
            [site]
            name = "{self.name}"
            [redis]
            persistence = "aof"
            [[cameras]]
            id = "cam1"
            url = "test://?fps=20&kb=20&size=320x240"
            """
        )
        self.file.chmod(0o644)
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}

        def careless() -> None:
            os.umask(0)
            _, hard = resource.getrlimit(resource.RLIMIT_CORE)
            resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

        self.log = (workspace / "stderr.log").open("w+")
        self.process = subprocess.Popen(
            command_of(SOMEBODY, workspace, sys.executable, "-m", "engine", "run", "-c", str(self.file)),
            cwd=ROOT,
            env=environment,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
            preexec_fn=careless,  # noqa: PLW1509 - nothing else of this process is forked meanwhile
        )
        self.run_directory = Path(f"/tmp/edge-video-{SOMEBODY}/{self.name}")
        self.paths: SitePaths = as_user(SOMEBODY, partial(_paths, self.file))

    def stored(self) -> int:
        assert self.process.poll() is None, self.text()
        return int(as_user(SOMEBODY, partial(_stored, self.file)))

    def text(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def end(self) -> None:
        if self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        # It outlives a supervisor that a test has killed.
        for pid in servers(self.run_directory):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.log.close()
        shutil.rmtree(self.run_directory.parent, ignore_errors=True)
        shutil.rmtree(self.paths.directory, ignore_errors=True)


def _paths(file: Path) -> SitePaths:
    return SitePaths.of(load(file, {}))


def _stored(file: Path) -> int:
    return sum(camera.stored for camera in collect(load(file, {}), memory=False).cameras)


@pytest.fixture
def own_site() -> Iterator[OwnSite]:
    workspace = Path(tempfile.mkdtemp(prefix="ev-own-"))
    workspace.chmod(0o755)
    running = OwnSite(workspace)
    yield running
    running.end()
    shutil.rmtree(workspace, ignore_errors=True)


def test_a_site_of_a_normal_user_shows_others_nothing(own_site: OwnSite) -> None:
    wait_until(lambda: own_site.stored() > 20, 30, "frames are stored")
    made = [path for top in (own_site.run_directory.parent, own_site.paths.directory) for path in top.rglob("*")]
    made += [own_site.run_directory.parent, own_site.paths.directory]
    names = {path.name for path in made}
    assert {"site.lock", "redis.sock", "valkey.log", "appendonlydir", "cam1.ring", "writer 0.doorbell"} <= names
    for path in made:
        status = path.lstat()
        wanted = 0o700 if stat.S_ISDIR(status.st_mode) else 0o600
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (SOMEBODY, wanted), path
    processes = [psutil.Process(own_site.process.pid), *psutil.Process(own_site.process.pid).children(recursive=True)]
    assert len(processes) >= 4
    for process in processes:
        assert set(process.uids()) == {SOMEBODY}
        assert "Max core file size        1                    1 " in Path(f"/proc/{process.pid}/limits").read_text()
    # Another user tries them all.
    for path in made:
        error = as_user(STRANGER, partial(_look_into, path))
        assert isinstance(error, PermissionError), f"{path}: {error!r}"
    assert as_user(STRANGER, partial(_newest, own_site.run_directory / "redis.sock")) is not True
    assert as_user(SOMEBODY, partial(_newest, own_site.run_directory / "redis.sock")) is True
    own_site.process.terminate()
    assert own_site.process.wait(30) == 0, own_site.text()
    assert not own_site.paths.directory.exists()


def test_who_asks_as_another_user_is_told_whose_site_runs_and_where(own_site: OwnSite) -> None:
    wait_until(lambda: own_site.stored() > 0, 30, "frames are stored")
    name = own_site.name
    where = f"runs as user {SOMEBODY}, pid {own_site.process.pid}, in {own_site.run_directory}; ask as that user"
    # Root may look into the other's directory, a stranger may not.
    done = command("status", "-c", str(own_site.file), environment={"COLUMNS": "200"})
    assert (done.returncode, done.stdout) == (1, f"site {name} is not running\nsite {name} {where}\n")
    report = as_user(STRANGER, partial(_elsewhere, own_site.file))
    assert str(report) == where
    own_site.process.kill()
    own_site.process.wait()
    wait_until(lambda: as_user(STRANGER, partial(_elsewhere, own_site.file)) is None, 10, "it runs no more")
    assert command("status", "-c", str(own_site.file)).stdout == f"site {name} is not running\n"
    assert own_site.paths.directory.exists()


def _elsewhere(file: Path) -> Elsewhere | None:
    return collect(load(file, {}), memory=False).elsewhere


def _look_into(path: Path) -> None:
    """Raises PermissionError."""
    if path.is_dir():
        list(path.iterdir())
    elif path.name.endswith(".sock"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    else:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def _newest(path: Path) -> bool:
    return FrameStore(f"unix://{path}", cameras=["cam1"]).latest("cam1") is not None
