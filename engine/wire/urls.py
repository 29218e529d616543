"""URLs: which kinds of camera they name, and how to show them without their secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Literal, NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from engine.errors import ConfigError

SourceKind = Literal["rtsp", "http", "file", "device", "test"]
_SCHEMES: dict[str, SourceKind] = {
    "rtsp": "rtsp",
    "rtsps": "rtsp",
    "http": "http",
    "https": "http",
    "file": "file",
    "test": "test",
}
#: Width and height in a JPEG's header have 16 bits.
JPEG_PIXELS_MAX = 65_535
#: A scheme and its colon without both slashes, as in ``rtsp:/camera``.
_SINGLE_SLASH = re.compile(rf"(?i)({'|'.join(_SCHEMES)}):")
#: A host rather than a directory: an IP address, a name with dots and a port, or any name with a port of two to five
#: digits.
_HOST_ALONE = re.compile(
    r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?|[A-Za-z0-9][A-Za-z0-9.-]*:[0-9]{2,5}"
)
_DEVICE = re.compile(r"/dev/video[0-9]+")
#: User and password of a URL, up to the last @ in case a password holds characters that should have been encoded. It is
#: better to mask too much than too little.
_CREDENTIALS = re.compile(r"(?<=://)(?:[^/?#\s@:]*:\S*|[^/?#\s]*)@")
#: The same for a URL without its scheme: ``user:password@host``.
_BARE_CREDENTIALS = re.compile(r"(?<![^\s'\"(=,])[^\s/@:'\"(=,]+:[^\s/@]+@(?=\w)")
#: Parameters whose names suggest a secret: ``token``, ``access_token``, ``loginpas``.
_TELLING_NAME = r"[\w.%-]*(?:pass|pwd|psw|token|secret|key|auth|user|usr|login|signature|cred|session)[\w.%-]*"
_QUERY_SECRET = re.compile(rf"(?i)(?<![\w.%-])({_TELLING_NAME}|sig|sid)=[^&\s]+")
#: Shorter secrets are not searched for: masking them would hide half of a text.
_SECRET_CHARACTERS_MIN = 4


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` with the credentials of every URL in it, and each of ``secrets``, replaced by ``***``."""
    text = _QUERY_SECRET.sub(r"\1=***", _BARE_CREDENTIALS.sub("***@", _CREDENTIALS.sub("***@", text)))
    # Longer ones first: a shorter one may be part of a longer one.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def spellings(secret: str) -> set[str]:
    """``secret`` as given, URL-decoded, URL-encoded, and quoted by Python; spellings too short to search for are left
    out."""
    given = {secret, unquote(secret), quote(secret, safe=""), quote(unquote(secret), safe="")}
    # Inside a longer text that holds both kinds of quotes, Python escapes the single ones.
    given |= {repr(text)[1:-1] for text in given} | {repr(text + "'\"")[1:-4] for text in given}
    return {text for text in given if len(text) >= _SECRET_CHARACTERS_MIN}


def secrets_in(url: str) -> set[str]:
    """The parts of a URL that must never be shown: its password and its secret parameters."""
    rest = url.partition("://")[2] or url
    found = {rest.rpartition("@")[0].partition(":")[2], rest.split("/")[0].rpartition("@")[0].partition(":")[2]}
    found |= {match[0].partition("=")[2] for match in _QUERY_SECRET.finditer(url)}
    return {spelling for secret in found for spelling in spellings(secret)}


def source_kind(url: str) -> SourceKind:
    """The kind of camera that a URL names. Raises ConfigError for a scheme that no source reads."""
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
    parts = split_url(url, "url")
    if parts.netloc.lower() not in ("", "localhost"):
        raise ConfigError(f"url: {mask(parts.netloc)!r} is no part of a path; write file:///path, with three slashes")
    if "?" in url or "#" in url:
        raise ConfigError("url: write ? and # in a file's URL as %3F and %23, or give the path without file://")
    path = unquote(parts.path)
    if not path or "\0" in path:
        raise ConfigError("url names no file; write file:///path")
    return path


def forgotten_scheme(url: str) -> str:
    """The probable URL of a camera's address without its scheme, such as ``192.168.1.5/stream``; empty if it looks like
    a file's path."""
    if match := _SINGLE_SLASH.match(url):
        scheme, rest = match[1].lower(), url[match.end() :].lstrip("/")
        return f"file:///{rest}" if scheme == "file" else f"{scheme}://{rest}"
    place = url.lstrip("/") if url.startswith("//") else url
    authority = place.partition("/")[0]
    login, _, host = authority.rpartition("@")
    return f"rtsp://{place}" if _HOST_ALONE.fullmatch(host) or ":" in login else ""


class Pattern(NamedTuple):
    """A ``test://`` pattern: pixels, frames per second, kilobytes (1024) per frame, frames in all (0 = unlimited)."""

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
    parts = split_url(url, "the test URL")
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
        # An integer may be larger than any float.
        shown = f"{value:g}" if isinstance(value, float) or abs(value) < 10**9 else "(a huge number)"
        raise ConfigError(f"test URL parameter {name}={shown} is not in {low:g}..{high:g}")
    return value


def host_port(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_host(name: str) -> bool:
    """True for a name that can be resolved as a host: no label is empty or longer than 63 characters."""
    try:
        # The resolver and TLS use this encoding, and raise if it fails.
        return name.encode("idna")[:1] not in (b"", b".")
    except UnicodeError:
        return False


def is_local(host: str) -> bool:
    """True for localhost and loopback addresses; other names are not resolved and count as remote."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def split_url(url: str, what: str = "") -> SplitResult:
    """The parts of a URL. Raises ConfigError that begins with ``what``. It omits the standard library's message, which
    may quote the URL's password."""
    try:
        return urlsplit(url)
    except ValueError:
        reason = "a [ without its ]" if url.count("[") != url.count("]") else "characters that no host has"
        raise ConfigError(f"{what}{': ' if what else ''}{reason}") from None
