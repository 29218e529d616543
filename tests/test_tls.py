"""Redis and RabbitMQ over TLS, before real servers: who is let in, and what is said to whom is not."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog

from engine import AsyncFrameStore, FrameConsumer, FrameStore, TlsFiles
from engine.config import Config, from_document
from engine.doctor.examine import redis as examine_redis
from engine.errors import (
    Audience,
    BrokerUnavailable,
    Cause,
    ConfigError,
    InputError,
    RedisUnavailable,
    ServerRefused,
    UnknownName,
    explain,
)
from engine.runtime.preflight import check_broker, check_redis
from engine.servers.redis.connect import connect
from tests.servers.certificate import Authority, Signed, encrypt
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.site import Site, command, missing_numbers, stored_frames

#: The name in a certificate that is not for localhost.
ELSEWHERE = "server.site.test"


class Papers(NamedTuple):
    """Certificates by name, of servers and of clients, and two authorities: the site's, and another one's."""

    site: Path
    other: Path
    signed: dict[str, Signed]

    def keys(self, trusted: str = "", shown: str = "", server_name: str = "") -> dict[str, str]:
        """What a section of a site file says."""
        client = self.signed[shown] if shown else ("", "")
        return {
            "tls_ca_file": str(getattr(self, trusted)) if trusted else "",
            "tls_certificate_file": str(client[0]),
            "tls_key_file": str(client[1]),
            "tls_server_name": server_name,
        }


class Meeting(NamedTuple):
    """A server's certificate, whether it demands one, what the site is told; and why it is refused, if it is."""

    server: str = "good"
    clients: bool = False
    trusted: str = "site"
    shown: str = ""
    server_name: str = ""
    refusal: str = ""


TRUST = "set {}.tls_ca_file to the authority that signed the server's certificate"
SHOW = "the server wants another client certificate: set {}.tls_certificate_file and tls_key_file"
MEETINGS = {
    "good": Meeting(),
    "client": Meeting(clients=True, shown="client"),
    "no client certificate": Meeting(clients=True, refusal=f"tlsv13 alert certificate required; {SHOW}"),
    "another's client": Meeting(clients=True, shown="stranger", refusal=f"tlsv1 alert unknown ca; {SHOW}"),
    "expired client": Meeting(clients=True, shown="expired", refusal=f"sslv3 alert certificate expired; {SHOW}"),
    "another's server": Meeting("stranger", refusal=f"unable to get local issuer certificate; {TRUST}"),
    "another's authority": Meeting(trusted="other", refusal=f"self-signed certificate in certificate chain; {TRUST}"),
    "the system's authorities": Meeting(
        trusted="", refusal=f"self-signed certificate in certificate chain; {TRUST}"
    ),
    "another name": Meeting(
        "elsewhere", refusal="not valid for 'localhost'.; set {}.tls_server_name to a name in the server's certificate"
    ),
    "another name, expected": Meeting("elsewhere", server_name=ELSEWHERE),
    "expired": Meeting("expired", refusal="certificate has expired; the server needs another certificate"),
}  # fmt: skip
meetings = pytest.mark.parametrize("meeting", MEETINGS.values(), ids=MEETINGS)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    directory = tmp_path_factory.mktemp("papers")
    site, other = Authority(directory, "site"), Authority(directory, "other")
    signed = {
        "good": site.sign("good"),
        "client": site.sign("client"),
        "expired": site.sign("expired", days=-1),
        "elsewhere": site.sign("elsewhere", host=ELSEWHERE),
        "stranger": other.sign("stranger"),
    }
    return Papers(site.certificate, other.certificate, signed)


class TlsRedis(RedisServer):
    """With a port for TLS beside the plain one; its certificate can be changed while it runs."""

    def __init__(self, directory: Path, papers: Papers) -> None:
        self.papers = papers
        self.tls_port = free_port()
        good = papers.signed["good"]
        arguments = ["--tls-port", self.tls_port, "--tls-ca-cert-file", papers.site]
        arguments += ["--tls-cert-file", good.certificate, "--tls-key-file", good.key]
        super().__init__(directory, args=[str(argument) for argument in arguments])

    @property
    def tls_address(self) -> str:
        return f"rediss://localhost:{self.tls_port}"

    def show(self, name: str, *, clients: bool) -> None:
        signed = self.papers.signed[name]
        with self.client() as client:
            client.config_set(
                "tls-cert-file", str(signed.certificate), "tls-key-file", str(signed.key),
                "tls-auth-clients", "yes" if clients else "no",
            )  # fmt: skip


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory, papers: Papers) -> Iterator[TlsRedis]:
    with TlsRedis(tmp_path_factory.mktemp("redis"), papers) as server:
        yield server


def config_of(redis: dict[str, str], amqp: dict[str, str] | None = None) -> Config:
    document: dict[str, Any] = {"redis": redis, "amqp": amqp or {}, "cameras": [{"id": "a", "url": "test://"}]}
    return from_document(document, {})


def met(meeting: Meeting, papers: Papers) -> dict[str, str]:
    return papers.keys(meeting.trusted, meeting.shown, meeting.server_name)


def refusal_of(ask_it: Callable[[], object]) -> ServerRefused:
    """The refusal that it meets.

    A server that closes before it has read what the client sent resets the connection. The kernel may then drop the
    alert that says why, and the server only seems to be away. So it is asked again.
    """

    def asked() -> ServerRefused | None:
        try:
            ask_it()
        except ServerRefused as error:
            return error
        except (RedisUnavailable, BrokerUnavailable):
            return None
        raise AssertionError("the server refused nothing")

    refused = wait_until(asked, 30, "the server says why it refuses")
    assert refused is not None
    return refused


async def ask(store: AsyncFrameStore) -> None:
    try:
        await store.latest("a")
    finally:
        await store.close()


@meetings
def test_redis_is_met_with_the_right_certificates_only(meeting: Meeting, redis: TlsRedis, papers: Papers):
    redis.show(meeting.server, clients=meeting.clients)
    config = config_of({"address": redis.tls_address, **met(meeting, papers)})
    asked = [
        lambda: check_redis(config),
        lambda: connect(config.redis_address, 5).disconnect(),
        lambda: FrameStore(config.redis_address).latest("a"),
        lambda: asyncio.run(ask(AsyncFrameStore(config.redis_address))),
    ]
    for ask_it in asked:
        if meeting.refusal:
            refused = refusal_of(ask_it)
            assert f"Redis at {redis.tls_address}: TLS failed: " in str(refused)
            assert meeting.refusal.format("redis") in explain(refused, Audience.SITE)
        else:
            # Nothing is stored, which only a server that lets us in can tell.
            with suppress(UnknownName):
                ask_it()


@meetings
def test_rabbitmq_is_met_with_the_right_certificates_only(
    meeting: Meeting, redis: TlsRedis, rabbitmq: RabbitMQ, papers: Papers
):
    port = rabbitmq.listen_tls(papers.signed[meeting.server], papers.site, clients=meeting.clients)
    url = f"amqps://guest:guest@localhost:{port}/%2F"
    config = config_of({"address": redis.address}, {"amqp_url": url, **met(meeting, papers)})
    consumer = FrameConsumer.from_config(config, lambda *_: None)
    if not meeting.refusal:
        check_broker(config, structlog.get_logger())
        return
    for ask_it in (lambda: check_broker(config, structlog.get_logger()), lambda: consumer.run(signals=False)):
        refused = refusal_of(ask_it)
        assert f"RabbitMQ at localhost:{port}: TLS failed: " in str(refused)
        assert meeting.refusal.format("amqp") in explain(refused, Audience.SITE)
        assert "guest" not in str(refused)


def test_a_broker_that_speaks_no_tls_is_refused_as_such(rabbitmq: RabbitMQ, papers: Papers):
    url = f"amqps://guest:guest@localhost:{rabbitmq.port}/%2F"
    config = config_of({}, {"amqp_url": url, **papers.keys("site")})
    with pytest.raises(ServerRefused, match="wrong version number; check that the server speaks TLS on that port"):
        check_broker(config, structlog.get_logger())


def test_tls_before_1_3_tells_of_a_missing_client_certificate_too(redis: TlsRedis, papers: Papers):
    redis.show("good", clients=True)
    config = config_of({"address": redis.tls_address, **papers.keys("site")})
    with redis.client() as client:
        client.config_set("tls-protocols", "TLSv1.2")
        try:
            with pytest.raises(ServerRefused) as refused:
                connect(config.redis_address, 5)
            assert refused.value.cause is Cause.TLS_CLIENT_CERTIFICATE
        finally:
            client.config_set("tls-protocols", "")


def test_the_command_ends_with_exit_code_2_and_the_reason(
    site: Site, redis: TlsRedis, rabbitmq: RabbitMQ, papers: Papers
):
    redis.show("good", clients=True)
    cameras = [{"id": "a", "url": "test://"}]
    site.write(cameras=cameras, redis={"address": redis.tls_address, **papers.keys("site")})
    port = rabbitmq.listen_tls(papers.signed["elsewhere"], papers.site)
    first = command("run", "-c", str(site.file))
    site.write(
        cameras=cameras,
        redis={"address": redis.tls_address, **papers.keys("site", "client")},
        amqp={"amqp_url": f"amqps://guest:guest@localhost:{port}/%2F", **papers.keys("site")},
    )
    second = command("run", "-c", str(site.file))
    for done, what in ((first, "set redis.tls_certificate_file"), (second, "set amqp.tls_server_name")):
        assert done.returncode == 2, done.stderr
        assert what in done.stderr
        assert "site started" not in done.stderr


def break_file(papers: Papers, directory: Path, how: str) -> tuple[dict[str, str], str, str]:
    """Keys for TLS with something wrong, the key that is to blame, and what is said of it."""
    keys = papers.keys("site", "client")
    broken = directory / "broken.pem"
    if how == "missing authority":
        return keys | {"tls_ca_file": str(broken)}, "tls_ca_file", f"{broken} does not exist"
    if how == "missing key":
        return keys | {"tls_key_file": str(broken)}, "tls_key_file", f"{broken} does not exist"
    if how == "another's key":
        key = papers.signed["good"].key
        return keys | {"tls_key_file": str(key)}, "tls_certificate_file", f"{key} are no PEM certificate and its"
    if how == "a directory":
        return keys | {"tls_ca_file": str(directory)}, "tls_ca_file", f"{directory} is no PEM certificate"
    if how == "certificate without key":
        return keys | {"tls_key_file": ""}, "tls_key_file: they go together", ""
    if how == "encrypted key":
        encrypt(papers.signed["client"].key, broken)
        return keys | {"tls_key_file": str(broken)}, "tls_key_file", f"{broken} are no PEM certificate and its"
    broken.write_bytes(b"\x00garbage\n" * 10)
    if how == "garbage authority":
        return keys | {"tls_ca_file": str(broken)}, "tls_ca_file", f"{broken} is no PEM certificate"
    return keys | {"tls_certificate_file": str(broken)}, "tls_certificate_file", f"{broken} and"


BROKEN = (
    "missing authority", "missing key", "another's key", "a directory", "certificate without key", "encrypted key",
    "garbage authority", "garbage certificate",
)  # fmt: skip


@pytest.mark.parametrize("section", ["redis", "amqp"])
@pytest.mark.parametrize("how", BROKEN)
def test_files_that_cannot_be_used_are_named_with_their_key(papers: Papers, tmp_path: Path, section: str, how: str):
    keys, key, words = break_file(papers, tmp_path, how)
    redis = {"address": "rediss://localhost"} | (keys if section == "redis" else {})
    amqp = {"amqp_url": "amqps://u:p@localhost/v"} | (keys if section == "amqp" else {})
    with pytest.raises(ConfigError) as refused:
        config_of(redis, amqp)
    assert f"{section}.{key}" in str(refused.value)
    assert words in str(refused.value)


def test_the_command_names_the_file_too(site: Site, tmp_path: Path):
    site.write(
        cameras=[{"id": "a", "url": "test://"}],
        redis={"address": "rediss://localhost", "tls_ca_file": str(tmp_path / "none.pem")},
    )
    done = command("check", "-c", str(site.file))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"redis.tls_ca_file: {tmp_path / 'none.pem'} does not exist" in done.stderr


@pytest.mark.parametrize(
    ("redis", "amqp", "words"),
    [
        ({"address": "redis://localhost"}, {}, "redis.tls_ca_file: the connection is plain text; give a rediss://"),
        ({"address": "embedded"}, {}, "redis.tls_ca_file: the connection is plain text"),
        ({"sentinels": ["localhost"], "service": "s"}, {}, "redis.tls_ca_file: the connection is plain text"),
        (
            {},
            {"amqp_url": "amqp://localhost/v"},
            "amqp.tls_ca_file: the connection is plain text; give an amqps:// URL",
        ),
    ],
    ids=str,
)
def test_tls_keys_for_a_plain_connection_are_refused(papers: Papers, redis: dict, amqp: dict, words: str):
    keys = {"tls_ca_file": str(papers.site)}
    with pytest.raises(ConfigError) as refused:
        config_of(redis | ({} if amqp else keys), amqp | (keys if amqp else {}))
    assert words in str(refused.value)


def test_stores_and_consumers_check_their_files_when_they_are_made(papers: Papers, tmp_path: Path):
    missing = TlsFiles(ca_file=str(tmp_path / "none.pem"))
    for kind in (FrameStore, AsyncFrameStore):
        with pytest.raises(ConfigError, match=r"tls_files\.ca_file: .*none\.pem does not exist"):
            kind("rediss://localhost", tls_files=missing)
        with pytest.raises(InputError, match="this one is plain text"):
            kind("redis://localhost", tls_files=TlsFiles(str(papers.site)))
    with pytest.raises(InputError, match=r"tls_files\.ca_file: .*none\.pem does not exist"):
        FrameConsumer("amqps://localhost", "rediss://localhost", lambda *_: None, tls_files=missing)


def test_a_site_over_tls_end_to_end_and_a_certificate_that_turns_bad_meanwhile(
    site: Site, redis: TlsRedis, rabbitmq: RabbitMQ, vhost: str, papers: Papers, tmp_path: Path
):
    """Stored, announced and read with client certificates on both sides; a bad certificate is an outage, and said."""
    redis.show("good", clients=True)
    with redis.client() as plain:
        plain.flushall()
    shown = Signed(tmp_path / "shown.pem", tmp_path / "shown.key")

    def broker_shows(name: str) -> None:
        for source, target in zip(papers.signed[name], shown, strict=True):
            shutil.copy(source, target)
        rabbitmq.forget_certificates()

    broker_shows("good")
    port = rabbitmq.listen_tls(shown, papers.site, clients=True)
    site.write(
        cameras=[{"id": f"cam{number}", "url": "test://?size=320x240&fps=10&kb=5"} for number in range(2)],
        redis={"address": redis.tls_address, **papers.keys("site", "client")},
        amqp={"amqp_url": f"amqps://guest:guest@localhost:{port}/{vhost}", **papers.keys("site", "client")},
    )
    met_frames = []

    def on_frame(event: Any, frame: Any) -> None:
        met_frames.append((event, frame))
        if len(met_frames) == 10:
            consumer.stop()

    consumer = FrameConsumer.from_site(site.file, on_frame)
    site.start()
    consumer.run(signals=False)
    assert all(frame is not None and frame.sequence == int(event.sequence) for event, frame in met_frames)
    with FrameStore.from_site(site.file) as store:
        assert len(store.latest("cam0").data) > 1000

    async def newest() -> Any:
        async with AsyncFrameStore.from_site(site.file) as asking:
            return await asking.latest("cam1")

    assert asyncio.run(newest()).camera == "cam1"

    redis.show("stranger", clients=True)
    broker_shows("stranger")
    with redis.client() as plain:
        plain.execute_command("CLIENT", "KILL", "TYPE", "normal")
    rabbitmq.close_connections()
    wait_until(lambda: TRUST.format("redis") in site.log_text(), 30, "Redis is said to be refused")
    wait_until(lambda: TRUST.format("amqp") in site.log_text(), 30, "RabbitMQ is said to be refused")
    redis.show("good", clients=True)
    broker_shows("good")
    stored = site.total("stored")
    wait_until(lambda: site.total("stored") > stored + 20, 30, "frames are stored again")
    announced = site.status()["publisher"]["confirmed"]
    wait_until(lambda: site.status()["publisher"]["confirmed"] > announced, 30, "events go out again")
    assert site.dropped() == {}
    captured = site.total("captured")
    assert site.stop() == 0
    with redis.client() as plain:
        numbers = stored_frames(plain, vhost).numbers
    assert set(numbers) == {"cam0", "cam1"}
    assert sum(map(len, numbers.values())) >= captured
    assert not any(missing_numbers(row) for row in numbers.values())


def test_the_doctor_meets_redis_as_the_site_does(redis: TlsRedis, papers: Papers):
    redis.show("good", clients=True)
    good = config_of({"address": redis.tls_address, **papers.keys("site", "client")})
    assert {one.check: one.verdict for one in examine_redis(good, running=False)}["reachable"] == "ok"
    (refused,) = examine_redis(config_of({"address": redis.tls_address, **papers.keys("site")}), running=False)
    assert (refused.check, refused.verdict) == ("TLS", "broken")
    assert "tlsv13 alert certificate required" in refused.found
    assert refused.todo.endswith("set redis.tls_certificate_file and tls_key_file")
