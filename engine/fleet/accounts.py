"""The users of a whole fleet, as files: what Redis and RabbitMQ import, and the passwords.

A site has two users in Redis and one in RabbitMQ, each with a password of its own. Passwords that stand in the
directory already are kept, so a site that is added to the list changes nothing for the others.
"""

from __future__ import annotations

import csv
import io
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from engine.errors import InputError
from engine.fleet.definitions import (
    CENTRE_USER,
    SYSTEM_CA_FILE,
    Definitions,
    centre_definitions,
    shovel_definitions,
    site_definitions,
)
from engine.fleet.site_list import ListedSite
from engine.jobs.tenants import Role, Scope, acl_line, acl_rules
from engine.wire.amqp_url import AmqpAddress

#: The files of a directory; beside them one of ``SHOVELS`` for each site.
REDIS, RABBITMQ, CENTRE, PASSWORDS, SHOVELS = "redis.acl", "rabbitmq.json", "centre.json", "passwords.csv", "shovels"
#: Bytes of entropy in a generated password.
_PASSWORD_BYTES = 24
_COLUMNS = ["server", "user", "password"]
#: Users in Redis by the end of their names. The writer's user reads, too: the site's web process uses it.
_REDIS_ROLES: dict[str, tuple[Role, ...]] = {"writer": ("writer", "reader"), "publisher": ("publisher",)}


class Account(NamedTuple):
    """A user of a server: ``redis``, ``rabbitmq`` or ``centre``."""

    server: str
    user: str


def make_accounts(
    sites: Sequence[ListedSite],
    directory: Path,
    centre: AmqpAddress | None = None,
    centre_ca_file: str = SYSTEM_CA_FILE,
) -> dict[str, bytes]:
    """The content of all files, by their path below ``directory``; nothing is written.

    With ``centre``, each site's own broker passes events on to that one. Raises InputError if a site has the name of
    the centre's user, or if the passwords in ``directory`` cannot be read.
    """
    if centre and any(site.name == CENTRE_USER for site in sites):
        raise InputError(f"site {CENTRE_USER!r} has the name of the user that reads at the centre; use another")
    standing = _read_passwords(directory / PASSWORDS)
    passwords = _passwords(sites, standing, centre=centre is not None)
    if not centre:
        # The centre's files of an earlier call stay as they are, and so do their passwords.
        at_centre = {CENTRE_USER, *(site.name for site in sites)}
        kept = {account: word for account, word in standing.items() if account.server == "centre"}
        passwords |= {account: word for account, word in kept.items() if account.user in at_centre}
    at = {
        server: {account.user: password for account, password in passwords.items() if account.server == server}
        for server in ("redis", "rabbitmq", "centre")
    }
    files = {
        REDIS: "".join(f"{line}\n" for site in sites for line in _acl_lines(site, at["redis"])).encode(),
        RABBITMQ: _json(site_definitions(sites, at["rabbitmq"])),
        PASSWORDS: _csv(passwords),
    }
    if centre:
        files[CENTRE] = _json(centre_definitions(sites, at["centre"], centre))
        for site in sites:
            shovel = shovel_definitions(site, at["centre"][site.name], centre, centre_ca_file)
            files[f"{SHOVELS}/{site.name}.json"] = _json(shovel)
    return files


def write_accounts(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write the files with mode 0600, each as a whole, below ``directory``, which is made with mode 0700. The passwords
    come first: what was interrupted continues with them. Raises InputError."""
    try:
        for name in sorted(files, key=lambda name: name != PASSWORDS):
            path = directory / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
            partial.unlink(missing_ok=True)
            try:
                with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(files[name])
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{error.filename or directory} cannot be written: {error.strerror}") from None


def former_shovels(directory: Path, sites: Sequence[ListedSite]) -> list[str]:
    """The files of shovels below ``directory``, of an earlier call, whose sites are not in the list; by their paths
    there. They have passwords in plain text."""
    names = {site.name for site in sites}
    found = (directory / SHOVELS).glob("*.json")
    return sorted(f"{SHOVELS}/{path.name}" for path in found if path.stem not in names)


def _acl_lines(site: ListedSite, passwords: Mapping[str, str]) -> list[str]:
    scope = Scope(site.prefix, site.name)
    return [
        acl_line(user, acl_rules(site.key_vhost, roles, passwords[user], scope=scope))
        for user, roles in ((f"{site.name}-{end}", roles) for end, roles in _REDIS_ROLES.items())
    ]


def _passwords(sites: Sequence[ListedSite], standing: Mapping[Account, str], *, centre: bool) -> dict[Account, str]:
    """A password for each user: that of the list, else the standing one, else a new one."""
    found: dict[Account, str] = {}
    for site in sites:
        accounts = [Account("redis", f"{site.name}-{end}") for end in _REDIS_ROLES]
        accounts += [Account("rabbitmq", site.name), *([Account("centre", site.name)] if centre else [])]
        for account in accounts:
            found[account] = str(site.password) or standing.get(account) or secrets.token_urlsafe(_PASSWORD_BYTES)
    if centre:
        reader = Account("centre", CENTRE_USER)
        found[reader] = standing.get(reader) or secrets.token_urlsafe(_PASSWORD_BYTES)
    return found


def _read_passwords(path: Path) -> dict[Account, str]:
    """The passwords of an earlier call. Raises InputError if the file is another's."""
    try:
        rows = list(csv.reader(io.StringIO(path.read_text()), strict=True))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no CSV in UTF-8"
        raise InputError(f"{path} cannot be read: {reason}; remove it to have all passwords made anew") from None
    if not rows or rows[0] != _COLUMNS or any(len(row) != len(_COLUMNS) or not row[2] for row in rows[1:]):
        raise InputError(f"{path} lacks the columns {', '.join(_COLUMNS)}; name another directory")
    return {Account(server, user): password for server, user, password in rows[1:]}


def _csv(passwords: Mapping[Account, str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [_COLUMNS, *((*account, password) for account, password in passwords.items())]
    )
    return text.getvalue().encode()


def _json(definitions: Definitions) -> bytes:
    return msgspec.json.format(msgspec.json.encode(definitions), indent=2) + b"\n"
