"""Rules of ``[web]``: where it may listen without a token, the tokens, and its certificate."""

from __future__ import annotations

import os
import stat
import tomllib
from typing import TYPE_CHECKING, NamedTuple

from engine.config.sections import WebSection
from engine.config.structs import Config
from engine.errors import ConfigError, WireError
from engine.wire import keys
from engine.wire.api_url import parse_api_url
from engine.wire.redis_address import TlsFiles

if TYPE_CHECKING:
    import ssl

#: Keys of ``[web]`` that name files.
WEB_FILES = ("token_file", "tenants_file", "tls_certificate_file", "tls_key_file")
#: Least characters of a token. 16 random letters and digits are 95 bits, which nobody guesses over a network.
TOKEN_CHARACTERS_MIN = 16
#: Most characters of a token: it is sent with each request, whose header is bounded.
TOKEN_CHARACTERS_MAX = 512
#: Most bytes of a file of tokens.
_FILE_BYTES_MAX = 2**20
_HOW = "make one with: openssl rand -hex 24"


class Tokens(NamedTuple):
    """The tokens of an HTTP interface: the operator's (empty: none), and one for each vhost that has one."""

    operator: str
    tenants: dict[str, str]


def check_web(config: Config) -> None:
    """Check that the web role can begin. Raises ConfigError with the way out."""
    web = config.web
    if web.url:
        parse_api_url(web.url, "web.url")
    if not web.listen:
        return
    if not read_tokens(web).operator and not web.address.private:
        raise ConfigError(
            f"web.listen {web.listen!r} can be reached from other machines, so it needs a token: set web.token_file, "
            f"web.token or WEB_TOKEN ({_HOW}), or listen on 127.0.0.1"
        )
    if web.tls_certificate_file or web.tls_key_file:
        web_context(web)


def warnings(config: Config) -> list[str]:
    """One warning if tokens and pictures would cross a network unencrypted."""
    web = config.web
    if not web.listen or web.address.private or web.tls_certificate_file:
        return []
    return [
        f"tokens and pictures leave web.listen {web.listen} in plain text; set web.tls_certificate_file and "
        "web.tls_key_file, or listen on 127.0.0.1 behind a proxy that speaks TLS"
    ]


def read_tokens(web: WebSection) -> Tokens:
    """The tokens of the section and of its files. Raises ConfigError, which shows no token."""
    if web.token and web.token_file:
        raise ConfigError("web.token (or WEB_TOKEN) and web.token_file are both set; remove one of them")
    operator = str(web.token)
    if web.token_file:
        operator = _read_private("web.token_file", web.token_file).strip()
        if not operator:
            raise ConfigError(f"web.token_file: {web.token_file} is empty; {_HOW}")
    named = {f"web.tenants.{vhost}": (vhost, str(token)) for vhost, token in web.tenants.items()}
    if web.tenants_file:
        for vhost, token in _read_tenants(web.tenants_file).items():
            named.setdefault(f"web.tenants_file: {vhost}", (vhost, token))
    if operator:
        _check_token("web.token_file" if web.token_file else "web.token", operator)
    tenants: dict[str, str] = {}
    taken = {operator: "the operator"}
    for key, (vhost, token) in named.items():
        name = keys.DEFAULT_VHOST if vhost == "/" else vhost
        if name == keys.ENGINE:
            raise ConfigError(f"{key}: vhost {keys.ENGINE!r} is reserved for the engine's own keys")
        try:
            keys.encode_part(name)
        except WireError as error:
            raise ConfigError(f"{key}: {error}") from None
        _check_token(key, token)
        if token in taken:
            raise ConfigError(f"{key}: the token is also that of {taken[token]}; tokens must differ")
        if name in tenants:
            raise ConfigError(f"{key}: vhost {name!r} has two tokens; remove one")
        taken[token] = f"vhost {name!r}"
        tenants[name] = token
    return Tokens(operator, tenants)


def web_context(web: WebSection) -> ssl.SSLContext:
    """The TLS context of the HTTP interface. Raises ConfigError, which names the key and its file."""
    # Loads OpenSSL, which few site files need.
    from engine.config.tls import server_context

    files = TlsFiles(certificate_file=web.tls_certificate_file, key_file=web.tls_key_file)
    return server_context(files, "web")


def _check_token(key: str, token: str) -> None:
    if not TOKEN_CHARACTERS_MIN <= len(token) <= TOKEN_CHARACTERS_MAX:
        raise ConfigError(
            f"{key}: a token has {TOKEN_CHARACTERS_MIN} to {TOKEN_CHARACTERS_MAX} characters, not {len(token)}; {_HOW}"
        )
    if not all("!" <= character <= "~" for character in token):
        raise ConfigError(f"{key}: a token is of visible ASCII characters without spaces; {_HOW}")


def _read_tenants(path: str) -> dict[str, str]:
    """``vhost = "token"`` of each line of a TOML file."""
    try:
        found = tomllib.loads(_read_private("web.tenants_file", path))
    except (ValueError, RecursionError) as error:
        # Its text quotes a place and a character, never a token.
        raise ConfigError(f'web.tenants_file: {path} is not TOML with lines vhost = "token": {error}') from None
    for vhost, token in found.items():
        if not isinstance(token, str):
            raise ConfigError(f'web.tenants_file: {path}: {vhost} is not vhost = "token"')
    return found


def _read_private(key: str, path: str) -> str:
    """The text of a file that others must not be able to read."""
    try:
        # Without waiting for somebody to write, should it be a FIFO.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"{key}: {path} is no regular file")
            if stat.S_IMODE(mode) & 0o007:
                raise ConfigError(f"{key}: everybody may read or write {path} (mode {mode & 0o777:04o}); chmod 600 it")
            return os.read(descriptor, _FILE_BYTES_MAX).decode()
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{key}: {path} is not UTF-8") from None
