"""The file that lists the sites of a fleet, as TOML or CSV. It is read and checked as a whole.

TOML has a table ``[[sites]]`` for each site. CSV has a line for each, below a line with the names of the columns; ``;``
stands between cameras. Both have the keys of ``ListedSite``. An error names the line.
"""

from __future__ import annotations

import csv
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from engine.config.loading import as_text
from engine.config.names import explain, suggestion
from engine.config.sections import SITE_NAME, Secret, Text
from engine.errors import ConfigError, InputError, WireError
from engine.wire import keys
from engine.wire.amqp import SHORT_STRING_BYTES_MAX
from engine.wire.amqp_url import BROKER_DEFAULT_VHOST
from engine.wire.api_url import parse_api_url

#: Most bytes of a list. A site takes a few hundred.
_FILE_BYTES_MAX = 2**24
_TABLE = re.compile(r"^[ \t]*\[\[[ \t]*sites[ \t]*\]\]", re.MULTILINE)
#: Users that every broker and every Redis has. A site of that name would take their passwords away.
_TAKEN_NAMES = ("guest", "default")
#: Least characters of a password of the list.
_PASSWORD_CHARACTERS_MIN = 8


class ListedSite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A site of the list.

    ``vhost`` is the site's name if it is empty, ``/`` the broker's default one. Without ``cameras``, all of vhost and
    prefix are the site's. ``url`` is where its API is, ``token`` (or the file that ``token_file`` names) opens it.
    ``password`` is that of all its users; if it is empty, passwords are generated.
    """

    name: Text
    vhost: str = ""
    prefix: Text = "frames"
    cameras: tuple[Text, ...] = ()
    url: str = ""
    token: Secret = Secret()
    token_file: str = ""
    password: Secret = Secret()

    @property
    def broker_vhost(self) -> str:
        """The vhost as RabbitMQ names it."""
        return self.vhost or self.name

    @property
    def key_vhost(self) -> str:
        """The vhost as keys name it."""
        return keys.DEFAULT_VHOST if self.broker_vhost == BROKER_DEFAULT_VHOST else self.broker_vhost


class _Line(NamedTuple):
    """A site as the file has it, and where."""

    where: str
    fields: dict[str, Any]


def read_sites(path: Path) -> tuple[ListedSite, ...]:
    """The sites of a list, in its order. Raises InputError for the first that is wrong; it names the line."""
    text, private = _read(path)
    lines = list(_csv_lines(path, text) if path.suffix.lower() == ".csv" else _toml_lines(path, text))
    if not lines:
        raise InputError(f"{path} lists no sites; add [[sites]] with a name (a CSV: a line for each site)")
    sites: list[ListedSite] = []
    for where, fields in lines:
        try:
            site = _site(fields)
            if (site.token or site.password) and not private:
                raise ConfigError("has a token or password, and everybody may read the file; chmod 600 it")
        except ConfigError as error:
            raise InputError(f"{path}, {where}: {error}") from None
        sites.append(site)
    _refuse_overlaps(path, [line.where for line in lines], sites)
    return tuple(sites)


def token_of(site: ListedSite, directory: Path) -> str:
    """The token that opens a site's API; empty if the list has none. ``directory`` is that of the list.

    Raises InputError, which shows no token.
    """
    if not site.token_file:
        return str(site.token)
    text, private = _read(directory / site.token_file)
    if not private:
        raise InputError(f"everybody may read the token in {directory / site.token_file}; chmod 600 it")
    token = text.strip()
    if not token or not _is_token(token):
        raise InputError(f"{directory / site.token_file} must have a token of visible ASCII characters, without spaces")
    return token


def _is_token(text: str) -> bool:
    """True for what the header that carries a token can hold."""
    return all("!" <= character <= "~" for character in text)


def _read(path: Path) -> tuple[str, bool]:
    """The text of a file, and True if not everybody may read it."""
    try:
        # Without waiting for somebody to write, should it be a FIFO.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise InputError(f"{path} is no regular file")
            data = file.read(_FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path} cannot be read: {reason}") from None
    if len(data) > _FILE_BYTES_MAX:
        raise InputError(f"{path} has more than {_FILE_BYTES_MAX:,} bytes")
    try:
        return data.decode("utf-8-sig"), not stat.S_IMODE(mode) & 0o007
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8") from None


def _toml_lines(path: Path, text: str) -> Iterator[_Line]:
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no TOML: {error}") from None
    tables = document.pop("sites", [])
    if document:
        raise InputError(f"{path}: unknown key {next(iter(document))!r}; a list has only [[sites]]")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{path}: sites must be tables [[sites]]")
    starts = [text.count("\n", 0, match.start()) + 1 for match in _TABLE.finditer(text)]
    for number, table in enumerate(tables):
        # Text in quotes may look like the beginning of a table, and tables may be written in line.
        yield _Line(f"line {starts[number]}" if len(starts) == len(tables) else f"sites[{number}]", table)


def _csv_lines(path: Path, text: str) -> Iterator[_Line]:
    rows = csv.reader(text.splitlines(keepends=True), strict=True)
    header: list[str] = []
    try:
        for row in rows:
            where = f"line {rows.line_num}"
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not header:
                header = cells
                continue
            if len(cells) != len(header):
                raise InputError(f"{path}, {where} has {len(cells)} cells, and {len(header)} columns are named above")
            fields: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
            if "cameras" in fields:
                fields["cameras"] = [name.strip() for name in fields["cameras"].split(";")]
            yield _Line(where, fields)
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num} is no CSV: {error}") from None


def _site(fields: dict[str, Any]) -> ListedSite:
    """The site of a line. Raises ConfigError."""
    known = list(ListedSite.__struct_fields__)
    for key in fields:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}{suggestion(key, known)}")
    try:
        site = msgspec.convert(fields, ListedSite, dec_hook=as_text)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(str(error), fields)) from None
    _check(site)
    return site


def _check(site: ListedSite) -> None:
    for key in site.__struct_fields__:
        value = getattr(site, key)
        for text in value if isinstance(value, tuple) else (value,):
            if "\0" in text:
                raise ConfigError(f"{key} holds a zero byte; remove it")
    if not re.fullmatch(SITE_NAME, site.name):
        raise ConfigError(f"name {site.name!r} must be 1 to 64 letters, digits and _ . -, the first a letter or digit")
    if site.name in _TAKEN_NAMES:
        raise ConfigError(f"name {site.name!r} is a user that every server has; use another")
    _check_key_names(site)
    if site.url:
        parse_api_url(site.url, "url")
    if site.token and site.token_file:
        raise ConfigError("token and token_file are both set; remove one of them")
    if not _is_token(site.token):
        raise ConfigError("token must have only visible ASCII characters, without spaces")
    if site.password and len(site.password) < _PASSWORD_CHARACTERS_MIN:
        raise ConfigError(
            f"password has fewer than {_PASSWORD_CHARACTERS_MIN} characters; leave it out to have one made"
        )


def _check_key_names(site: ListedSite) -> None:
    """The names must be possible in keys, as in a site file."""
    if site.broker_vhost in (keys.DEFAULT_VHOST, keys.ENGINE):
        raise ConfigError(f"vhost {site.broker_vhost!r} is a word of the engine's keys; use another")
    if len(site.broker_vhost.encode()) > SHORT_STRING_BYTES_MAX:
        raise ConfigError(f"vhost has more than {SHORT_STRING_BYTES_MAX} bytes; use a shorter one")
    for what, name in (("vhost", site.key_vhost), ("prefix", site.prefix), *(("camera", one) for one in site.cameras)):
        if what != "vhost" and name in keys.RESERVED_WORDS:
            raise ConfigError(f"{what} {name!r} is a word of the engine's own keys; use another")
        try:
            keys.encode_part(name)
        except WireError as error:
            raise ConfigError(f"{what}: {error}") from None
    for number, camera in enumerate(site.cameras):
        if camera in site.cameras[:number]:
            raise ConfigError(f"camera {camera!r} is named twice")


def _refuse_overlaps(path: Path, places: Sequence[str], sites: Sequence[ListedSite]) -> None:
    """Raises InputError if two sites have the same name, or could store the same camera."""
    names: dict[str, int] = {}
    #: Cameras by vhost and prefix, and the site that has each; None for all cameras.
    owners: dict[tuple[str, str], dict[str | None, int]] = {}
    for number, site in enumerate(sites):
        where = f"{path}, {places[number]}"
        if site.name in names:
            raise InputError(f"{where}: site {site.name!r} is also in {places[names[site.name]]}; names must differ")
        names[site.name] = number
        standing = owners.setdefault((site.key_vhost, site.prefix), {})
        wanted: Sequence[str | None] = site.cameras or (None,)
        alone = standing if None in wanted else [None]
        met = next((name for name in (*wanted, *alone) if name in standing), "")
        if met != "":
            other = standing[met]
            same = f"camera {met!r} is" if met in site.cameras else "all its cameras may be"
            raise InputError(
                f"{where}: site {site.name!r} has vhost {site.broker_vhost!r} and prefix {site.prefix!r}, as "
                f"{sites[other].name!r} in {places[other]}, and {same} that one's; give it another vhost or prefix, or "
                "name the cameras of both"
            )
        standing.update(dict.fromkeys(wanted, number))
