"""A RabbitMQ broker of a test's own, and a cluster of them."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self
from urllib.parse import quote

import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from tests.servers.certificate import Signed
from tests.servers.process import Child, Server
from tests.servers.wait import accepts_tcp, free_port, wait_until

#: The scripts themselves: those in /usr/sbin change to the user `rabbitmq` first.
_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

_CONTROL = _SERVER.with_name("rabbitmqctl")
_CONTROL_SECONDS_MAX = 60.0

_START_SECONDS_MAX = 90.0
_EVAL_SECONDS_MAX = 30.0
_EVAL_TRIES = 5

_ERLANG_ARGUMENTS = (
    # Two schedulers, not bound to cores that others use as well.
    "+S 2:2 +stbt u "
    # A short busy wait before a thread sleeps, which RabbitMQ turns off: on a virtual machine it more than
    # halves the time to start, most of which goes into waking threads.
    "+sbwt very_short +sbwtdcpu very_short +sbwtdio very_short "
    "-kernel inet_dist_use_interface {127,0,0,1}"
)

_CONFIG = """\
listeners.tcp.local = 127.0.0.1:{port}
log.console = false
log.file.level = info
# A test machine's disk and memory are not the broker's business.
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.absolute = 8GB
"""


class Epmd:
    """Erlang's port mapper, and the cookie of the nodes that use it. Where nodes share it, it survives their kills."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.cookie = secrets.token_hex(16)
        self._directory = directory
        self._child = Child("epmd", directory / "epmd.log")

    def start(self) -> None:
        if not self._child.alive:
            self._directory.mkdir(parents=True, exist_ok=True)
            environment = {"PATH": os.environ["PATH"], "HOME": str(self._directory)}
            argv = ["epmd", "-address", "127.0.0.1", "-port", str(self.port)]
            self._child.start(argv, lambda: accepts_tcp(self.port), 10, environment)

    def kill(self) -> None:
        self._child.kill()


class RabbitMQ(Server):
    """A node with its own name, ports, data, cookie and port mapper (epmd), the plugins named, and the user guest.

    Durable data is in `directory` and survives stop, kill and start. `settings` are further lines of rabbitmq.conf.
    A node of a cluster shares the `epmd` of the others.
    """

    _stop_seconds_max = 30.0

    def __init__(
        self, directory: Path, settings: str = "", plugins: Sequence[str] = (), epmd: Epmd | None = None
    ) -> None:
        self.directory = directory
        self._settings = settings
        self._plugins = plugins
        self.port = free_port()
        self._node = f"test{self.port}@localhost"
        self._distribution_port = free_port()
        self._epmd = epmd or Epmd(directory)
        self._shares_epmd = epmd is not None
        self._child = Child("RabbitMQ", directory / "console.log")

    def url(self, vhost: str = "/", user: str = "guest", password: str = "guest") -> str:
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"amqp://{login}@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    def connect(self, vhost: str = "/", user: str = "guest", password: str = "guest") -> pika.BlockingConnection:
        return pika.BlockingConnection(pika.URLParameters(self.url(vhost, user, password)))

    def start(self) -> None:
        self._write_files()
        # The broker would start one itself, as a daemon that outlives it.
        self._epmd.start()
        self._child.start([_SERVER], self._answers, _START_SECONDS_MAX, self._environment())

    def stop(self) -> None:
        super().stop()
        self._end_epmd()

    def _end_epmd(self) -> None:
        if not self._shares_epmd:
            self._epmd.kill()

    def join(self, other: RabbitMQ) -> None:
        """Become a node of the cluster of another one; what this one held is forgotten."""
        joined = f"rabbit:stop(), ok = rabbit_mnesia:join_cluster('{other._node}', disc), rabbit:start()"
        self.eval(joined)

    def kill(self) -> None:
        """SIGKILL to the broker; what it has confirmed is there after the next start."""
        if self._child.running:
            # What was declared goes to the log up to two seconds late, unlike messages: one in eight of
            # the durable queues declared just before the kill were gone, and a quorum queue came back without its
            # members.
            self.eval("disk_log:sync(latest_log), [dets:sync(Table) || Table <- dets:all()]")
        super().kill()
        self._end_epmd()

    def import_definitions(self, file: Path) -> None:
        """What ``rabbitmqctl import_definitions`` does."""
        subprocess.run(
            [_CONTROL, "-n", self._node, "import_definitions", str(file)],
            env=self._environment(),
            capture_output=True,
            timeout=_CONTROL_SECONDS_MAX,
            check=True,
        )

    def add_vhost(self, name: str) -> None:
        """A virtual host, with all rights for guest."""
        self.eval(f"ok = rabbit_vhost:add({_binary(name)}, {_binary('tests')})")
        self.permit("guest", name, ".*", ".*", ".*")

    def add_user(
        self,
        name: str,
        password: str,
        vhost: str,
        configure: str = ".*",
        write: str = ".*",
        read: str = ".*",
    ) -> None:
        """A new user with these rights (regular expressions of names) in one virtual host."""
        arguments = ", ".join(_binary(value) for value in (name, password, "tests"))
        self.eval(f"ok = rabbit_auth_backend_internal:add_user({arguments})")
        self.permit(name, vhost, configure, write, read)

    def change_password(self, name: str, password: str) -> None:
        """From now on; open connections stay."""
        arguments = ", ".join(_binary(value) for value in (name, password, "tests"))
        self.eval(f"ok = rabbit_auth_backend_internal:change_password({arguments})")

    def set_alarm(self, on: bool) -> None:
        """The memory alarm: as long as it is on, connections that publish are blocked."""
        verb = "set_alarm({Alarm, []})" if on else "clear_alarm(Alarm)"
        self.eval(f"Alarm = {{resource_limit, memory, node()}}, rabbit_alarm:{verb}")

    def listen_tls(self, signed: Signed, authority: Path, *, clients: bool = False) -> int:
        """Listen with TLS on one more port, which is returned; with ``clients`` only to those whose certificate the
        authority has signed. The files are read for each connection (see ``forget_certificates``)."""
        port = free_port()
        options = (
            f'[{{cacertfile, "{authority}"}}, {{certfile, "{signed.certificate}"}}, {{keyfile, "{signed.key}"}}, '
            f"{{verify, verify_{'peer' if clients else 'none'}}}, {{fail_if_no_peer_cert, {str(clients).lower()}}}]"
        )
        self.eval("application:ensure_all_started(ssl)")
        self.eval(f'ok = rabbit_networking:start_ssl_listener({{"127.0.0.1", {port}}}, {options}, 1)')
        return port

    def forget_certificates(self) -> None:
        """What certificates' files hold now counts from the next connection on."""
        self.eval("ssl:clear_pem_cache()")

    def close_connections(self) -> None:
        """End all connections, as an administrator would."""
        self.eval('[rabbit_networking:close_connection(Pid, "test") || Pid <- rabbit_networking:connections()]')

    def eval(self, expressions: str) -> str:
        """The result, as text, of Erlang expressions (without the final dot) evaluated in the broker."""
        for _ in range(_EVAL_TRIES):
            result = subprocess.run(
                # A tenth of the time of `rabbitmqctl eval`, which starts an Erlang machine of its own.
                ["erl_call", "-c", self._epmd.cookie, "-address", f"localhost:{self._distribution_port}", "-e"],
                input=f"{expressions}.\n".encode(),
                capture_output=True,
                env=self._environment(),
                timeout=_EVAL_SECONDS_MAX,
                check=False,
            )
            output = (result.stdout + result.stderr).decode(errors="replace").strip()
            # Its handshake has a time limit of its own, which a busy machine exceeds now and then.
            if "failed to connect to node" not in output:
                break
        assert output.startswith("{ok"), f"{expressions}: {output}"
        return output

    def permit(self, user: str, vhost: str, configure: str, write: str, read: str) -> None:
        """Give a user these rights, in place of those that it has."""
        arguments = ", ".join(_binary(value) for value in (user, vhost, configure, write, read, "tests"))
        self.eval(f"ok = rabbit_auth_backend_internal:set_permissions({arguments})")

    def _write_files(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "rabbitmq.conf").write_text(_CONFIG.format(port=self.port) + self._settings)
        (self.directory / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")
        (self.directory / "rabbitmq-env.conf").write_text("")
        cookie = self.directory / ".erlang.cookie"
        cookie.unlink(missing_ok=True)
        cookie.touch(0o600)
        cookie.write_text(self._epmd.cookie)

    def _environment(self) -> dict[str, str]:
        directory = self.directory
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(directory),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd.port),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(directory / "rabbitmq.pid"),
            # Lets the script become the Erlang machine, instead of a shell that waits for it.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput +B i",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG_ARGUMENTS,
        }

    def _answers(self) -> bool:
        # Asked first, because pika logs every refused connection at length.
        if not accepts_tcp(self.port):
            return False
        try:
            self.connect().close()
        except (pika.exceptions.AMQPError, AMQPConnectorException):
            return False
        # It listens before it has quite started.
        return self.eval("rabbit:is_booted()") == "{ok, true}"


class RabbitMQCluster:
    """Nodes of one cluster; queues of type quorum and stream have a member on each."""

    def __init__(self, directory: Path, count: int = 3) -> None:
        self._epmd = Epmd(directory)
        #: A process ends with the thread that started it, so these threads stay.
        self._starters = ThreadPoolExecutor(count)
        self.nodes = [RabbitMQ(directory / f"node{number}", epmd=self._epmd) for number in range(count)]

    def urls(self, vhost: str) -> list[str]:
        return [node.url(vhost) for node in self.nodes]

    def __enter__(self) -> Self:
        self._epmd.start()
        try:
            # The nodes start side by side; they share nothing yet.
            list(self._starters.map(RabbitMQ.start, self.nodes))
            for node in self.nodes[1:]:
                node.join(self.nodes[0])
                wait_until(node._answers, _START_SECONDS_MAX, "the node answers in its cluster")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Killed, because the last of a cluster's nodes to stop takes long about it, and nothing is kept.
        for node in self.nodes:
            node._child.kill()
        self._epmd.kill()
        self._starters.shutdown()


def _binary(text: str) -> str:
    """The text as an Erlang binary."""
    return f"<<{', '.join(map(str, text.encode()))}>>"
