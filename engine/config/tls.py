"""TLS: what the ``tls_*`` keys mean, and why a handshake failed. A client's verification cannot be turned off."""

from __future__ import annotations

import os
import re
import ssl
from typing import Any, NamedTuple

from engine.errors import Cause, ConfigError
from engine.wire.redis_address import TlsFiles

#: OpenSSL's name and text of an error, as every library quotes them.
_SSL_ERROR = re.compile(r"\[SSL: (?P<name>[A-Z0-9_]+)\] (?P<text>.*?)(?= \(_ssl|$)", re.DOTALL)


class _TellingSocket(ssl.SSLSocket):
    """Reads the server's reason when sending fails. With TLS 1.3 a server refuses a client's certificate after the
    handshake: sending already fails while the reason has not been read yet."""

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            try:
                super().recv(1)
            except ssl.SSLError as told:
                if "ALERT" in (told.reason or ""):
                    raise told from None
            except OSError:
                pass
            raise error from None


def client_context(files: TlsFiles, section: str) -> ssl.SSLContext:
    """The context for connections to the server of a section. Raises ConfigError, which names the key and its file."""
    _check_files(files, section)
    try:
        context = ssl.create_default_context(cafile=files.ca_file or None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{files.ca_file} is no PEM certificate: {error}", setting=f"{section}.tls_ca_file") from None
    context.sslsocket_class = _TellingSocket
    if files.certificate_file:
        _load_certificate(context, files, section)
    return context


def server_context(files: TlsFiles, section: str) -> ssl.SSLContext:
    """The context for a server of ours, which shows its certificate. Raises ConfigError, which names the key and its
    file."""
    _check_files(files, section)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_certificate(context, files, section)
    return context


def _check_files(files: TlsFiles, section: str) -> None:
    if bool(files.certificate_file) != bool(files.key_file):
        raise ConfigError("they go together; give both or neither", setting=_certificate_and_key(section))
    for key, path in zip(("tls_ca_file", "tls_certificate_file", "tls_key_file"), files, strict=False):
        if path and not os.access(path, os.R_OK):
            what = "cannot be read by this user" if os.path.exists(path) else "does not exist"
            raise ConfigError(f"{path} {what}", setting=f"{section}.{key}")


def _load_certificate(context: ssl.SSLContext, files: TlsFiles, section: str) -> None:
    try:
        # Without a password argument, OpenSSL would ask for one at the terminal.
        context.load_cert_chain(files.certificate_file, files.key_file, password="")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{files.certificate_file} and {files.key_file} are no PEM certificate and its unencrypted key: {error}",
            setting=_certificate_and_key(section),
        ) from None


def _certificate_and_key(section: str) -> str:
    return f"{section}.tls_certificate_file and {section}.tls_key_file"


#: The causes that ``tls_refusal`` returns.
TLS_CAUSES = frozenset(
    {Cause.TLS_AUTHORITY, Cause.TLS_NAME, Cause.TLS_EXPIRED, Cause.TLS_CLIENT_CERTIFICATE, Cause.NOT_TLS}
)


class TlsRefusal(NamedTuple):
    """Why a handshake failed: OpenSSL's text, and the cause that follows from it."""

    reason: str
    cause: Cause


def tls_refusal(error: object) -> TlsRefusal | None:
    """Why one end refused the other's certificate; None if a library's error is about something else. Libraries pass
    OpenSSL's errors on as text."""
    match = _SSL_ERROR.search(str(error)) or _SSL_ERROR.search(repr(error))
    if not match or match["name"] == "UNEXPECTED_EOF_WHILE_READING":
        return None
    name, reason = match["name"], match["text"]
    if name == "CERTIFICATE_VERIFY_FAILED":
        if "match" in reason or "not valid for" in reason:
            return TlsRefusal(reason, Cause.TLS_NAME)
        if "expired" in reason or "not yet valid" in reason:
            return TlsRefusal(reason, Cause.TLS_EXPIRED)
        return TlsRefusal(reason, Cause.TLS_AUTHORITY)
    return TlsRefusal(reason, Cause.TLS_CLIENT_CERTIFICATE if "ALERT" in name else Cause.NOT_TLS)
