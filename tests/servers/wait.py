"""Waiting for conditions, and the ends of child processes."""

from __future__ import annotations

import ctypes
import os
import random
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

#: prctl(2) option: the signal a process gets when the thread that forked it ends.
_PR_SET_PDEATHSIG = 1
# Looked up here, because the child may not take locks (as dlopen does) between fork and exec.
_prctl = ctypes.CDLL(None, use_errno=True).prctl

#: What must come is waited for so long at least: a loaded machine takes its time, and the wait ends when it comes.
SECONDS_MIN = 30.0

_ports_given: set[int] = set()
#: Processes that may test at a time.
_WORKERS_MAX = 8


def readable(descriptor: Any, seconds: float | None) -> bool:
    """Whether there is something to read, after at most ``seconds``; None waits. Unlike select, it takes descriptors
    beyond 1,023, which a worker of many tests has."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def wait_until(
    condition: Callable[[], T], timeout: float, what: str, interval: float = 0.02, log: Callable[[], str] | None = None
) -> T:
    """The first truthy value of `condition`; AssertionError naming `what`, and what `log` says by then, after `timeout`
    or SECONDS_MIN seconds, whichever is longer. What may never come is asked with `comes_within`.

    It is asked every `interval` seconds. Where the answer takes long, it is asked up to five times as seldom: what is
    waited for needs the machine more.
    """
    timeout = max(timeout, SECONDS_MIN)
    value = _last_value(condition, timeout, interval)
    if not value:
        said = f"; the log:\n{log()[-3000:]}" if log else ""
        raise AssertionError(f"not within {timeout:g} s: {what} (last value {value!r}){said}")
    return value


def comes_within(condition: Callable[[], object], seconds: float, interval: float = 0.02) -> bool:
    """Whether `condition` becomes true within so many seconds; for what may stay away."""
    return bool(_last_value(condition, seconds, interval))


def _last_value(condition: Callable[[], T], seconds: float, interval: float) -> T:
    deadline = time.monotonic() + seconds
    while True:
        begun = time.monotonic()
        value = condition()
        if value or time.monotonic() >= deadline:
            return value
        time.sleep(max(interval, min(5 * interval, 4 * (time.monotonic() - begun))))


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now, and not given to anyone else by this process.

    It lies below the ephemeral range: there, an outgoing connection could take it while its server is down,
    and a client that retries a closed loopback port would now and then connect to itself.
    """
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = range(max(1024, ephemeral - 16_000), ephemeral)
    # Of several processes that test at a time each has ports of its own.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = ports[worker % _WORKERS_MAX :: _WORKERS_MAX]
    for _ in range(1000):
        port = random.SystemRandom().choice(ports)
        if port in _ports_given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        _ports_given.add(port)
        return port
    raise AssertionError(f"no free TCP port in {ports}")


def accepts_tcp(port: int) -> bool:
    """Whether something listens on this port of 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def die_with_parent() -> Callable[[], None]:
    """A `preexec_fn`: the child is killed when the thread that started it ends, however it ends.

    It takes no lock, which is what makes a `preexec_fn` unsafe where there are threads.
    """
    parent = os.getpid()

    def preexec() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return preexec
