"""Several brokers in a site file: what is accepted, whose turn it is, and what a start says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from engine.client.consumer import FrameConsumer
from engine.config import Config, from_document
from engine.doctor.examine import rabbitmq as examine_rabbitmq
from engine.doctor.findings import exit_code
from engine.errors import ConfigError, InputError, ServerRefused
from engine.runtime import running_site
from engine.runtime.logs import secrets_of
from engine.runtime.preflight import check_broker
from engine.servers.amqp.hosts import Hosts
from engine.wire.amqp_url import parse_amqp_url
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.wait import free_port

ONE, OTHER = "amqp://u:geheim1@box1/shop", "amqps://v:geheim2@box2:5999/shop"


def site(*urls: str, environment: dict[str, str] | None = None, **amqp: object) -> Config:
    document = {"amqp": {"amqp_urls": list(urls), **amqp}, "cameras": [{"id": "cam1", "url": "test://"}]}
    return from_document(document, environment or {})


def test_all_brokers_of_a_site_are_known_and_their_passwords_are_not() -> None:
    config = site(ONE, OTHER)
    assert [str(address) for address in config.amqp.addresses] == ["amqp://box1:5672", "amqps://box2:5999"]
    assert (config.vhost, config.publishes) == ("shop", True)
    assert {"geheim1", "geheim2"} <= secrets_of(config)
    assert "geheim" not in repr(config)
    assert "geheim" not in repr(running_site._masked(config))
    assert [one.host for one in running_site._masked(config).amqp.addresses] == ["box1", "box2"]
    assert "box1:5672 in plain text" in config.warnings[0]


def test_the_environment_may_list_them() -> None:
    config = site(environment={"AMQP_URLS": f"{ONE} {OTHER}"})
    assert [address.host for address in config.amqp.addresses] == ["box1", "box2"]


@pytest.mark.parametrize(
    ("urls", "amqp", "said"),
    [
        ((ONE, "amqp://u:geheim@box2/other"), {}, "different vhosts, 'shop' at amqp://box1:5672 and 'other'"),
        ((ONE,), {"amqp_url": OTHER}, r"amqp.amqp_url \(or AMQP_URL\) is left out"),
        ((ONE, "http://u:geheim@h"), {}, r"amqp.amqp_urls\[1\] is not amqp://"),
        (("",), {}, r"amqp.amqp_urls\[0\] is not amqp://"),
    ],
    ids=["vhosts", "both", "scheme", "empty"],
)
def test_what_does_not_fit_together_is_refused(urls: tuple[str, ...], amqp: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        site(*urls, **amqp)
    assert "geheim" not in str(refused.value)


def test_a_consumer_takes_several_of_one_vhost() -> None:
    consumer = FrameConsumer([ONE, OTHER], "127.0.0.1:1", print)
    assert repr(consumer) == "FrameConsumer('amqp://***@box1/shop, amqps://***@box2:5999/shop', queue='')"
    with pytest.raises(InputError, match="AMQP URLs name different vhosts") as refused:
        FrameConsumer([ONE, "amqp://u:geheim@h/other"], "127.0.0.1:1", print)
    assert "geheim" not in str(refused.value)
    with pytest.raises(InputError, match="AMQP URL 2 is not amqp://"):
        FrameConsumer([ONE, "http://u:geheim@h/other"], "127.0.0.1:1", print)
    with pytest.raises(InputError, match="no AMQP URL"):
        FrameConsumer([], "127.0.0.1:1", print)


def test_the_one_that_worked_is_tried_first_and_then_the_others_in_turn() -> None:
    hosts = Hosts([parse_amqp_url(f"amqp://box{number}") for number in range(3)])
    turns, pauses = [], []
    for event in (hosts.failed, hosts.lost, hosts.failed, hosts.failed, hosts.failed, hosts.failed):
        event()
        turns.append(hosts.current.host)
        pauses.append(hosts.round_over)
    assert turns == ["box1", "box1", "box2", "box0", "box1", "box2"]
    assert pauses == [False, True, False, False, True, False]


@pytest.fixture
def away() -> str:
    return f"amqp://u:geheim@127.0.0.1:{free_port()}/"


def checked(config: Config) -> list[str]:
    with capture_logs() as logs:
        check_broker(config, structlog.get_logger())
    return [f"{line['event']}: {line['error']}" for line in logs]


def test_a_site_starts_if_one_broker_takes_it_and_names_those_that_do_not(
    rabbitmq: RabbitMQ, vhost: str, away: str, tmp_path: Path
) -> None:
    away, good, wrong = away + vhost, rabbitmq.url(vhost), rabbitmq.url(vhost, password="geheim")
    (first, second) = checked(site(away, wrong, good))
    assert "refused the connection" in first
    assert "refused the user and password" in second
    assert "another does" in first
    (only,) = checked(site(away, away))
    assert "events wait in the journals" in only
    with pytest.raises(ServerRefused) as refused:
        checked(site(away, wrong))
    assert "refused the connection; RabbitMQ at" in refused.value.fact
    assert "refused the user and password" in refused.value.fact
    assert not any("geheim" in text for text in (first, second, only, str(refused.value)))


def test_the_doctor_examines_each(rabbitmq: RabbitMQ, vhost: str, away: str) -> None:
    good = rabbitmq.url(vhost)
    port = rabbitmq.port
    config = site(away + vhost, good)
    found = examine_rabbitmq(config, (), running=False)
    verdicts = {finding.check: finding.verdict for finding in found}
    assert verdicts[f"reachable, 127.0.0.1:{port}"] == "ok"
    dead = config.amqp.addresses[0].port
    assert verdicts[f"reachable, 127.0.0.1:{dead}"] == "warning", "another one works"
    assert exit_code(found) == 1
    alone = examine_rabbitmq(site(away + vhost, away + vhost), (), running=False)
    assert exit_code(alone) == 2
