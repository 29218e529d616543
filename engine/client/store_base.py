"""The base of ``FrameStore`` and ``AsyncFrameStore``: which server, and which tenant's frames and video."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Self, TypedDict, Unpack

from engine.client.journal_queries import checked_tenant
from engine.client.payloads import CHUNK_BYTES
from engine.client.queries import Queries
from engine.client.tail import TAIL_BLOCK_MS
from engine.client.times import When
from engine.client.video_queries import VideoQueries
from engine.config import load
from engine.config.tls import client_context
from engine.errors import ConfigError, QueryError
from engine.wire import redis_address
from engine.wire.keys import TaggedPrefix

#: Seconds that a server may take to answer.
TIMEOUT_SECONDS = 5.0
#: Where a tail begins: at a time, after the ``position`` of an earlier tail, or (None) now.
Since = When | Mapping[str, str] | None


class StoreOptions(TypedDict, total=False):
    """The options of ``from_site``. See the constructor."""

    timeout_seconds: float
    chunk_bytes: int
    username: str | None
    password: str | None
    tls_files: redis_address.TlsFiles
    read_replicas: bool | None


class StoreBase:
    """The constructor of both stores. Subclasses connect."""

    def __init__(
        self,
        url: str | redis_address.RedisAddress = "",
        vhost: str = "default",
        prefix: str = "frames",
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        chunk_bytes: int = CHUNK_BYTES,
        cameras: Iterable[str] = (),
        key_tags: bool = False,
        sentinels: Sequence[str] = (),
        service: str = "",
        cluster: Sequence[str] = (),
        read_replicas: bool | None = None,
        username: str | None = None,
        password: str | None = None,
        sentinel_username: str | None = None,
        sentinel_password: str | None = None,
        tls_files: redis_address.TlsFiles = redis_address.SYSTEM_TLS,
    ) -> None:
        """Connects only at the first query.

        ``url``: ``redis://``, ``rediss://``, ``unix://`` or ``host:port``; it may carry user, password and database.
        ``cluster://host:port,host:port`` (with TLS ``clusters://``) is the same as ``cluster``.
        ``vhost``: the tenant; ``"/"`` is the same as ``"default"``. ``prefix``: the word between tenant and camera.

        ``timeout_seconds``: how long the server may take to connect, and to answer (5 s).
        ``chunk_bytes``: payload bytes fetched in one round trip and held at a time (4 MiB; one frame may be larger, and
        ``picture`` takes up to 32 MiB).
        ``cameras``: cameras that exist even if nothing is stored for them, so that a query for one is not an error.
        ``key_tags``: True for frames of a site with ``redis.key_tags = true``.

        ``sentinels`` (``host:port`` each) and ``service`` replace ``url``: queries go to the service's master, which is
        looked up again when it fails. ``sentinel_username`` and ``sentinel_password`` are for the sentinels themselves.
        ``cluster`` (``host:port`` each) replaces ``url``: some nodes of a Redis Cluster, which are asked for all its
        nodes. With ``read_replicas`` its replicas are read, which may be a moment behind their masters; what a replica
        does not have is asked of its master.
        ``username`` and ``password`` override those in ``url``; None keeps them.
        ``tls_files``: certificates for a ``rediss://`` connection (default: the system's authorities, no client
        certificate).

        Raises ConfigError for an unusable address or TLS file, QueryError (also an InputError) for an invalid vhost,
        prefix, camera or chunk.
        """
        if not isinstance(url, str | redis_address.RedisAddress):
            raise QueryError(f"{url!r} is no address; give text such as 'redis:6379'")
        if not (url or sentinels or service or cluster):
            raise ConfigError("give the address of a server such as 'redis:6379', or use from_site")
        if url == redis_address.EMBEDDED:
            raise QueryError("an embedded server has no address of its own; use from_site, or unix:// and its socket")
        if bool(url) + bool(sentinels or service) + bool(cluster) > 1:
            raise QueryError("give the address of a server, or sentinels and service, or cluster: only one of them")
        if sentinels or service:
            address = redis_address.parse_sentinels(sentinels, service, sentinel_username, sentinel_password)
        elif cluster:
            address = redis_address.parse_cluster([cluster] if isinstance(cluster, str) else cluster)
        else:
            address = redis_address.parse_redis_address(url) if isinstance(url, str) else url
        if read_replicas is not None:
            if read_replicas and not address.cluster:
                raise QueryError("read_replicas is for a cluster; give its nodes as cluster=[...]")
            address = address._replace(read_replicas=read_replicas)
        if any(tls_files):
            if not address.tls:
                raise QueryError("tls_files are for rediss:// addresses; this one is plain text")
            client_context(tls_files, "redis")
            address = address._replace(files=tls_files)
        self._address = address._replace(username=username or address.username, password=password or address.password)
        self._timeout = timeout_seconds
        prefix = TaggedPrefix(prefix) if key_tags else prefix
        tenant = checked_tenant("default" if vhost == "/" else vhost, prefix, cameras)
        self._queries = Queries(tenant, chunk_bytes)
        self._video = VideoQueries(tenant, chunk_bytes)
        # Redis must answer a waiting tail before the connection times out.
        self._block_ms = max(min(TAIL_BLOCK_MS, int(timeout_seconds * 500)), 1)
        self._open()

    def _open(self) -> None:
        raise NotImplementedError

    @classmethod
    def from_site(cls, path: str | os.PathLike[str], **options: Unpack[StoreOptions]) -> Self:
        """A store for a site file: its server, tenant, prefix, cameras and timeout. ``options`` are the constructor's.

        REDIS_USERNAME and REDIS_PASSWORD from the environment apply, as they do for the site. Raises ConfigError if the
        file is missing or invalid.
        """
        config = load(path, os.environ)
        options = {"timeout_seconds": config.redis.timeout_seconds, **options}
        cameras = [camera.id for camera in config.cameras]
        return cls(config.redis_address, config.vhost, config.prefix, cameras=cameras, **options)

    @property
    def vhost(self) -> str:
        """The tenant."""
        return self._queries.tenant.vhost

    @property
    def prefix(self) -> str:
        """The word between tenant and camera in keys."""
        return self._queries.tenant.prefix

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._address)!r}, vhost={self.vhost!r}, prefix={self.prefix!r})"
