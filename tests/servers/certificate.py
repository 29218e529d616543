"""Certificates of a test's own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Signed(NamedTuple):
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


def self_signed(directory: Path, host: str = "localhost") -> Signed:
    """Certificate and key for a host, which is its own authority."""
    signed = Signed(directory / "cert.pem", directory / "key.pem")
    _openssl(
        "req", "-x509", *_NEW_KEY, "-days", "2", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}",
        "-keyout", signed.key, "-out", signed.certificate,
    )  # fmt: skip
    return signed


class Authority:
    """Signs certificates; ``certificate`` is what those trust who trust it."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self.certificate, self._key = directory / f"{name}.pem", directory / f"{name}.key"
        _openssl(
            "req", "-x509", *_NEW_KEY, "-days", "2", "-subj", f"/CN={name}", "-keyout", self._key,
            "-out", self.certificate,
        )  # fmt: skip

    def sign(self, name: str, host: str = "localhost", days: int = 2) -> Signed:
        """A certificate for a host, or a client; with negative ``days`` it has expired."""
        signed = Signed(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        request, extensions = self._directory / f"{name}.csr", self._directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{host}\n")
        _openssl("req", "-new", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", signed.key, "-out", request)
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
            "-days", days, "-extfile", extensions, "-out", signed.certificate,
        )  # fmt: skip
        return signed


def encrypt(key: Path, encrypted: Path) -> None:
    """The same key, behind a password."""
    _openssl("pkey", "-in", key, "-aes128", "-passout", "pass:secret", "-out", encrypted)


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
