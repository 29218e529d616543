"""Makes a site's configuration from TOML and the environment.

``load`` reads a file, ``parse`` reads its bytes. Sections and keys of the Go edition are accepted: those that have an
equivalent are used, one warning names the rest. Any other unknown key is an error with the nearest known name. All
errors that show without asking a server are raised here.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.config import web
from engine.config.alerts import AlertsSection
from engine.config.names import explain, map_go_keys, refuse_unknown, take_go_only
from engine.config.rules import check
from engine.config.sections import (
    AmqpSection,
    Camera,
    CameraDefaults,
    MetadataSection,
    PublisherSection,
    RedisSection,
    RingSection,
    Secret,
    SiteSection,
    Url,
    VideoSection,
    WebSection,
    WriterSection,
)
from engine.config.servers import plain_text_warnings
from engine.config.structs import Config
from engine.errors import Audience, ConfigError
from engine.errors import explain as explain_error
from engine.wire import urls

#: Environment variables that override the file, and the key that each one sets.
ENVIRONMENT = {
    "REDIS_ADDRESS": ("redis", "address"),
    "REDIS_USERNAME": ("redis", "username"),
    "REDIS_PASSWORD": ("redis", "password"),
    "REDIS_SENTINEL_PASSWORD": ("redis", "sentinel_password"),
    "REDIS_PUBLISHER_USERNAME": ("redis", "publisher_username"),
    "REDIS_PUBLISHER_PASSWORD": ("redis", "publisher_password"),
    "AMQP_URL": ("amqp", "amqp_url"),
    "AMQP_URLS": ("amqp", "amqp_urls"),
    "WEB_TOKEN": ("web", "token"),
}


def secrets_of(environment: Mapping[str, str]) -> set[str]:
    """The secrets in an environment, in each of their spellings: passwords and tokens that the engine reads there, and
    the secrets in every URL. They must not be shown."""
    secret = ("password", "token")
    passwords = [environment.get(name, "") for name, (_, key) in ENVIRONMENT.items() if key.endswith(secret)]
    found = {spelling for password in passwords for spelling in urls.spellings(password)}
    addresses = [address for value in environment.values() if "://" in value for address in {value, *value.split()}]
    return found.union(*map(urls.secrets_in, addresses))


class _OnlyDefaults(msgspec.Struct, frozen=True):
    defaults: CameraDefaults


_Struct = TypeVar("_Struct", bound=msgspec.Struct)
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "site": SiteSection,
    "redis": RedisSection,
    "amqp": AmqpSection,
    "metadata": MetadataSection,
    "ring": RingSection,
    "video": VideoSection,
    "writer": WriterSection,
    "publisher": PublisherSection,
    "web": WebSection,
    "alerts": AlertsSection,
    "defaults": CameraDefaults,
}


def load(path: str | os.PathLike[str], environment: Mapping[str, str]) -> Config:
    """Read a site file. Raises ConfigError, whose message begins with the path."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return parse(data, environment)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse(data: bytes, environment: Mapping[str, str]) -> Config:
    """Read a site file's bytes; ``environment`` may contain secrets. Raises ConfigError."""
    return from_document(read_toml(data), environment)


def read_toml(data: bytes) -> dict[str, Any]:
    """Parse TOML bytes into a document. Raises ConfigError, which names the line."""
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None
    except (ValueError, RecursionError) as error:
        lines = data.count(b"\n") + 1
        raise ConfigError(f"is not TOML: {error}".replace("end of document", f"line {lines}, end of file")) from None


def from_document(document: dict[str, Any], environment: Mapping[str, str]) -> Config:
    """The site that a parsed TOML document describes. Raises ConfigError."""
    document = {key: dict(value) if isinstance(value, dict) else value for key, value in document.items()}
    ignored = take_go_only(document)
    map_go_keys(document)
    refuse_unknown(document, SECTIONS, Camera)
    for variable, (section, key) in ENVIRONMENT.items():
        if environment.get(variable) and isinstance(document.setdefault(section, {}), dict):
            # A URL has no spaces, so they separate the items of a list.
            listed = variable == "AMQP_URLS"
            document[section][key] = environment[variable].split() if listed else environment[variable]
    if isinstance(document.get("defaults"), dict):
        # Checked before cameras inherit them, so that an error names [defaults] and not a camera.
        _convert({"defaults": document["defaults"]}, _OnlyDefaults)
    document["cameras"] = _with_defaults(document.get("cameras", []), document.get("defaults", {}))
    if ignored:
        document["warnings"] = [f"has no meaning here and is ignored: {', '.join(ignored)}"]
    config = _convert(document, Config)
    try:
        check(config)
    except ConfigError as error:
        # The caller has a site file, so the advice names its keys, in a script too.
        raise ConfigError(explain_error(error, Audience.SITE)) from None
    return msgspec.structs.replace(
        config, warnings=(*config.warnings, *plain_text_warnings(config), *web.warnings(config))
    )


def given_by(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The settings, as ``section.key``, that an environment sets."""
    return tuple(".".join(place) for variable, place in ENVIRONMENT.items() if environment.get(variable))


def _with_defaults(cameras: Any, defaults: Any) -> Any:
    if not isinstance(cameras, list) or not isinstance(defaults, dict):
        return cameras
    return [{**defaults, **camera} if isinstance(camera, dict) else camera for camera in cameras]


def _convert(document: dict[str, Any], struct: type[_Struct]) -> _Struct:
    try:
        return msgspec.convert(document, struct, dec_hook=as_text)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(str(error), document)) from None


def as_text(kind: type, value: Any) -> Any:
    """For msgspec: a Secret or Url from text. Raises TypeError for another value, in msgspec's own words."""
    if kind in (Secret, Url) and isinstance(value, str):
        return kind(value)
    raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
