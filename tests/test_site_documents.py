"""Nothing that passes ``check`` crashes: each document is refused by one error, or all that start and agents make of
it can be made; and some are really run."""

from __future__ import annotations

import io
import os
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pika.spec
import pytest
import setproctitle
from hypothesis import HealthCheck, Phase, given, settings
from rich.console import Console

from engine.cli import check_view
from engine.client.consumer import FrameConsumer
from engine.client.store import FrameStore
from engine.config import Camera, Config, from_document
from engine.config.memory import redis_memory
from engine.config.tls import client_context
from engine.errors import CameraUnavailable, ConfigError, InputError
from engine.runtime.embedded_layout import layout
from engine.runtime.limits import files_needed
from engine.runtime.logs import Masking, open_log
from engine.runtime.machine import embedded_memory
from engine.runtime.status import collect, to_json
from engine.servers.amqp.parameters import metadata_exchange, parameters
from engine.servers.redis.connection import connection_kind, connection_options
from engine.shm import ring_file, site
from engine.shm.status_page import StatusPage
from engine.sources.pattern import PatternSource
from engine.stages.capture.agent import Sampler
from engine.wire import keys, urls
from engine.wire.amqp import MessageFraming
from engine.wire.amqp_url import AmqpAddress
from engine.wire.journal import JournalEntry
from engine.wire.metadata import CONTENT_TYPE, FrameEvents, encode_event
from engine.wire.resp import FrameFraming
from engine.wire.state import CameraStatus, encode_status
from tests.examples import examples
from tests.site_documents import documents, plain

NANO = 1_731_024_000_123_456_789
#: Bytes of pictures that are really made: larger ones take long and say no more.
PIXELS_MAX = 200_000


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """A directory in shared memory."""
    directory = Path(tempfile.mkdtemp(prefix="edge-video-t-documents-", dir="/dev/shm"))
    yield directory
    shutil.rmtree(directory)


def use(config: Config, shared: Path) -> None:
    """All that the processes of a site make of its configuration before a server answers."""
    use_paths(config)
    use_servers(config)
    most = embedded_memory(config) if config.embedded else None
    sizing = check_view.Sizing(1, 1, redis_memory(config), most, 0.5, 2)
    check_view.print_site(Console(file=io.StringIO(), width=80), config, sizing)
    msgspec.json.encode(check_view.masked(config))
    repr(config).encode()
    to_json(collect(config, memory=False))
    if Path(config.ring.directory).is_dir():
        with suppress(InputError):
            site.check_space(config)
    assert files_needed(config) > 0
    log = open_log(config, file=shared / "log")
    for camera in config.cameras:
        log.info("x", camera=camera.id, error=str(camera.url), site=config.site.name)
        use_camera(config, camera, shared, Masking(config))


def use_paths(config: Config) -> None:
    paths = site.SitePaths.of(config)
    files = [paths.publisher(), paths.supervisor, paths.writer(63), paths.doorbell(63)]
    files += [of(camera.id) for camera in config.cameras for of in (paths.ring, paths.capture)]
    for path in (config.run_directory, *files):
        assert path.is_absolute()
        # What looks at a path raises ValueError for one that the kernel cannot be told.
        path.parent.exists()
        os.fsencode(path)
    for path in files:
        assert path.parent == paths.directory
        # Beside a file lies its draft, of a longer name, while it is made.
        assert len(os.fsencode(path.name)) + len(".") * 2 + len("4194304") <= 255
    assert len({*files}) == len(files)


def use_servers(config: Config) -> None:
    for address in (config.redis_address, config.publisher_redis_address):
        options = connection_options(address, config.redis.timeout_seconds)
        server = address._replace(host="h", port=1) if address.sentinel else address
        connection_kind(server)(**connection_options(server, config.redis.timeout_seconds))
        for text in (options["username"], options["password"], address.host, address.path):
            (text or "").encode()
        if address.tls:
            meet(client_context(address.files, "redis"), address.files.server_name or server.host)
        FrameStore(address, config.vhost, config.prefix).close()
    if config.embedded:
        for files in layout(config):
            for value in files.settings(config).values():
                os.fsencode(value)
                assert "\0" not in value
    for broker in config.amqp.addresses:
        messages_of(config, broker)


def messages_of(config: Config, broker: AmqpAddress) -> None:
    """What is sent to a broker can be encoded."""
    made = parameters(config.amqp, broker)
    assert ("default" if made.virtual_host == "/" else made.virtual_host) == config.vhost
    assert "\0" not in made.host
    made.host.encode("idna")
    if made.ssl_options:
        meet(made.ssl_options.context, made.ssl_options.server_hostname)
    made.credentials.response_for(pika.spec.Connection.Start(mechanisms="PLAIN"))
    b"".join(pika.spec.Connection.Open(made.virtual_host).encode())
    b"".join(pika.spec.Exchange.Declare(exchange=metadata_exchange(config.metadata).name, type="topic").encode())
    metadata = config.metadata
    for key in (metadata.routing_key, metadata.batch_routing_key, metadata.status_routing_key):
        framing = MessageFraming(1, metadata.exchange, key, CONTENT_TYPE, mandatory=False)
        framing.frame(b"{}")
        b"".join(pika.spec.Basic.Publish(exchange=metadata.exchange, routing_key=key).encode())
    if not config.embedded:
        FrameConsumer.from_config(config, lambda *_: None)


def meet(context: ssl.SSLContext, server_name: str) -> None:
    """The beginning of a handshake."""
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=server_name)


def use_camera(config: Config, camera: Camera, shared: Path, masking: Masking) -> None:
    if camera.fps:
        sampler = Sampler(camera.fps)
        assert [sampler.takes(at) for at in (NANO, NANO + 10**15)] == [True, True]
    int(camera.stall_seconds * 1000), int(camera.open_timeout_seconds * 1000)
    framing = FrameFraming(config.vhost, config.prefix, camera.id, config.redis.ttl_seconds * 1000)
    framing.before(NANO, 1, 9)
    entry = JournalEntry(NANO, 1, 9, 64, 48, "jpeg", True)
    event = FrameEvents(config.vhost, config.prefix, camera.id, config.redis.ttl_seconds).event(entry)
    encode_event(event)
    assert keys.parse_frame_key(event.redis_key) == keys.FrameKey(config.vhost, config.prefix, camera.id, NANO, 1)
    assert camera.frame_bytes * 2 <= config.ring.capacity
    assert config.writer_of(camera.id) < config.writer.writers
    if camera.kind == "file":
        os.path.exists(urls.file_path(camera.url))
    elif camera.kind == "test":
        pattern = urls.parse_test_url(camera.url)
        if pattern.width * pattern.height <= PIXELS_MAX:
            with suppress(CameraUnavailable):
                PatternSource(camera).retrieve(NANO, 1)
    setproctitle.setproctitle(f"edge-video: capture {camera.id}")
    path = shared / "x.ring"
    path.unlink(missing_ok=True)
    ring_file.create(path, 65_536, camera.id)
    ring_file.Observer(path, camera.id).close()
    StatusPage.create(shared / "x.status")
    page = StatusPage.claim(shared / "x.status")
    page.text = encode_status(CameraStatus(state="offline", last_error=masking.text(str(camera.url))[:200]))
    page.close()


@pytest.fixture
def title() -> Iterator[None]:
    before = setproctitle.getproctitle()
    yield
    setproctitle.setproctitle(before)


@pytest.mark.slow
@settings(
    max_examples=examples(300),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
@given(documents())
def test_a_document_is_refused_by_one_error_or_all_of_it_works(shared: Path, title: None, document: Any) -> None:
    try:
        config = from_document(document, {})
    except ConfigError as error:
        message = str(error)
        message.encode()
        assert len(message) < 1000 or max(map(len, map(str, plain(document).split('"')))) > 900
        return
    use(config, shared)
