"""``[alerts]``: the thresholds of the site's alerts, and the webhook that gets them."""

from __future__ import annotations

from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from engine.config.sections import Seconds, Secret
from engine.errors import ConfigError
from engine.wire import urls

#: The product page's alerts on Redis, which the doctor checks, too: percent of maxmemory, percent of look-ups that find
#: nothing, connected clients.
REDIS_MEMORY_PERCENT = 80.0
REDIS_MISSES_PERCENT = 20.0
REDIS_CLIENTS = 1000

#: A threshold; 0 turns the rule off.
_Seconds = Annotated[float, Meta(ge=0, le=31_536_000)]
_Percent = Annotated[float, Meta(ge=0, le=100)]
_Number = Annotated[int, Meta(ge=0, le=1_000_000_000)]


class Webhook(NamedTuple):
    """Where alerts are posted: ``target`` is the URL's path and query, which may contain a secret."""

    tls: bool
    host: str
    port: int
    target: str

    @property
    def shown(self) -> str:
        """The address without its path, for logs."""
        return f"{'https' if self.tls else 'http'}://{urls.host_port(self.host, self.port)}"


class AlertsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[alerts]``: when the monitor raises an alert. A threshold of 0 turns its rule off."""

    enabled: bool = True
    window_seconds: Annotated[float, Meta(ge=4, le=3600)] = 60.0
    clear_seconds: Seconds = 10.0
    camera_down_seconds: _Seconds = 30.0
    camera_clock_seconds: _Seconds = 2.0
    dropped_frames: _Number = 1
    ring_fill_percent: _Percent = 75.0
    redis_away_seconds: _Seconds = 5.0
    redis_memory_percent: _Percent = REDIS_MEMORY_PERCENT
    redis_misses_percent: _Percent = REDIS_MISSES_PERCENT
    redis_clients: _Number = REDIS_CLIENTS
    redis_expiry_seconds: _Seconds = 60.0
    broker_away_seconds: _Seconds = 10.0
    publisher_lag_seconds: _Seconds = 30.0
    process_down_seconds: _Seconds = 10.0
    process_restarts: _Number = 3
    disk_percent: _Percent = 90.0
    clock_step_seconds: _Seconds = 1.0
    webhook: Secret = Secret()
    webhook_token: Secret = Secret()

    @property
    def webhook_address(self) -> Webhook | None:
        """Where alerts are posted; None without a webhook. Raises ConfigError, which never shows the URL."""
        if not self.webhook:
            return None
        try:
            parts = urlsplit(self.webhook)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ConfigError("alerts.webhook is no URL, such as https://host/path") from None
        if parts.scheme not in ("http", "https") or not urls.is_host(host):
            raise ConfigError("alerts.webhook must be https://host/path, or http:// in a trusted network")
        if parts.username is not None:
            raise ConfigError("alerts.webhook holds a user; put the secret into alerts.webhook_token")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not (target.isascii() and target.isprintable() and " " not in target):
            raise ConfigError("alerts.webhook holds a blank or a character that must be percent-encoded")
        tls = parts.scheme == "https"
        return Webhook(tls, host, port or (443 if tls else 80), target)


def check_alerts(alerts: AlertsSection) -> None:
    """Check what the types of the fields cannot. Raises ConfigError."""
    address = alerts.webhook_address
    token = alerts.webhook_token
    if not token:
        return
    if address is None:
        raise ConfigError("alerts.webhook_token needs alerts.webhook")
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError("alerts.webhook_token holds a blank or a character that no header can carry")
    if not address.tls and not urls.is_local(address.host):
        raise ConfigError("alerts.webhook_token would go over the network in plain text; use an https:// webhook")
