"""What RabbitMQ means by 406, "inequivalent arg": something stands otherwise than it is declared; and the way out.

The broker names the first property that differs, with what was received and what is current. Where its text reads
otherwise, as in another version or cut at 255 bytes, the callers say what they know.
"""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

#: Stands in a sentence of ours between what is so and what to do.
ADVISED = "(406); "
_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<key>[^']*)' for (?P<kind>exchange|queue) '(?P<name>.*)' in vhost '(?P<vhost>.*)': "
    r"received (?P<ours>.*) but current is (?P<theirs>.*)",
    re.DOTALL,
)
_VALUE = re.compile(r"(?:the value )?'(.*?)'(?: of type '\w+')?", re.DOTALL)


class Wording(NamedTuple):
    """How the caller is told to declare an exchange otherwise: as durable, as transient, as one of another type (empty
    where that cannot be chosen), under another name."""

    durable: str
    transient: str
    kind: str
    name: str


SITE_FILE = Wording(
    "set `metadata.exchange_durable = true`",
    "set `metadata.exchange_durable = false`",
    "",
    "name another in metadata.exchange",
)
CONSUMER = Wording("set `exchange_durable = true`", "set `exchange_durable = false`", "", "name another with exchange")
RECOVER = Wording("give --durable", "give --no-durable", "give --exchange-type {}", "name another with --exchange")


def mismatch(error: object, wording: Wording) -> str:
    """A sentence for pika's error: what stands there, and the way out; empty where the broker tells of something else,
    or nothing."""
    match = _INEQUIVALENT.search(str(getattr(error, "reply_text", "")))
    if not match:
        return ""
    key, kind, name, vhost = match["key"], match["kind"], match["name"], match["vhost"]
    ours, theirs = _plain(match["ours"]), _plain(match["theirs"])
    if kind == "queue":
        command = f"rabbitmqctl -p {shlex.quote(vhost)} delete_queue {shlex.quote(name)}"
        return (
            f"queue {name} exists in vhost {vhost} with {key} {theirs}, not {ours} {ADVISED}attempts and dead_letter "
            f"are fixed when it is made: give the same, name another, or delete it with its messages (`{command}`)"
        )
    found, way = {
        ("durable", "true"): ("is durable", wording.durable),
        ("durable", "false"): ("is not durable", wording.transient),
        ("auto_delete", "true"): ("goes when its last queue does (auto-delete)", ""),
        ("internal", "true"): ("is internal: nobody may publish to it", ""),
    }.get((key, theirs), (f"has {key} {theirs}, not {ours}", ""))
    if key == "type":
        found, way = f"is of type {theirs}, not {ours}", wording.kind.format(theirs)
    command = f"rabbitmqadmin --vhost={shlex.quote(vhost)} delete exchange {shlex.quote(f'name={name}')}"
    return (
        f"exchange {name} exists in vhost {vhost} and {found} {ADVISED}{way or wording.name}, or delete it once "
        f"(`{command}`), which unbinds its queues"
    )


def _plain(value: str) -> str:
    match = _VALUE.fullmatch(value)
    return match[1] or "''" if match else value
