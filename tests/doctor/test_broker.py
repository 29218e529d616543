"""The doctor before a real RabbitMQ: it finds what is wrong, and no consumer ever hears of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.config import Config, from_document
from engine.doctor.broker_facts import MANAGEMENT_PORTS, backlog, management
from engine.doctor.examine import rabbitmq as examine_rabbitmq
from engine.doctor.findings import Finding
from engine.stages.publisher.journals import Journals
from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_fields, entry_id
from tests.servers.certificate import Authority
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.stored_video import store_video, video_units

EXCHANGE = "camera.metadata"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as started:
        yield started


def config_of(url: str, store: RedisServer, **sections: object) -> Config:
    document = {
        "redis": {"address": store.address},
        "amqp": {"amqp_url": url, "timeout_seconds": 5},
        "cameras": [{"id": "a", "url": "test://"}],
        **sections,
    }
    return from_document(document, {})


def look(config: Config, ports: tuple[tuple[str, int], ...] = ()) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine_rabbitmq(config, ports, running=False)}


def broken(found: dict[str, Finding]) -> list[str]:
    return [check for check, finding in found.items() if finding.verdict == "broken"]


@pytest.fixture
def channel(rabbitmq, vhost):
    """With the engine's exchange, and a queue that gets all that is published to it."""
    connection = rabbitmq.connect(vhost)
    made = connection.channel()
    made.exchange_declare(EXCHANGE, "topic", durable=True)
    made.queue_declare("all")
    made.queue_bind("all", EXCHANGE, "#")
    yield made
    connection.close()


def test_a_good_broker_and_nobody_hears_of_the_look(rabbitmq, vhost, channel, store):
    found = look(config_of(rabbitmq.url(vhost), store))
    assert {check: finding.verdict for check, finding in found.items()} == {
        "reachable": "ok",
        "alarms": "ok",
        "exchange": "ok",
        "rights": "ok",
        "queues": "information",
        "events waiting": "ok",
    }
    assert channel.queue_declare("all", passive=True).method.message_count == 0


def test_an_exchange_that_does_not_stand_is_not_made(rabbitmq, vhost, store):
    config = config_of(rabbitmq.url(vhost), store)
    for _ in range(2):
        found = look(config)
        assert found["exchange"].verdict == "information"
        assert not broken(found)


def test_a_wrong_password(rabbitmq, vhost, store):
    found = look(config_of(rabbitmq.url(vhost, password="wrong-secret"), store))
    assert broken(found) == ["authentication"]
    assert "wrong-secret" not in str(found)


def test_a_vhost_that_is_not(rabbitmq, store):
    assert broken(look(config_of(rabbitmq.url("not-there"), store))) == ["vhost"]


@pytest.mark.parametrize(
    ("user", "rights", "stands", "says"),
    [
        ("no-write", {"write": "^$"}, True, "may not publish"),
        ("no-declare", {"configure": "^$"}, False, "may not declare"),
    ],
)
def test_missing_rights(rabbitmq, vhost, channel, store, user, rights, stands, says):
    rabbitmq.add_user(user, "pw", vhost, **rights)
    if not stands:
        channel.exchange_delete(EXCHANGE)
    found = look(config_of(rabbitmq.url(vhost, user, "pw"), store))
    assert broken(found) == ["rights"]
    assert says in found["rights"].found


@pytest.mark.parametrize(("kind", "durable"), [("fanout", True), ("topic", False)])
def test_an_exchange_of_another_kind(rabbitmq, vhost, store, kind, durable):
    with rabbitmq.connect(vhost) as connection:
        connection.channel().exchange_declare(EXCHANGE, kind, durable=durable)
        found = look(config_of(rabbitmq.url(vhost), store))
    assert broken(found) == ["exchange"]
    assert found["exchange"].found.endswith("is not durable" if kind == "topic" else "not topic")
    assert "rabbitmqadmin" in found["exchange"].todo


def test_a_memory_alarm(rabbitmq, vhost, channel, store):
    rabbitmq.set_alarm(True)
    try:
        found = look(config_of(rabbitmq.url(vhost), store))
    finally:
        rabbitmq.set_alarm(False)
    assert broken(found) == ["alarms"]
    assert "memory" in found["alarms"].found


def test_nothing_there(store):
    found = look(config_of(f"amqp://u:secret@127.0.0.1:{free_port()}/v", store))
    assert broken(found) == ["reachable"]
    assert "refused" in found["reachable"].found
    assert "secret" not in str(found)


def test_events_that_wait(rabbitmq, vhost, store):
    config = config_of(rabbitmq.url(vhost), store)
    begun = time.time_ns() - 200 * 10**9
    journal = keys.journal_key(config.vhost, config.prefix, "a")
    with store.client() as client:
        for number in range(1, 8):
            entry = JournalEntry(begun + number, number, 100, 64, 48, "jpeg", True)
            client.execute_command("XADD", journal, entry_id(entry.unix_nano, number), *entry_fields(entry))
        client.hset(keys.cursor_key(config.vhost, config.prefix), "a", entry_id(begun + 2, 2))
    (waits,) = backlog(config)
    assert (waits.camera, waits.waiting, int(waits.age_seconds) // 10) == ("a", 5, 20)
    assert look(config)["events waiting"].verdict == "warning"


def test_gops_that_wait(rabbitmq, vhost, store):
    cameras = [{"id": "a", "url": "rtsp://192.0.2.1/x", "video": True}, {"id": "b", "url": "test://"}]
    config = config_of(rabbitmq.url(vhost), store, metadata={"video": "gop"}, cameras=cameras)
    with store.client() as client:
        units = video_units("a", "K...." * 3, first=time.time_ns() - 200 * 10**9)
        store_video(client, config.vhost, units)
        client.hset(keys.video_cursor_key(config.vhost, config.prefix), "a", entry_id(*units[4].entry[:2]))
    (waits,) = backlog(config, video=True)
    assert (waits.camera, waits.waiting, int(waits.age_seconds) // 10) == ("a", 10, 19)
    assert backlog(config) == []
    found = look(config)
    assert (found["GOPs waiting"].verdict, found["events waiting"].verdict) == ("warning", "ok")
    assert "GOPs waiting" not in look(config_of(rabbitmq.url(vhost), store))


def test_events_that_come_while_it_looks_are_no_events_of_hours(rabbitmq, vhost, store, monkeypatch):
    """The journal's last entry is asked for behind its oldest: numbers that run on meanwhile never wrap around."""
    config = config_of(rabbitmq.url(vhost), store)
    journal = keys.journal_key(config.vhost, config.prefix, "a")
    client = store.client()

    def write(sequence: int) -> None:
        entry = JournalEntry(time.time_ns(), sequence, 100, 64, 48, "jpeg", True)
        client.execute_command("XADD", journal, entry_id(entry.unix_nano, sequence), *entry_fields(entry))

    asked = Journals.read

    def read(self, after, count):
        """Two more come, and the only one that stood is announced and trimmed, before the oldest is asked for."""
        client.delete(journal)
        write(99_999)
        write(1)
        return asked(self, after, count)

    monkeypatch.setattr(Journals, "read", read)
    write(99_998)
    (waits,) = backlog(config)
    assert waits.waiting == 2


def set_plugins(rabbitmq: RabbitMQ, names: str) -> None:
    file = rabbitmq.directory / "enabled_plugins"
    file.write_text(f"[{names}].\n")
    rabbitmq.eval(f'{{ok, _, _}} = rabbit_plugins:ensure("{file}")')


@contextmanager
def managed(rabbitmq: RabbitMQ, kind: str = "tcp_config", more: str = "") -> Iterator[int]:
    """The port of a management API, as the plugin's own settings have it."""
    port = free_port()
    listener = f'[{{port, {port}}}, {{ip, "127.0.0.1"}}{more}]'
    rabbitmq.eval("application:load(rabbitmq_management)")
    rabbitmq.eval(f"application:set_env(rabbitmq_management, {kind}, {listener})")
    set_plugins(rabbitmq, "rabbitmq_management")
    yield port
    set_plugins(rabbitmq, "")
    rabbitmq.eval(f"application:unset_env(rabbitmq_management, {kind})")


@pytest.fixture
def management_port(rabbitmq: RabbitMQ):
    with managed(rabbitmq) as port:
        yield port


def test_the_management_api_says_whether_any_queue_is_bound(rabbitmq, vhost, channel, store, management_port):
    ports = (("http", management_port),)
    arguments = ("127.0.0.1", vhost, "guest", "guest", EXCHANGE)
    wait_until(lambda: management(*arguments, ports), 30, "the management API answers")
    config = config_of(rabbitmq.url(vhost), store)
    wait_until(lambda: look(config, ports)["queues"].verdict == "ok", 20, "the queue is seen")
    channel.queue_delete("all")
    wait_until(lambda: look(config, ports)["queues"].verdict == "warning", 20, "nothing is bound")
    assert management("127.0.0.1", vhost, "guest", "wrong", EXCHANGE, ports) is None
    assert MANAGEMENT_PORTS[0] == ("http", 15_672)


def test_over_tls_the_broker_and_its_management_api_are_met_with_the_site_s_files(rabbitmq, vhost, store, tmp_path):
    authority = Authority(tmp_path, "site")
    server, client = authority.sign("server", "mq.site.test"), authority.sign("client")
    port = rabbitmq.listen_tls(server, authority.certificate, clients=True)
    amqp = {
        "amqp_url": f"amqps://guest:guest@localhost:{port}/{vhost}",
        "tls_ca_file": str(authority.certificate),
        "tls_certificate_file": str(client.certificate),
        "tls_key_file": str(client.key),
        "tls_server_name": "mq.site.test",
    }
    files = (
        f'{{cacertfile, "{authority.certificate}"}}, {{certfile, "{server.certificate}"}}, {{keyfile, "{server.key}"}}'
    )
    demands = f", {files}, {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}"
    config = config_of("", store, amqp=amqp)
    with rabbitmq.connect(vhost) as connection, managed(rabbitmq, "ssl_config", demands) as management_port:
        connection.channel().exchange_declare(EXCHANGE, "topic", durable=True)
        wait_until(lambda: look(config, (("https", management_port),))["queues"].verdict == "warning", 20, "it answers")
        assert broken(look(config)) == []
        strange = look(config_of("", store, amqp=amqp | {"tls_server_name": ""}), ())
    assert broken(strange) == ["TLS"]
    assert "Hostname mismatch" in strange["TLS"].found
    assert strange["TLS"].todo == "set amqp.tls_server_name to a name in the server's certificate"
