"""TLS as a client: what ``tls_*`` keys mean, and what a failed handshake means. Verification cannot be turned off."""

from __future__ import annotations

import os
import re
import ssl
from typing import Any

from engine.errors import ConfigError
from engine.wire.urls import TlsFiles

#: OpenSSL's name of an error, and its text, as every library quotes them.
_SSL_ERROR = re.compile(r"\[SSL: (?P<name>[A-Z0-9_]+)\] (?P<text>.*?)(?= \(_ssl|$)", re.DOTALL)

#: What ``tls_refusal`` begins with.
TLS_FAILED = "TLS failed"


class _TellingSocket(ssl.SSLSocket):
    """With TLS 1.3 a server refuses a client's certificate after the handshake: its reason waits to be read where
    writing already fails."""

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
    """The context for connections to the server of a section. Raises ConfigError naming the key and its file."""
    if bool(files.certificate_file) != bool(files.key_file):
        raise ConfigError(
            f"{section}.tls_certificate_file and {section}.tls_key_file go together; give both or neither"
        )
    for key, path in zip(("tls_ca_file", "tls_certificate_file", "tls_key_file"), files, strict=False):
        if path and not os.access(path, os.R_OK):
            what = "cannot be read by this user" if os.path.exists(path) else "does not exist"
            raise ConfigError(f"{section}.{key}: {path} {what}")
    try:
        context = ssl.create_default_context(cafile=files.ca_file or None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{section}.tls_ca_file: {files.ca_file} is no PEM certificate: {error}") from None
    context.sslsocket_class = _TellingSocket
    if files.certificate_file:
        try:
            # A password is asked for at the terminal unless one is given.
            context.load_cert_chain(files.certificate_file, files.key_file, password="")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{section}.tls_certificate_file: {files.certificate_file} and {section}.tls_key_file: "
                f"{files.key_file} are no PEM certificate and its unencrypted key: {error}"
            ) from None
    return context


def tls_refusal(text: str, section: str) -> str:
    """Why one end refused the other's certificate, and which key to set; empty where ``text``, a library's error, tells
    of something else."""
    match = _SSL_ERROR.search(text)
    if not match or match["name"] == "UNEXPECTED_EOF_WHILE_READING":
        return ""
    name, reason = match["name"], match["text"]
    if name == "CERTIFICATE_VERIFY_FAILED":
        if "match" in reason or "not valid for" in reason:
            advice = f"set {section}.tls_server_name to a name in the server's certificate"
        elif "expired" in reason or "not yet valid" in reason:
            advice = "the server needs another certificate"
        else:
            advice = f"set {section}.tls_ca_file to the authority that signed the server's certificate"
    elif "ALERT" in name:
        advice = f"the server wants another client certificate: set {section}.tls_certificate_file and tls_key_file"
    else:
        advice = "check that the server speaks TLS on that port"
    return f"{TLS_FAILED}: {reason}; {advice}"
