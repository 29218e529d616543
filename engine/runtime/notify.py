"""Messages to systemd, for units of ``Type=notify``: started, status, alive, stopping (see sd_notify(3)).

A message is one datagram to the socket that ``NOTIFY_SOCKET`` names. The variables are removed from the environment at
once, so that no child process speaks for its parent.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

#: Seconds that a message waits for room in systemd's socket before it is dropped.
_SEND_SECONDS_MAX = 0.5


class Notifier:
    """Sends messages to the service manager that started this process; does nothing if there is none."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        environment = {} if environment is None else environment
        path = environment.pop("NOTIFY_SOCKET", "")
        interval = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "")
        # "@" means the zero byte of an abstract name.
        self._address = "\0" + path[1:] if path.startswith("@") else path if path.startswith("/") else ""
        watched = self._address and interval.isascii() and interval.isdigit() and pid in ("", str(os.getpid()))
        #: Seconds between two beats, half of the watchdog's time; infinite without a watchdog.
        self.beat_seconds = int(interval) / 2e6 if watched and int(interval) else math.inf
        self._next_beat = 0.0 if math.isfinite(self.beat_seconds) else math.inf
        self._status = ""

    def ready(self, status: str) -> None:
        """Report that the start or the reload is complete."""
        self._status = status
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """Send a line for ``systemctl status`` if it differs from the last."""
        if self._address and status != self._status:
            self._status = status
            self._send(f"STATUS={status}")

    def beat(self) -> None:
        """Report that this process is alive. May be called at any rate."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + self.beat_seconds
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Report that the site file is read again; ``ready`` ends the reload."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Report that the drain begins."""
        self._send("STOPPING=1\nSTATUS=draining")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A service manager that does not listen must not stop the site.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_SEND_SECONDS_MAX)
            sender.sendto(message.encode(), self._address)
