"""The one table of RabbitMQ's refusals and pika's errors, with their meanings.

The broker closes a channel with 406, "inequivalent arg", if something exists with other properties than declared. It
names the first property that differs, with the received and the current value. If its text differs, because of another
version or a cut at 255 bytes, only the code counts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from socket import gaierror
from typing import NamedTuple

from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout
from pika.exceptions import (
    AMQPHeartbeatTimeout,
    AuthenticationError,
    ChannelClosed,
    ConnectionBlockedTimeout,
    ConnectionClosed,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    StreamLostError,
)

from engine.config.tls import TLS_CAUSES, tls_refusal
from engine.errors import BrokerUnavailable, Cause, ServerRefused
from engine.wire.amqp_url import AmqpAddress
from engine.wire.urls import host_port


class _Meaning(NamedTuple):
    cause: Cause
    #: Follows the broker's name; ``{vhost}`` is the vhost of the URL.
    fact: str


_LOGIN = _Meaning(Cause.BROKER_LOGIN, "refused the user and password")
_VHOST = _Meaning(Cause.VHOST, "refused access to vhost {vhost}")
#: Meanings by pika's type of error; the first match counts.
_TYPES: dict[type[BaseException], _Meaning] = {
    ProbableAuthenticationError: _LOGIN,
    AuthenticationError: _LOGIN,
    ProbableAccessDeniedError: _VHOST,
    IncompatibleProtocolError: _Meaning(Cause.BROKER_AWAY, "does not speak AMQP 0-9-1 on that port"),
    AMQPHeartbeatTimeout: _Meaning(Cause.BROKER_AWAY, "sent no heartbeat in time"),
    ConnectionBlockedTimeout: _Meaning(Cause.BROKER_BLOCKED, "took no messages for too long (memory or disk alarm)"),
    AMQPConnectorStackTimeout: _Meaning(Cause.BROKER_AWAY, "did not answer in time"),
    ConnectionRefusedError: _Meaning(Cause.BROKER_AWAY, "refused the connection"),
    gaierror: _Meaning(Cause.BROKER_AWAY, "was not found: no such host name"),
    TimeoutError: _Meaning(Cause.BROKER_AWAY, "did not answer in time"),
    StreamLostError: _Meaning(Cause.BROKER_AWAY, "broke the connection"),
}
#: Causes by the AMQP reply code with which the broker closes a channel or a connection.
_CODES = {
    403: Cause.EXCHANGE_FORBIDDEN,
    404: Cause.EXCHANGE_MISSING,
    405: Cause.QUEUE_LOCKED,
    406: Cause.PRECONDITION,
    530: Cause.VHOST,
}
#: Causes that another try does not cure: settings, or rights at the broker, must change.
REFUSALS = frozenset({
    *_CODES.values(), Cause.BROKER_LOGIN, Cause.EXCHANGE_DURABLE, Cause.EXCHANGE_TRANSIENT, Cause.EXCHANGE_TYPE,
    Cause.EXCHANGE_MISMATCH, Cause.QUEUE_MISMATCH, *TLS_CAUSES,
})  # fmt: skip

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<key>[^']*)' for (?P<kind>exchange|queue) '(?P<name>.*)' in vhost '(?P<vhost>.*)': "
    r"received (?P<ours>.*) but current is (?P<theirs>.*)",
    re.DOTALL,
)
_VALUE = re.compile(r"(?:the value )?'(.*?)'(?: of type '\w+')?", re.DOTALL)
#: Properties of an exchange by name and value: the cause, and the fact for the message.
_PROPERTIES = {
    ("durable", "true"): (Cause.EXCHANGE_DURABLE, "is durable"),
    ("durable", "false"): (Cause.EXCHANGE_TRANSIENT, "is not durable"),
    ("auto_delete", "true"): (Cause.EXCHANGE_MISMATCH, "is deleted with its last queue (auto-delete)"),
    ("internal", "true"): (Cause.EXCHANGE_MISMATCH, "is internal: nobody may publish to it"),
}


def away(address: AmqpAddress, what: str, cause: Cause = Cause.BROKER_AWAY, **details: str) -> BrokerUnavailable:
    """An error for a broker that does not serve us; ``what`` follows its name."""
    subject = f"RabbitMQ at {host_port(address.host, address.port)}"
    return BrokerUnavailable(f"{subject}{what}", cause=cause, subject=subject, **details)


def connection_error(address: AmqpAddress, error: object) -> BrokerUnavailable:
    """Translate an error of pika. If its cause is one of REFUSALS, another try does not help."""
    if isinstance(error, BrokerUnavailable):
        return error
    if refusal := tls_refusal(error):
        return away(address, f": TLS failed: {refusal.reason}", refusal.cause, server="amqp")
    inner = _innermost(error)
    if isinstance(inner, ConnectionClosed | ChannelClosed):
        return mismatch(address, inner.reply_text) or _closed(address, inner)
    for kind, meaning in _TYPES.items():
        if isinstance(inner, kind):
            return away(address, f" {meaning.fact.format(vhost=address.vhost)}", meaning.cause)
    return away(address, f" is not connected: {_said(inner)}")


def all_failed(errors: Sequence[BrokerUnavailable]) -> BrokerUnavailable | ServerRefused:
    """One error for brokers none of which serves us; ServerRefused if another try does not help with one of them. The
    advice is that of the first such refusal."""
    refusals = [error for error in errors if error.cause in REFUSALS]
    first = refusals[0] if refusals else errors[0]
    fact = "; ".join(dict.fromkeys(error.fact for error in errors))
    return ServerRefused.of(first, fact) if refusals else BrokerUnavailable.of(first, fact)


def _closed(address: AmqpAddress, error: ConnectionClosed | ChannelClosed) -> BrokerUnavailable:
    what = "connection" if isinstance(error, ConnectionClosed) else "channel"
    cause = _CODES.get(error.reply_code, Cause.BROKER_AWAY)
    return away(address, f" closed the {what}: {error.reply_text} ({error.reply_code})", cause)


def mismatch(address: AmqpAddress, reply_text: str) -> BrokerUnavailable | None:
    """What exists, and how it differs; None if the text reports no such difference."""
    match = _INEQUIVALENT.search(reply_text)
    if not match:
        return None
    key, kind, name, vhost = match["key"], match["kind"], match["name"], match["vhost"]
    ours, theirs = _plain(match["ours"]), _plain(match["theirs"])
    if kind == "queue":
        command = f"rabbitmqctl -p {shlex.quote(vhost)} delete_queue {shlex.quote(name)}"
        fact = f"queue {name} exists in vhost {vhost} with {key} {theirs}, not {ours}"
        return away(address, f": {fact}", Cause.QUEUE_MISMATCH, command=command)
    cause, found = _PROPERTIES.get((key, theirs), (Cause.EXCHANGE_MISMATCH, f"has {key} {theirs}, not {ours}"))
    if key == "type":
        cause, found = Cause.EXCHANGE_TYPE, f"is of type {theirs}, not {ours}"
    command = f"rabbitmqadmin --vhost={shlex.quote(vhost)} delete exchange {shlex.quote(f'name={name}')}"
    fact = f": exchange {name} exists in vhost {vhost} and {found}"
    return away(address, fact, cause, command=command, kind=theirs)


def _innermost(error: object) -> object:
    """The original error, which pika wraps in errors of the phase in which it occurred."""
    while True:
        inner = getattr(error, "exception", None)
        if inner is None and getattr(error, "exceptions", None):
            inner = error.exceptions[-1]  # type: ignore[attr-defined]
        if inner is None and isinstance(error, BaseException) and error.args:
            inner = error.args[0]
        if not isinstance(inner, BaseException):
            return error
        error = inner


def _said(error: object) -> str:
    """The text of an error that is in no table."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _plain(value: str) -> str:
    match = _VALUE.fullmatch(value)
    return match[1] or "''" if match else value
