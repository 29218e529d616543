"""Site configuration: TOML bytes and environment to frozen structs.

``load`` reads a file, ``parse`` its bytes. Sections and keys that users of the Go edition have in their files are
accepted: what maps is used, the rest is named in one warning. Any other unknown key is an error with the nearest known
name. Everything that can be refused without touching a server is refused here.
"""

from __future__ import annotations

import os
import tomllib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from engine.config_names import explain, map_go_keys, refuse_unknown, suggestion, take_go_only
from engine.config_rules import MIB, check
from engine.config_servers import plain_text_warnings
from engine.errors import ConfigError
from engine.wire import keys, urls
from engine.wire.amqp_url import AmqpAddress, parse_amqp_url
from engine.wire.ring_owner import RingOwner

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Pixels = Annotated[int, Meta(ge=16, le=16_384)]
#: One frame in 10,000 s at least: what is slower is a mistake, and far below lie intervals that no clock can hold.
Fps = Annotated[float, Meta(ge=0.0001, le=1000)]
Quality = Annotated[int, Meta(ge=1, le=100)]
Text = Annotated[str, Meta(min_length=1)]

#: Bytes a pixel that a JPEG is reckoned with before the camera was seen: 3 bits, a busy scene at quality 90.
JPEG_BYTES_PER_PIXEL = 3 / 8


class Secret(str):
    """A string that shows as ``***`` wherever it is printed as part of something."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


class Url(str):
    """An address that shows without its credentials wherever it is printed as part of something."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(urls.mask(self))


class SiteSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[site]``: the installation's name, where it keeps its files, how it starts and stops."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")] = "site"
    run_directory: str = ""
    drain_seconds: Seconds = 10.0
    heartbeat_seconds: Seconds = 20.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class TlsKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``[redis]`` and ``[amqp]`` say of TLS, each for its own server."""

    tls_ca_file: str = ""
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    tls_server_name: str = ""

    @property
    def tls_files(self) -> urls.TlsFiles:
        """How connections are checked."""
        return urls.TlsFiles(self.tls_ca_file, self.tls_certificate_file, self.tls_key_file, self.tls_server_name)


class RedisSection(TlsKeys, frozen=True, forbid_unknown_fields=True):
    """``[redis]``: where frames are stored and for how long."""

    enabled: bool = True
    address: Url = Url(urls.EMBEDDED)
    sentinels: tuple[Url, ...] = ()
    service: str = ""
    sentinel_username: Secret = Secret()
    sentinel_password: Secret = Secret()
    username: Secret = Secret()
    password: Secret = Secret()
    publisher_username: Secret = Secret()
    publisher_password: Secret = Secret()
    ttl_seconds: Annotated[int, Meta(ge=1, le=31_536_000)] = 300
    prefix: Text = "frames"
    timeout_seconds: Seconds = 5.0
    max_memory_percent: Annotated[int, Meta(ge=1, le=95)] = 50
    persistence: Literal["none", "aof"] = "none"


class AmqpSection(TlsKeys, frozen=True, forbid_unknown_fields=True):
    """``[amqp]``: the broker; its URL's path is the tenant. Empty: metadata stays in the journals."""

    amqp_url: Secret = Secret()
    heartbeat_seconds: Annotated[int, Meta(ge=5, le=3600)] = 30
    timeout_seconds: Seconds = 10.0

    @property
    def address(self) -> AmqpAddress | None:
        """The broker that the URL names; None where it is empty. Raises ConfigError."""
        return parse_amqp_url(self.amqp_url) if self.amqp_url else None


class MetadataSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[metadata]``: what is announced, and where."""

    enabled: bool = True
    exchange: Text = "camera.metadata"
    exchange_durable: bool = True
    routing_key: Text = "camera.metadata.event"
    format: Literal["event", "batch"] = "event"
    batch_max: Annotated[int, Meta(ge=1, le=4096)] = 32

    @property
    def batch_routing_key(self) -> str:
        """``camera.metadata.batch``, or the like of another routing key."""
        return f"{self.routing_key.removesuffix('.event')}.batch"

    @property
    def status_routing_key(self) -> str:
        """``camera.metadata.event.status``, or the like of another routing key."""
        return f"{self.routing_key}.status"


class RingSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[ring]``: shared memory of each camera, and which frames an outage of Redis may cost."""

    capacity_mb: Annotated[int, Meta(ge=1, le=16_384)] = 8
    overflow: Literal["drop-oldest", "drop-newest"] = "drop-oldest"
    directory: Text = "/dev/shm"

    @property
    def capacity(self) -> int:
        """Bytes of one camera's ring."""
        return self.capacity_mb * MIB


class WriterSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[writer]``: processes that share the cameras, and the bounds of one round trip."""

    writers: Annotated[int, Meta(ge=1, le=64)] = 1
    batch_frames: Annotated[int, Meta(ge=1, le=256)] = 64
    batch_kb: Annotated[int, Meta(ge=1, le=65_536)] = 1024


class PublisherSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[publisher]``: messages that may be unconfirmed at a time."""

    window: Annotated[int, Meta(ge=1, le=10_000)] = 512


class CameraDefaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[defaults]``: what a camera has where it does not say otherwise. None: as the camera sends."""

    fps: Fps | None = None
    quality: Quality = 85
    width: Pixels | None = None
    height: Pixels | None = None
    transport: Literal["tcp", "udp"] = "tcp"
    loop: bool = False
    encoding: Literal["auto", "jpeg"] = "auto"
    stall_seconds: Annotated[float, Meta(ge=0.5, le=3600)] = 10.0
    open_timeout_seconds: Annotated[float, Meta(ge=0.5, le=3600)] = 10.0


class Camera(CameraDefaults, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[[cameras]]``: one camera, with the site's defaults filled in."""

    id: Text
    url: Url
    name: str = ""

    @property
    def kind(self) -> urls.SourceKind:
        """Which kind of source reads it."""
        return urls.source_kind(self.url)

    @property
    def frame_bytes(self) -> int:
        """Bytes that its largest frame is reckoned with; 0 where nothing is known before it was seen."""
        if self.kind == "test":
            return urls.parse_test_url(self.url).kb * 1024
        if self.width and self.height:
            return int(self.width * self.height * JPEG_BYTES_PER_PIXEL)
        return 0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole site. ``warnings`` are sentences for the log."""

    cameras: tuple[Camera, ...]
    site: SiteSection = SiteSection()
    redis: RedisSection = RedisSection()
    amqp: AmqpSection = AmqpSection()
    metadata: MetadataSection = MetadataSection()
    ring: RingSection = RingSection()
    writer: WriterSection = WriterSection()
    publisher: PublisherSection = PublisherSection()
    defaults: CameraDefaults = CameraDefaults()
    warnings: tuple[str, ...] = ()

    @property
    def vhost(self) -> str:
        """The tenant, as it stands in keys before encoding."""
        address = self.amqp.address
        return address.key_vhost if address else keys.DEFAULT_VHOST

    @property
    def prefix(self) -> str:
        """The word between vhost and camera in keys."""
        return self.redis.prefix

    @property
    def embedded(self) -> bool:
        """True where the site brings its own server."""
        return self.redis.address == urls.EMBEDDED and not self.redis.sentinels

    @property
    def publishes(self) -> bool:
        """True where a publisher process runs."""
        return bool(self.amqp.amqp_url) and self.metadata.enabled

    @property
    def run_directory(self) -> Path:
        """Where locks, sockets and logs of the site are."""
        return Path(self.site.run_directory) if self.site.run_directory else default_run_directory(self.site.name)

    @property
    def redis_address(self) -> urls.RedisAddress:
        """Where Redis listens, with the credentials that count."""
        if self.embedded:
            return urls.RedisAddress("", 0, str(self.run_directory / "redis.sock"), False, 0, None, None)
        redis = self.redis
        if redis.sentinels:
            address = urls.parse_sentinels(
                redis.sentinels, redis.service, str(redis.sentinel_username), str(redis.sentinel_password)
            )
        else:
            address = urls.parse_redis_address(redis.address)
        return address._replace(
            files=redis.tls_files,
            username=str(self.redis.username) or address.username,
            password=str(self.redis.password) or address.password,
        )

    @property
    def publisher_redis_address(self) -> urls.RedisAddress:
        """The same server for the publisher, which may be a user with fewer rights."""
        if not self.redis.publisher_username:
            return self.redis_address
        return self.redis_address._replace(
            username=str(self.redis.publisher_username), password=str(self.redis.publisher_password) or None
        )

    @property
    def owner(self) -> RingOwner:
        """Whose frames this site's rings hold, by the names that they are stored under."""
        address = self.redis_address
        if self.embedded:
            server = urls.EMBEDDED
        elif address.sentinel:
            server = f"{address.sentinel.service}/{address.database}"
        else:
            server = f"{address.path or urls.host_port(address.host, address.port)}/{address.database}"
        return RingOwner(self.vhost, self.prefix, server)

    def camera(self, identifier: str) -> Camera:
        """The camera of that id. Raises ConfigError with the nearest one."""
        for camera in self.cameras:
            if camera.id == identifier:
                return camera
        raise ConfigError(f"no camera {identifier!r}{suggestion(identifier, [c.id for c in self.cameras])}")

    def cameras_of(self, writer: int) -> tuple[Camera, ...]:
        """The cameras whose rings a writer drains; writers count from 0."""
        return tuple(camera for camera in self.cameras if self.writer_of(camera.id) == writer)

    def writer_of(self, camera: str) -> int:
        """The writer that drains the ring of a camera, whether the site file names it or not.

        It follows from the camera's id alone, so that a camera that is added or removed moves no other to another
        writer.
        """
        return zlib.crc32(camera.encode()) % self.writer.writers


#: Environment variables that win over the file, and the key each one sets.
_ENVIRONMENT = {
    "REDIS_ADDRESS": ("redis", "address"),
    "REDIS_USERNAME": ("redis", "username"),
    "REDIS_PASSWORD": ("redis", "password"),
    "REDIS_SENTINEL_PASSWORD": ("redis", "sentinel_password"),
    "REDIS_PUBLISHER_USERNAME": ("redis", "publisher_username"),
    "REDIS_PUBLISHER_PASSWORD": ("redis", "publisher_password"),
    "AMQP_URL": ("amqp", "amqp_url"),
}


def secrets_of(environment: Mapping[str, str]) -> set[str]:
    """What of an environment must not be shown, in each of its spellings: passwords that the engine reads there, and
    the secrets of every URL."""
    passwords = [environment.get(name, "") for name, (_, key) in _ENVIRONMENT.items() if key.endswith("password")]
    found = {spelling for password in passwords for spelling in urls.spellings(password)}
    return found.union(*(urls.secrets_in(value) for value in environment.values() if "://" in value))


class _OnlyDefaults(msgspec.Struct, frozen=True):
    defaults: CameraDefaults


_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "site": SiteSection,
    "redis": RedisSection,
    "amqp": AmqpSection,
    "metadata": MetadataSection,
    "ring": RingSection,
    "writer": WriterSection,
    "publisher": PublisherSection,
    "defaults": CameraDefaults,
}


def load(path: str | os.PathLike[str], environment: Mapping[str, str]) -> Config:
    """The site that a file describes. Raises ConfigError, whose message begins with the path."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return parse(data, environment)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse(data: bytes, environment: Mapping[str, str]) -> Config:
    """The site that TOML bytes describe; ``environment`` may carry secrets. Raises ConfigError."""
    return from_document(read_toml(data), environment)


def read_toml(data: bytes) -> dict[str, Any]:
    """The document that TOML bytes are. Raises ConfigError naming the line."""
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None
    except (ValueError, RecursionError) as error:
        lines = data.count(b"\n") + 1
        raise ConfigError(f"is not TOML: {error}".replace("end of document", f"line {lines}, end of file")) from None


def from_document(document: dict[str, Any], environment: Mapping[str, str]) -> Config:
    """The site that a TOML document, already read, describes. Raises ConfigError."""
    document = {key: dict(value) if isinstance(value, dict) else value for key, value in document.items()}
    ignored = take_go_only(document)
    map_go_keys(document)
    refuse_unknown(document, _SECTIONS, Camera)
    for variable, (section, key) in _ENVIRONMENT.items():
        if environment.get(variable) and isinstance(document.setdefault(section, {}), dict):
            document[section][key] = environment[variable]
    if isinstance(document.get("defaults"), dict):
        # Before cameras take them over, so that what is wrong is shown where it stands.
        _convert({"defaults": document["defaults"]}, _OnlyDefaults)
    document["cameras"] = _with_defaults(document.get("cameras", []), document.get("defaults", {}))
    if ignored:
        document["warnings"] = [f"has no meaning here and is ignored: {', '.join(ignored)}"]
    config = _convert(document, Config)
    check(config)
    return msgspec.structs.replace(config, warnings=(*config.warnings, *plain_text_warnings(config)))


def default_run_directory(name: str, user: int | None = None) -> Path:
    """Where a site without ``run_directory`` keeps its files. It follows from the user alone, whatever the environment
    says, so that every command of that user finds the site, and a second start meets the lock of the first."""
    user = os.geteuid() if user is None else user
    return (Path("/run/edge-video") if user == 0 else Path(f"/tmp/edge-video-{user}")) / name


def given_by(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The settings, as ``section.key``, that an environment decides."""
    return tuple(".".join(place) for variable, place in _ENVIRONMENT.items() if environment.get(variable))


def _with_defaults(cameras: Any, defaults: Any) -> Any:
    if not isinstance(cameras, list) or not isinstance(defaults, dict):
        return cameras
    return [{**defaults, **camera} if isinstance(camera, dict) else camera for camera in cameras]


def _convert(document: dict[str, Any], struct: type[_Struct]) -> _Struct:
    try:
        return msgspec.convert(document, struct, dec_hook=_text)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(str(error), document)) from None


def _text(kind: type, value: Any) -> Any:
    if kind in (Secret, Url) and isinstance(value, str):
        return kind(value)
    raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
