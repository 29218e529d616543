"""The configuration with which a supervisor started its site, for ``edge-video status``: the file may have changed
since.

The supervisor saves its configuration, without secrets, next to the rings (``site.json``, 0600). With each setting it
saves a salted mark, which shows whether the file's value is still the same without revealing it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from engine.config import Config, Secret, Url, given_by
from engine.errors import EngineError
from engine.shm.site import SitePaths
from engine.wire.urls import mask

_NAME = "site.json"
#: Bytes of a setting's mark: enough to tell two values apart, too few to test passwords against.
_MARK_BYTES = 3
#: Sections that do not affect how the site runs, or that are compared per camera.
_NOT_COMPARED = ("cameras", "warnings", "defaults")

#: The mark of each setting: by ``section.key``, or by key for a camera.
Marks = dict[str, str]


class RunningSite(msgspec.Struct, frozen=True):
    """The record that a supervisor saves. ``environment`` names the settings that came from its environment."""

    config: Config
    salt: str
    settings: Marks
    cameras: dict[str, Marks]
    environment: tuple[str, ...]


def write(config: Config, environment: Mapping[str, str]) -> None:
    """Save the site's configuration, in the supervisor. If there is no room for it, status uses the site file."""
    salt = os.urandom(8).hex()
    settings, cameras = _marks(config, salt)
    record = RunningSite(_masked(config), salt, settings, cameras, given_by(environment))
    path = SitePaths.of(config).directory / _NAME
    draft = path.with_name(f".{_NAME}")
    path.unlink(missing_ok=True)
    draft.unlink(missing_ok=True)
    try:
        with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(msgspec.json.encode(record, enc_hook=str))
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)


def read(config: Config) -> RunningSite | None:
    """The record of the supervisor that runs the site of ``config``; None if it cannot be read, such as from another
    version."""
    path: Path = SitePaths.of(config).directory / _NAME
    try:
        record = msgspec.json.decode(path.read_bytes(), type=RunningSite, dec_hook=lambda kind, text: kind(text))
        # Derived values can be invalid, too.
        _ = record.config.vhost, record.config.redis_address
    except (OSError, ValueError, EngineError, RecursionError):
        return None
    return record


def differences(running: RunningSite, config: Config, environment: Mapping[str, str]) -> list[str]:
    """Differences between the site file and what runs, one phrase each."""
    settings, cameras = _marks(config, running.salt)
    # A secret in the supervisor's environment need not be in this process's environment.
    given = {*running.environment, *given_by(environment)}
    found = [f"{name} changed" for name in _unlike(running.settings, settings) if name not in given]
    for what, names in (
        ("added", [name for name in cameras if name not in running.cameras]),
        ("removed", [name for name in running.cameras if name not in cameras]),
    ):
        found += [f"camera {name} {what}" for name in names]
    for name, marks in cameras.items():
        if unlike := _unlike(running.cameras.get(name, marks), marks):
            found.append(f"camera {name} changed ({', '.join(unlike)})")
    return found


def _unlike(before: Marks, after: Marks) -> list[str]:
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def _marks(config: Config, salt: str) -> tuple[Marks, dict[str, Marks]]:
    def mark(value: Any) -> str:
        text = msgspec.json.encode(value, enc_hook=str)
        return hashlib.blake2b(text, digest_size=_MARK_BYTES, key=salt.encode()).hexdigest()

    settings = {}
    for section in config.__struct_fields__:
        if section not in _NOT_COMPARED:
            for key, value in msgspec.structs.asdict(getattr(config, section)).items():
                settings[f"{section}.{key}"] = mark(value)
    # The record was found by it, and many site files leave it out.
    del settings["site.run_directory"]
    cameras = {
        camera.id: {key: mark(value) for key, value in msgspec.structs.asdict(camera).items()}
        for camera in config.cameras
    }
    return settings, cameras


def _masked(config: Config) -> Config:
    """The configuration without secrets; derived values (vhost, addresses, kinds of cameras) stay the same."""

    def plain(value: Any) -> Any:
        if isinstance(value, msgspec.Struct):
            fields = {name: plain(getattr(value, name)) for name in value.__struct_fields__}
            return msgspec.structs.replace(value, **fields)
        if isinstance(value, tuple):
            return tuple(map(plain, value))
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, Secret):
            return Secret("***") if value else value
        if isinstance(value, Url):
            return Url(mask(value))
        return value

    masked: Config = plain(config)
    return msgspec.structs.replace(
        masked,
        site=msgspec.structs.replace(masked.site, run_directory=str(config.run_directory)),
        amqp=msgspec.structs.replace(
            masked.amqp,
            amqp_url=_masked_url(config.amqp.amqp_url),
            amqp_urls=tuple(map(_masked_url, config.amqp.amqp_urls)),
        ),
    )


def _masked_url(url: str) -> Secret:
    """An AMQP URL without its credentials. It still parses: a user needs a password."""
    return Secret(mask(url).replace("://***@", "://***:***@", 1))
