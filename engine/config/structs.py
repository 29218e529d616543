"""A site's whole configuration as one frozen struct. ``loading`` makes it from a file, ``sections`` has its parts."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from engine.config.alerts import AlertsSection
from engine.config.assignment import share_of
from engine.config.names import suggestion
from engine.config.sections import (
    AmqpSection,
    Camera,
    CameraDefaults,
    MetadataSection,
    PublisherSection,
    RedisSection,
    RingSection,
    SiteSection,
    VideoSection,
    WebSection,
    WriterSection,
)
from engine.errors import ConfigError
from engine.wire import keys, urls
from engine.wire.redis_address import (
    EMBEDDED,
    RedisAddress,
    embedded_address,
    parse_cluster,
    parse_redis_address,
    parse_sentinels,
)
from engine.wire.ring_owner import RingOwner


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole site. ``warnings`` are texts for the log."""

    cameras: tuple[Camera, ...]
    site: SiteSection = SiteSection()
    redis: RedisSection = RedisSection()
    amqp: AmqpSection = AmqpSection()
    metadata: MetadataSection = MetadataSection()
    ring: RingSection = RingSection()
    video: VideoSection = VideoSection()
    writer: WriterSection = WriterSection()
    publisher: PublisherSection = PublisherSection()
    web: WebSection = WebSection()
    alerts: AlertsSection = AlertsSection()
    defaults: CameraDefaults = CameraDefaults()
    warnings: tuple[str, ...] = ()

    @property
    def vhost(self) -> str:
        """The tenant, as used in keys, before encoding."""
        address = self.amqp.address
        return address.key_vhost if address else keys.DEFAULT_VHOST

    @property
    def prefix(self) -> str:
        """The word between vhost and camera in keys, which have hash tags if the site says so."""
        return keys.prefix_of(self.redis.prefix, tagged=self.redis.key_tags)

    @property
    def rings(self) -> tuple[tuple[str, bool], ...]:
        """The rings of the site: a camera's id, and True if it is the ring of its video."""
        frames = tuple((camera.id, False) for camera in self.cameras)
        return frames + tuple((camera.id, True) for camera in self.cameras if camera.video)

    def ring_capacity(self, *, video: bool) -> int:
        """Bytes of a camera's ring of frames, or of its video."""
        return self.video.capacity if video else self.ring.capacity

    def ttl_seconds(self, *, video: bool) -> int:
        """How long Redis keeps a frame, or an access unit."""
        return (self.video.ttl_seconds if video else None) or self.redis.ttl_seconds

    @property
    def publishes_video(self) -> bool:
        """True if finished GOPs are announced."""
        return self.publishes and self.metadata.video == "gop"

    @property
    def embedded(self) -> bool:
        """True if the site runs its own server."""
        return self.redis.address == EMBEDDED and not self.redis.sentinels and not self.redis.cluster

    @property
    def publishes(self) -> bool:
        """True if the site has a publisher process."""
        return bool(self.amqp.urls) and self.metadata.enabled

    @property
    def run_directory(self) -> Path:
        """The directory of the site's locks, sockets and logs."""
        return Path(self.site.run_directory) if self.site.run_directory else default_run_directory(self.site.name)

    @property
    def redis_address(self) -> RedisAddress:
        """Where Redis listens, with the credentials to use."""
        if self.embedded:
            return embedded_address(str(self.run_directory), self.redis.embedded_servers)
        redis = self.redis
        if redis.sentinels:
            address = parse_sentinels(
                redis.sentinels, redis.service, str(redis.sentinel_username), str(redis.sentinel_password)
            )
        elif redis.cluster:
            address = parse_cluster(redis.cluster)._replace(read_replicas=redis.read_replicas)
        else:
            address = parse_redis_address(redis.address)
        return address._replace(
            files=redis.tls_files,
            username=str(self.redis.username) or address.username,
            password=str(self.redis.password) or address.password,
        )

    @property
    def publisher_redis_address(self) -> RedisAddress:
        """The same server for the publisher, which may log in as a user with fewer rights."""
        if not self.redis.publisher_username:
            return self.redis_address
        return self.redis_address._replace(
            username=str(self.redis.publisher_username), password=str(self.redis.publisher_password) or None
        )

    @property
    def owner(self) -> RingOwner:
        """The owner of the frames in this site's rings: the names under which they are stored."""
        address = self.redis_address
        if self.embedded:
            server = EMBEDDED
        elif address.cluster:
            # Nodes come and go; the first one named stands for the cluster.
            server = f"cluster/{urls.host_port(*address.cluster[0])}"
        elif address.sentinel:
            server = f"{address.sentinel.service}/{address.database}"
        else:
            server = f"{address.path or urls.host_port(address.host, address.port)}/{address.database}"
        return RingOwner(self.vhost, self.prefix, server)

    def camera(self, identifier: str) -> Camera:
        """The camera with that id. Raises ConfigError with the nearest known id."""
        for camera in self.cameras:
            if camera.id == identifier:
                return camera
        raise ConfigError(f"no camera {identifier!r}{suggestion(identifier, [c.id for c in self.cameras])}")

    def cameras_of(self, writer: int) -> tuple[Camera, ...]:
        """The cameras whose rings a writer empties; writers count from 0."""
        return tuple(camera for camera in self.cameras if self.writer_of(camera.id) == writer)

    def writer_of(self, camera: str) -> int:
        """The writer that empties a camera's ring; the site file need not name the camera."""
        return share_of(camera, self.writer.writers)

    def publisher_of(self, camera: str) -> int:
        """The publisher, from 0, that announces a camera; the site file need not name the camera."""
        return share_of(camera, self.publisher.publishers)


def default_run_directory(name: str, user: int | None = None) -> Path:
    """The directory of a site without ``run_directory``. It depends on the user and not on the environment, so that
    every command of that user finds the site, and a second start finds the lock of the first."""
    user = os.geteuid() if user is None else user
    return (Path("/run/edge-video") if user == 0 else Path(f"/tmp/edge-video-{user}")) / name
