"""The site as its supervisor started it, for ``edge-video status``: the file may say something else by now.

The supervisor leaves its configuration, without its secrets, beside the rings (``site.json``, 0600). Of each setting
there is a salted mark besides, which tells whether the file's is still the same one without showing it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from engine.config import Config, Secret, Url, given_by
from engine.errors import EngineError
from engine.shm.site import SitePaths
from engine.wire.urls import mask

_NAME = "site.json"
#: Bytes of a setting's mark: enough to tell two apart, too few to try passwords on.
_MARK_BYTES = 3
#: Settings that say nothing of how the site runs, or that cameras carry already.
_NOT_COMPARED = ("cameras", "warnings", "defaults")

#: Setting to its mark, by ``section.key``; or by key, of a camera.
Marks = dict[str, str]


class RunningSite(msgspec.Struct, frozen=True):
    """What a supervisor leaves. ``environment`` names the settings that were given in its environment."""

    config: Config
    salt: str
    settings: Marks
    cameras: dict[str, Marks]
    environment: tuple[str, ...]


def write(config: Config, environment: Mapping[str, str]) -> None:
    """Leave the site's configuration for others to see, in the supervisor. Where there is no room for it, status has to
    go by the site file."""
    salt = secrets.token_hex(8)
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
    """What the supervisor that runs the site of ``config`` has left; None where it cannot be told, as with another
    version's."""
    path: Path = SitePaths.of(config).directory / _NAME
    try:
        record = msgspec.json.decode(path.read_bytes(), type=RunningSite, dec_hook=lambda kind, text: kind(text))
        # What is derived can be refused, too.
        _ = record.config.vhost, record.config.redis_address
    except (OSError, ValueError, EngineError, RecursionError):
        return None
    return record


def differences(running: RunningSite, config: Config, environment: Mapping[str, str]) -> list[str]:
    """In what the site file says something else than what runs, a phrase each."""
    settings, cameras = _marks(config, running.salt)
    # A secret of the supervisor's environment need not be in this process's.
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
    # Found by it, and left out of the file as often as not.
    del settings["site.run_directory"]
    cameras = {
        camera.id: {key: mark(value) for key, value in msgspec.structs.asdict(camera).items()}
        for camera in config.cameras
    }
    return settings, cameras


def _masked(config: Config) -> Config:
    """The configuration without its secrets; what follows from it (vhost, addresses, kinds of cameras) is the same."""

    def plain(value: Any) -> Any:
        if isinstance(value, msgspec.Struct):
            fields = {name: plain(getattr(value, name)) for name in value.__struct_fields__}
            return msgspec.structs.replace(value, **fields)
        if isinstance(value, tuple):
            return tuple(map(plain, value))
        if isinstance(value, Secret):
            return Secret("***") if value else value
        if isinstance(value, Url):
            return Url(mask(value))
        return value

    masked: Config = plain(config)
    return msgspec.structs.replace(
        masked,
        site=msgspec.structs.replace(masked.site, run_directory=str(config.run_directory)),
        amqp=msgspec.structs.replace(masked.amqp, amqp_url=Secret(mask(config.amqp.amqp_url))),
    )
