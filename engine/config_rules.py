"""What a site file must fulfil beyond the types of its fields. Each rule raises ConfigError with the way out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.config_names import camera_label
from engine.config_servers import check_servers
from engine.errors import ConfigError, WireError
from engine.wire import keys

if TYPE_CHECKING:
    from engine.config import Camera, Config

#: Bytes that a Unix socket's path may have (sun_path less its final zero).
SOCKET_PATH_BYTES_MAX = 107
#: Bytes a camera's file name in shared memory may have: the file system's 255 less room for a prefix and an ending.
CAMERA_FILE_BYTES_MAX = 200
MIB = 2**20


def check(config: Config) -> None:
    """All rules, in the order in which a person would mend them."""
    _check_servers(config)
    _check_names(config)
    for number, camera in enumerate(config.cameras):
        label = camera_label(number, {"id": camera.id})
        try:
            _check_camera(camera, config)
        except ConfigError as error:
            raise ConfigError(f"{label}: {error}") from None


def _check_names(config: Config) -> None:
    if not config.cameras:
        raise ConfigError("no cameras; add at least one [[cameras]] with id and url")
    seen: set[str] = set()
    for camera in config.cameras:
        if camera.id in seen:
            raise ConfigError(f"camera id {camera.id!r} stands twice; ids must differ")
        seen.add(camera.id)
    if config.vhost == keys.ENGINE:
        raise ConfigError(f"vhost {keys.ENGINE!r} is reserved for the engine's own keys; use another in amqp.amqp_url")
    for what, name in (
        ("vhost", config.vhost),
        ("redis.prefix", config.prefix),
        *(("camera id", camera.id) for camera in config.cameras),
    ):
        if what != "vhost" and name in keys.RESERVED_WORDS:
            raise ConfigError(f"{what} {name!r} is a word of the engine's own keys; use another")
        try:
            keys.encode_part(name)
        except WireError as error:
            raise ConfigError(f"{what}: {error}") from None


def _check_servers(config: Config) -> None:
    if not config.redis.enabled:
        raise ConfigError("redis.enabled is false, but Redis is where frames go; set it to true or remove it")
    check_servers(config)
    socket = config.run_directory / "redis.sock"
    if config.embedded and len(str(socket).encode()) > SOCKET_PATH_BYTES_MAX:
        raise ConfigError(
            f"site.run_directory makes a socket path of {len(str(socket).encode())} bytes ({socket}); "
            f"at most {SOCKET_PATH_BYTES_MAX}: use a shorter one"
        )
    if not config.run_directory.is_absolute() or not Path(config.ring.directory).is_absolute():
        raise ConfigError("site.run_directory and ring.directory must be absolute paths")
    if "\0" in f"{config.run_directory}{config.ring.directory}":
        raise ConfigError("site.run_directory and ring.directory cannot hold a zero byte")


def _check_camera(camera: Camera, config: Config) -> None:
    if not camera.url:
        raise ConfigError("url is empty")
    if len(file_stem(camera.id)) > CAMERA_FILE_BYTES_MAX:
        raise ConfigError(f"id is too long: {len(file_stem(camera.id))} bytes encoded, at most {CAMERA_FILE_BYTES_MAX}")
    if (camera.width is None) != (camera.height is None):
        raise ConfigError("width and height go together; give both or neither")
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


def file_stem(name: str) -> str:
    """A camera's name as part of a file name: everything but letters, digits and ``_ - ~`` percent-encoded."""
    return "".join(
        chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or byte in b"_-~") else f"%{byte:02X}"
        for byte in name.encode()
    )
