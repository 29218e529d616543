"""The sections of a site file as frozen structs, each with the defaults of its keys."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from engine.wire import urls
from engine.wire.amqp_url import AmqpAddress, parse_amqp_url
from engine.wire.listen import ListenAddress, parse_listen
from engine.wire.redis_address import EMBEDDED, TlsFiles

MIB = 2**20
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Pixels = Annotated[int, Meta(ge=16, le=16_384)]
#: At least one frame in 10,000 s: a slower rate is a mistake, and far slower ones overflow clocks.
Fps = Annotated[float, Meta(ge=0.0001, le=1000)]
Quality = Annotated[int, Meta(ge=1, le=100)]
Text = Annotated[str, Meta(min_length=1)]

#: Bytes per pixel assumed for a JPEG before the camera was observed: 3 bits, a busy scene at quality 90.
JPEG_BYTES_PER_PIXEL = 3 / 8


class Secret(str):
    """A string whose ``repr`` is ``***``, so that structs print without it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


class Url(str):
    """An address whose ``repr`` has no credentials, so that structs print without them."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(urls.mask(self))


#: What a site's name is like: it is part of file names, of keys and of messages.
SITE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z"


class SiteSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[site]``: the site's name, its directory for files, how it starts and stops."""

    name: Annotated[str, Meta(pattern=SITE_NAME)] = "site"
    run_directory: str = ""
    drain_seconds: Seconds = 10.0
    heartbeat_seconds: Seconds = 20.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class TlsKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """TLS keys of ``[redis]`` and ``[amqp]``, each for its own server."""

    tls_ca_file: str = ""
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    tls_server_name: str = ""

    @property
    def tls_files(self) -> TlsFiles:
        """The files and the server name that TLS connections use."""
        return TlsFiles(self.tls_ca_file, self.tls_certificate_file, self.tls_key_file, self.tls_server_name)


class RedisSection(TlsKeys, frozen=True, forbid_unknown_fields=True):
    """``[redis]``: which server stores frames, and for how long."""

    enabled: bool = True
    address: Url = Url(EMBEDDED)
    sentinels: tuple[Url, ...] = ()
    service: str = ""
    cluster: tuple[Url, ...] = ()
    read_replicas: bool = False
    sentinel_username: Secret = Secret()
    sentinel_password: Secret = Secret()
    username: Secret = Secret()
    password: Secret = Secret()
    publisher_username: Secret = Secret()
    publisher_password: Secret = Secret()
    ttl_seconds: Annotated[int, Meta(ge=1, le=31_536_000)] = 300
    embedded_servers: Annotated[int, Meta(ge=1, le=64)] = 1
    prefix: Text = "frames"
    key_tags: bool = False
    timeout_seconds: Seconds = 5.0
    max_memory_percent: Annotated[int, Meta(ge=1, le=95)] = 50
    persistence: Literal["none", "aof"] = "none"


class AmqpSection(TlsKeys, frozen=True, forbid_unknown_fields=True):
    """``[amqp]``: the broker, or the nodes of its cluster. The path of their URLs is the tenant. Without a URL,
    metadata stays in the journals."""

    amqp_url: Secret = Secret()
    amqp_urls: tuple[Secret, ...] = ()
    heartbeat_seconds: Annotated[int, Meta(ge=5, le=3600)] = 30
    timeout_seconds: Seconds = 10.0

    @property
    def urls(self) -> tuple[Secret, ...]:
        """The URLs of all nodes, in the order in which they are tried."""
        return (self.amqp_url,) if self.amqp_url else self.amqp_urls

    @property
    def addresses(self) -> tuple[AmqpAddress, ...]:
        """The nodes that the URLs name. Raises ConfigError."""
        if self.amqp_url:
            return (parse_amqp_url(self.amqp_url),)
        return tuple(parse_amqp_url(url, f"amqp.amqp_urls[{place}]") for place, url in enumerate(self.amqp_urls))

    @property
    def address(self) -> AmqpAddress | None:
        """The first node; None if no URL is set. Raises ConfigError."""
        return next(iter(self.addresses), None)


class MetadataSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[metadata]``: what is announced, and on which exchange."""

    enabled: bool = True
    exchange: Text = "camera.metadata"
    exchange_durable: bool = True
    routing_key: Text = "camera.metadata.event"
    format: Literal["event", "batch"] = "event"
    batch_max: Annotated[int, Meta(ge=1, le=4096)] = 32
    video: Literal["none", "gop"] = "none"

    @property
    def video_routing_key(self) -> str:
        """``camera.metadata.event.video``, or the equivalent for another routing key."""
        return f"{self.routing_key}.video"

    @property
    def batch_routing_key(self) -> str:
        """``camera.metadata.batch``, or the equivalent for another routing key."""
        return f"{self.routing_key.removesuffix('.event')}.batch"

    @property
    def system_routing_key(self) -> str:
        """``camera.metadata.event.system``, or the equivalent for another routing key: alerts."""
        return f"{self.routing_key}.system"

    @property
    def status_routing_key(self) -> str:
        """``camera.metadata.event.status``, or the equivalent for another routing key."""
        return f"{self.routing_key}.status"


class RingSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[ring]``: shared memory of each camera, and which frames are dropped when an outage of Redis fills it."""

    capacity_mb: Annotated[int, Meta(ge=1, le=16_384)] = 8
    overflow: Literal["drop-oldest", "drop-newest"] = "drop-oldest"
    directory: Text = "/dev/shm"

    @property
    def capacity(self) -> int:
        """Bytes of one camera's ring."""
        return self.capacity_mb * MIB


class VideoSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[video]``: how long access units of cameras with ``video = true`` are kept (None: as frames), and the shared
    memory of each."""

    ttl_seconds: Annotated[int, Meta(ge=1, le=31_536_000)] | None = None
    capacity_mb: Annotated[int, Meta(ge=1, le=16_384)] = 8

    @property
    def capacity(self) -> int:
        """Bytes of one camera's video ring."""
        return self.capacity_mb * MIB


class WriterSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[writer]``: processes that share the cameras, the bounds of one round trip, and how long a writer whose frames
    come faster than ``linger_ms`` waits after each, to store the next ones together."""

    writers: Annotated[int, Meta(ge=1, le=64)] = 1
    batch_frames: Annotated[int, Meta(ge=1, le=256)] = 64
    batch_kb: Annotated[int, Meta(ge=1, le=65_536)] = 1024
    linger_ms: Annotated[float, Meta(ge=0, le=100)] = 2.0


class PublisherSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[publisher]``: processes that share the cameras, and the number of messages that may be unconfirmed at a time
    in each."""

    publishers: Annotated[int, Meta(ge=1, le=64)] = 1
    window: Annotated[int, Meta(ge=1, le=10_000)] = 512


class WebSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[web]``: where the HTTP interface listens (nowhere if ``listen`` is empty), who may read it, and its TLS
    certificate. ``tenants`` has the token of each vhost whose readers see that vhost only. ``url`` is the address at
    which others reach it."""

    listen: str = "127.0.0.1:8080"
    url: str = ""
    token: Secret = Secret()
    token_file: str = ""
    tenants: dict[str, Secret] = {}
    tenants_file: str = ""
    tls_certificate_file: str = ""
    tls_key_file: str = ""

    @property
    def address(self) -> ListenAddress:
        """Where to listen. Raises ConfigError."""
        return parse_listen(self.listen)


class CameraDefaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[defaults]``: values for cameras that do not set their own. None: as the camera sends."""

    fps: Fps | None = None
    quality: Quality = 85
    width: Pixels | None = None
    height: Pixels | None = None
    transport: Literal["tcp", "udp"] = "tcp"
    loop: bool = False
    encoding: Literal["auto", "jpeg"] = "auto"
    decode: Literal["auto", "all", "key", "none"] = "auto"
    video: bool = False
    stall_seconds: Annotated[float, Meta(ge=0.5, le=3600)] = 10.0
    open_timeout_seconds: Annotated[float, Meta(ge=0.5, le=3600)] = 10.0


class Camera(CameraDefaults, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[[cameras]]``: one camera, with ``[defaults]`` filled in."""

    id: Text
    url: Url
    name: str = ""

    @property
    def kind(self) -> urls.SourceKind:
        """The kind of source that reads it."""
        return urls.source_kind(self.url)

    @property
    def frame_bytes(self) -> int:
        """Expected bytes of its largest frame; 0 if the site file does not tell."""
        if self.kind == "test":
            return urls.parse_test_url(self.url).kb * 1024
        if self.width and self.height:
            return int(self.width * self.height * JPEG_BYTES_PER_PIXEL)
        return 0
