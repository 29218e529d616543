"""The AMQP URL: ``amqp://user:password@host:port/vhost``, read once for keys in Redis and for the connection.

pika's own reader is not used: it takes the first segment of the path and drops what follows a ``;``, so two URLs with
different tenants in Redis could publish into one vhost. Here a URL has one meaning, or is refused with what to write
instead.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from engine.errors import Cause, ConfigError
from engine.wire.amqp import SHORT_STRING_BYTES_MAX
from engine.wire.keys import DEFAULT_VHOST, ENGINE
from engine.wire.urls import host_port, is_host, mask, secrets_in

#: The broker's own name of its default vhost, which keys call DEFAULT_VHOST.
BROKER_DEFAULT_VHOST = "/"
#: What RabbitMQ gives a client that names no user: a user that may come from the broker's own machine only.
_GUEST = "guest"
_PORTS = {"amqp": 5672, "amqps": 5671}
_FORM = "amqp://user:password@host:port/vhost"
#: Where the meaning of a query parameter, known from other clients, is set.
_TLS_KEYS = "amqp.tls_ca_file amqp.tls_certificate_file amqp.tls_key_file amqp.tls_server_name"
_PARAMETER_KEYS = {
    "heartbeat": "amqp.heartbeat_seconds",
    "connection_timeout": "amqp.timeout_seconds",
    "socket_timeout": "amqp.timeout_seconds",
    "stack_timeout": "amqp.timeout_seconds",
    "ssl_options": _TLS_KEYS,
    "cacertfile": "amqp.tls_ca_file",
    "certfile": "amqp.tls_certificate_file",
    "keyfile": "amqp.tls_key_file",
    "server_name_indication": "amqp.tls_server_name",
}
_CONTROLS = re.compile(r"[\x00-\x20\x7f]")
#: What follows the host where a password with a / ? or # in it was cut off there; nothing of it may be shown.
_CUT_PASSWORD = re.compile(r"(?:[?#]|/.*[/?#]).*@")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class AmqpAddress(NamedTuple):
    """A broker, and the vhost there as AMQP names it: ``/`` for the default one. Shows without its credentials."""

    scheme: str
    host: str
    port: int
    username: str
    password: str
    vhost: str

    @property
    def tls(self) -> bool:
        """True where the connection is encrypted."""
        return self.scheme == "amqps"

    @property
    def key_vhost(self) -> str:
        """The vhost as keys name it, before they encode it: ``default`` for the broker's default vhost."""
        return DEFAULT_VHOST if self.vhost == BROKER_DEFAULT_VHOST else self.vhost

    def __str__(self) -> str:
        return f"{self.scheme}://{host_port(self.host, self.port)}"

    def __repr__(self) -> str:
        return f"AmqpAddress({self}, vhost={self.vhost!r})"


def parse_amqp_url(url: str, what: str = "amqp.amqp_url") -> AmqpAddress:
    """The broker and vhost that ``url`` names.

    Raises ConfigError that begins with ``what``, says what is wrong and what to write, and shows no credentials.
    """
    try:
        return _parse(url)
    except ConfigError as error:
        raise ConfigError.of(error, f"{what} {error.fact}") from None


def _parse(url: str) -> AmqpAddress:
    if found := _CONTROLS.search(url):
        raise ConfigError(f"holds {found[0]!r}; write it as %{ord(found[0]):02X}, or remove it")
    try:
        url.encode()
    except UnicodeEncodeError:
        raise ConfigError("is not UTF-8; write user, password and vhost as UTF-8, percent-encoded") from None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _no_form(url) from None
    scheme = parts.scheme
    if scheme not in _PORTS or not parts.hostname or port == 0:
        raise _no_form(url)
    # urlsplit has no more of an empty query or fragment than of none.
    behind = url.partition("://")[2][len(parts.netloc) :]
    if "@" in behind and ("@" not in parts.netloc or _CUT_PASSWORD.match(behind)):
        raise ConfigError("has an @ behind its host; write / ? # @ in a user or password as %2F %3F %23 %40")
    if "?" in behind:
        raise _refused_query(url, parts)
    if "#" in behind:
        raise ConfigError(f"({_shown(url)}) has a fragment; write # in a vhost as %23")
    username, password = _credentials(parts)
    return AmqpAddress(scheme, _host(parts.hostname), port or _PORTS[scheme], username, password, _vhost(url, behind))


def _no_form(url: str) -> ConfigError:
    hint = "; write / ? # @ [ ] in a user or password as %2F %3F %23 %40 %5B %5D" if "@" in url else ""
    return ConfigError(f"is not {_FORM} (or amqps://){hint}")


def _refused_query(url: str, parts: SplitResult) -> ConfigError:
    names = list(dict.fromkeys(name for name, _ in parse_qsl(parts.query, keep_blank_values=True)))
    listed = f": {', '.join(names)}" if names else ""
    return ConfigError(
        f"({_shown(url)}) has query parameters{listed}, which are not read",
        cause=Cause.URL_PARAMETERS,
        settings=",".join(f"{name}={_PARAMETER_KEYS[name]}" for name in names if name in _PARAMETER_KEYS),
    )


def _credentials(parts: SplitResult) -> tuple[str, str]:
    if "@" not in parts.netloc:
        return _GUEST, _GUEST
    if not parts.password:
        # In words: an example with an @ would be masked where errors are shown.
        raise ConfigError(
            f"has a user without a password; write both, with a colon between them, or leave the user out for {_GUEST}"
        )
    # A user may be empty: RabbitMQ's OAuth 2 takes the token as the password.
    return _decoded(parts.username or "", "user"), _decoded(parts.password, "password")


def _decoded(text: str, what: str) -> str:
    """Raises ConfigError, which shows nothing of ``text``."""
    if _BAD_ESCAPE.search(text):
        raise ConfigError(f"has a % in its {what} that begins no escape; write it as %25")
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ConfigError(f"has a {what} whose percent-encoding is not UTF-8; encode it as UTF-8") from None
    if "\0" in decoded and what != "vhost":
        # AMQP's PLAIN login has zero bytes around both.
        raise ConfigError(f"has a zero byte (%00) in its {what}, which no login can carry; use another {what}")
    return decoded


def _host(host: str) -> str:
    if not is_host(host):
        raise ConfigError(f"names no possible host ({host!r}); correct doubled dots, or labels beyond 63 characters")
    if "%" in host and ":" not in host:
        raise ConfigError(f"has percent-encoding in its host ({host!r}); write the host's name or address as it is")
    return host


def _vhost(url: str, path: str) -> str:
    """The vhost of a path: none, or one segment."""
    segment = path[1:]
    if "/" in segment:
        raise ConfigError(
            f"({_shown(url)}) has a path of more than one segment; its path is the vhost: write a / in a vhost as %2F, "
            "and none at its end"
        )
    if ";" in segment:
        raise ConfigError(f"({_shown(url)}) has a ; in its path, which is the vhost; write it as %3B")
    vhost = _decoded(segment, "vhost") or BROKER_DEFAULT_VHOST
    if (size := len(vhost.encode())) > SHORT_STRING_BYTES_MAX:
        raise ConfigError(f"has a vhost of {size} bytes, at most {SHORT_STRING_BYTES_MAX}; use a shorter one")
    if vhost == DEFAULT_VHOST:
        raise ConfigError(
            f"names the vhost {DEFAULT_VHOST!r}, which stands in keys for the broker's default vhost /: leave the path "
            "out if that one is meant, else use a vhost of another name"
        )
    if vhost == ENGINE:
        raise ConfigError(f"cannot be used: vhost {ENGINE!r} is reserved for the engine's own keys; use another")
    return vhost


def _shown(url: str) -> str:
    return mask(url, secrets_in(url))
