"""What a site file must satisfy beyond the types of its fields. Each rule raises ConfigError with the way out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from engine.config.alerts import check_alerts
from engine.config.names import camera_label
from engine.config.sections import MIB, Camera
from engine.config.servers import check_servers
from engine.config.structs import Config
from engine.config.web import WEB_FILES, check_web
from engine.errors import ConfigError, WireError
from engine.wire import keys, urls
from engine.wire.amqp import check_name

#: Most bytes of a Unix socket's path (sun_path without its final zero).
SOCKET_PATH_BYTES_MAX = 107
#: Most bytes of a camera's file name in shared memory: the file system's 255 less room for a prefix and an ending.
CAMERA_FILE_BYTES_MAX = 200
#: Most bytes of ``redis.prefix`` in UTF-8, because every key contains it.
PREFIX_BYTES_MAX = 255


def check(config: Config) -> None:
    """Check all rules, in the order in which a person would fix them."""
    for key, text in _texts(config):
        _check_text(key, text)
    _check_servers(config)
    _check_messages(config)
    _check_names(config)
    for number, camera in enumerate(config.cameras):
        label = camera_label(number, {"id": camera.id})
        try:
            _check_camera(camera, config)
        except ConfigError as error:
            raise ConfigError(f"{label}: {error}") from None


def _texts(value: msgspec.Struct, where: str = "") -> Iterator[tuple[str, str]]:
    """Every string of a configuration, with its key as in the file."""
    for name in value.__struct_fields__:
        found = getattr(value, name)
        items: Iterable[tuple[str, object]] = [("", found)]
        if isinstance(found, tuple):
            items = [(f"[{number}]", item) for number, item in enumerate(found)]
        elif isinstance(found, dict):
            items = [(f".{key}", text) for key, value in found.items() for text in (key, value)]
        for place, item in items:
            key = f"{where}{name}{place}"
            if isinstance(item, msgspec.Struct):
                yield from _texts(item, f"{key}.")
            elif isinstance(item, str):
                yield key, item


def _check_text(key: str, text: str) -> None:
    """Paths, names, addresses and logins must not contain a zero byte and must be UTF-8. The file is UTF-8, so other
    bytes come from the environment or the command line."""
    if "\0" in text:
        raise ConfigError(f"{key} holds a zero byte (\\u0000); remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{key} is not UTF-8, as the environment or the command line gives it") from None


def _check_path(key: str, path: str) -> None:
    """Refuse a path whose characters this process's locale cannot encode for the kernel."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{key}: {path!r} cannot be written in this process's encoding ({error.encoding}); "
            "run it with LC_ALL=C.UTF-8, or use another path"
        ) from None


def _check_messages(config: Config) -> None:
    """Names must fit in AMQP, also those derived from ``metadata.routing_key``."""
    metadata = config.metadata
    check_name(metadata.exchange, "metadata.exchange")
    for what, name in (
        ("metadata.routing_key", metadata.routing_key),
        ("metadata.routing_key with .batch behind it", metadata.batch_routing_key),
        ("metadata.routing_key with .status behind it", metadata.status_routing_key),
        ("metadata.routing_key with .video behind it", metadata.video_routing_key),
        ("metadata.routing_key with .system behind it", metadata.system_routing_key),
    ):
        check_name(name, what)


def _check_names(config: Config) -> None:
    if not config.cameras:
        raise ConfigError("no cameras; add at least one [[cameras]] with id and url")
    seen: set[str] = set()
    for camera in config.cameras:
        if camera.id in seen:
            raise ConfigError(f"camera id {camera.id!r} is used twice; ids must differ")
        seen.add(camera.id)
    named = [("redis.prefix", config.prefix), *(("camera id", camera.id) for camera in config.cameras)]
    for what, name in named:
        if name in keys.RESERVED_WORDS:
            raise ConfigError(f"{what} {name!r} is a word of the engine's own keys; use another")
    for what, name in (("vhost", config.vhost), *named):
        try:
            keys.check_names(name, tagged=config.redis.key_tags)
        except WireError as error:
            raise ConfigError(f"{what}: {error}") from None
    for camera in config.cameras:
        if keys.matched_by_frames(config.prefix, camera.id):
            raise ConfigError(
                f"camera id {camera.id!r} looks like a time stamp, and redis.prefix {config.prefix!r} has a slash: a "
                "pattern for its frames would match other cameras' video; use another id, or a prefix without a slash"
            )
    if (size := len(config.prefix.encode())) > PREFIX_BYTES_MAX:
        raise ConfigError(f"redis.prefix has {size} bytes in UTF-8, at most {PREFIX_BYTES_MAX}; use a shorter one")


def _check_servers(config: Config) -> None:
    if not config.redis.enabled:
        raise ConfigError("redis.enabled is false, but frames are stored in Redis; set it to true or remove it")
    for key, path in (
        ("site.run_directory", config.site.run_directory),
        ("ring.directory", config.ring.directory),
        *((f"redis.tls_{key}", path) for key, path in config.redis.tls_files._asdict().items()),
        *((f"amqp.tls_{key}", path) for key, path in config.amqp.tls_files._asdict().items()),
        *((f"web.{key}", getattr(config.web, key)) for key in WEB_FILES),
    ):
        _check_path(key, path)
    check_servers(config)
    check_web(config)
    check_alerts(config.alerts)
    servers = config.redis.embedded_servers
    socket = config.run_directory / ("redis.sock" if servers == 1 else f"redis-{servers}.sock")
    if config.embedded and (size := len(os.fsencode(socket))) > SOCKET_PATH_BYTES_MAX:
        raise ConfigError(
            f"site.run_directory makes a socket path of {size} bytes ({socket}); "
            f"at most {SOCKET_PATH_BYTES_MAX}: use a shorter one"
        )
    if not config.run_directory.is_absolute() or not Path(config.ring.directory).is_absolute():
        raise ConfigError("site.run_directory and ring.directory must be absolute paths")


def _check_camera(camera: Camera, config: Config) -> None:
    _check_url(camera.url)
    if len(file_stem(camera.id)) > CAMERA_FILE_BYTES_MAX:
        raise ConfigError(f"id is too long: {len(file_stem(camera.id))} bytes encoded, at most {CAMERA_FILE_BYTES_MAX}")
    if (camera.width is None) != (camera.height is None):
        raise ConfigError("width and height go together; give both or neither")
    if camera.decode == "none" and not camera.video:
        raise ConfigError(
            'decode = "none" makes no JPEGs, and video is false: nothing would be stored; set video = true'
        )
    if camera.video and camera.kind in ("test", "device"):
        raise ConfigError(f"video = true is for cameras that send H.264 or H.265; this one is a {camera.kind}")
    need = 2 * camera.frame_bytes
    if need > config.ring.capacity:
        raise ConfigError(
            f"a frame of {camera.frame_bytes:,} bytes does not fit in half a ring of {config.ring.capacity:,}; "
            f"raise ring.capacity_mb to {-(-need // MIB)} or more"
        )
    if config.site.heartbeat_seconds <= max(camera.stall_seconds, camera.open_timeout_seconds):
        raise ConfigError(
            f"stall_seconds {camera.stall_seconds:g} and open_timeout_seconds {camera.open_timeout_seconds:g} must be "
            f"less than site.heartbeat_seconds {config.site.heartbeat_seconds:g}, or a waiting camera is killed as hung"
        )


def _check_url(url: str) -> None:
    if not url:
        raise ConfigError("url is empty")
    if urls.source_kind(url) != "file":
        return
    path = urls.file_path(url)
    _check_path("url", path)
    # A file of such a name may exist nevertheless.
    if (meant := urls.forgotten_scheme(url)) and not os.path.exists(path):
        raise ConfigError(
            f"url {urls.mask(url)!r} has no scheme, and there is no such file; "
            f"write {urls.mask(meant)!r} for a camera's address, {f'./{urls.mask(url)}'!r} for a file"
        )


def file_stem(name: str) -> str:
    """A camera's name as part of a file name: all but letters, digits and ``_ - ~`` is percent-encoded."""
    return "".join(
        chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or byte in b"_-~") else f"%{byte:02X}"
        for byte in name.encode()
    )
