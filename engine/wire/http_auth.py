"""The answer to a 401 of HTTP or RTSP: an ``Authorization`` header, Basic or Digest with MD5 (RFC 7617, RFC 7616).

FFmpeg sends only those, so a camera that accepts neither does not accept the capture process either.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable

from engine.errors import WireError

_CHALLENGE = re.compile(r"(?:^|,)\s*(Basic|Digest)\s+(.*?)(?=,\s*(?:Basic|Digest)\s|$)", re.IGNORECASE | re.DOTALL)
_PARAMETER = re.compile(r'([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


def is_stale(challenges: Iterable[str]) -> bool:
    """True if the login was right, but its nonce too old: the same login is expected with a new nonce."""
    return any(
        name.lower() == "stale" and (quoted or plain).lower() == "true"
        for text in challenges
        for name, quoted, plain in _PARAMETER.findall(text)
    )


def authorization(challenges: Iterable[str], method: str, uri: str, user: str, password: str, client_nonce: str) -> str:
    """The header's value for the values of ``WWW-Authenticate``; Digest if it is offered, as it hides the password.

    Raises WireError if no challenge can be answered.
    """
    found = {match[1].lower(): match[2] for text in challenges for match in _CHALLENGE.finditer(text)}
    if "digest" in found:
        parameters = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(found["digest"])}
        return _digest(parameters, method, uri, user, password, client_nonce)
    if "basic" in found:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    raise WireError("neither Basic nor Digest is offered")


def _digest(offered: dict[str, str], method: str, uri: str, user: str, password: str, client_nonce: str) -> str:
    algorithm = offered.get("algorithm", "MD5")
    if algorithm.upper() not in ("MD5", "MD5-SESS"):
        raise WireError("Digest is offered with an algorithm other than MD5")
    realm, nonce = offered.get("realm", ""), offered.get("nonce", "")
    secret = _md5(f"{user}:{realm}:{password}")
    if algorithm.upper() == "MD5-SESS":
        secret = _md5(f"{secret}:{nonce}:{client_nonce}")
    asked = _md5(f"{method}:{uri}")
    fields = {"username": user, "realm": realm, "nonce": nonce, "uri": uri}
    bare = {}
    if "auth" in re.split(r"[\s,]+", offered.get("qop", "")):
        count = "00000001"
        fields["cnonce"] = client_nonce
        bare = {"qop": "auth", "nc": count}
        response = _md5(f"{secret}:{nonce}:{count}:{client_nonce}:auth:{asked}")
    else:
        if algorithm.upper() == "MD5-SESS":
            fields["cnonce"] = client_nonce
        response = _md5(f"{secret}:{nonce}:{asked}")
    fields["response"] = response
    if "algorithm" in offered:
        bare["algorithm"] = algorithm
    if "opaque" in offered:
        fields["opaque"] = offered["opaque"]
    return "Digest " + ", ".join([f'{k}="{v}"' for k, v in fields.items()] + [f"{k}={v}" for k, v in bare.items()])


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
