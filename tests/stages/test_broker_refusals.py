"""A broker where something stands otherwise than it is declared: the sentence says what to do, and that works."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Iterator
from typing import Any

import pika
import pytest

from engine.client.consumer import FrameConsumer
from engine.config import AmqpSection, Secret
from engine.errors import Audience, BrokerUnavailable, Cause, ServerRefused, explain
from engine.servers.amqp.broker import Broker
from engine.servers.amqp.check import check
from engine.servers.amqp.parameters import Exchange, open_blocking
from engine.servers.amqp.refusals import connection_error
from engine.wire.amqp_url import parse_amqp_url
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.wait import wait_until

NAME = "camera.metadata"


@pytest.fixture
def channel(rabbitmq: RabbitMQ, vhost: str) -> Iterator[Any]:
    with rabbitmq.connect(vhost) as connection:
        yield connection.channel()


def refusal(rabbitmq: RabbitMQ, vhost: str, exchange: Exchange, audience: Audience = Audience.SITE) -> str:
    with pytest.raises(ServerRefused) as refused:
        check(AmqpSection(Secret(rabbitmq.url(vhost))), exchange)
    assert refused.value.subject == f"RabbitMQ at 127.0.0.1:{rabbitmq.port}"
    return explain(refused.value, audience).removeprefix(f"{refused.value.subject}: ")


@pytest.mark.parametrize(
    ("stands", "declared", "found", "way"),
    [
        ({"durable": True}, {"durable": False}, "is durable", "set `metadata.exchange_durable = true`"),
        ({"durable": False}, {"durable": True}, "is not durable", "set `metadata.exchange_durable = false`"),
        ({"exchange_type": "fanout"}, {}, "is of type fanout, not topic", "name another in metadata.exchange"),
        ({"auto_delete": True}, {}, "(auto-delete)", "name another in metadata.exchange"),
        ({"internal": True}, {}, "is internal", "name another in metadata.exchange"),
        (
            {"arguments": {"alternate-exchange": "amq.topic"}}, {},
            "has alternate-exchange amq.topic, not none", "name another in metadata.exchange",
        ),
    ],
    ids=["durable", "transient", "type", "auto-delete", "internal", "argument"],
)  # fmt: skip
def test_each_difference_has_its_sentence(rabbitmq, vhost, channel, stands, declared, found, way):
    channel.exchange_declare(NAME, **({"exchange_type": "topic", "durable": True} | stands))
    said = refusal(rabbitmq, vhost, Exchange(NAME, **declared))
    assert said.startswith(f"exchange {NAME} exists in vhost {vhost} and ")
    assert found in said
    assert f"; {way}, or delete it once (`" in said
    command = shlex.split(said.split("`")[-2])
    assert command == ["rabbitmqadmin", f"--vhost={vhost}", "delete", "exchange", f"name={NAME}"]
    # What the command does.
    channel.exchange_delete(command[-1].removeprefix("name="))
    check(AmqpSection(Secret(rabbitmq.url(vhost))), Exchange(NAME, **declared))


def test_both_ways_out_of_a_durable_exchange_work(rabbitmq, vhost, channel):
    channel.exchange_declare(NAME, exchange_type="topic", durable=True)
    said = refusal(rabbitmq, vhost, Exchange(NAME, durable=False))
    value = re.search(r"`metadata.exchange_durable = (\w+)`", said)
    assert value is not None
    check(AmqpSection(Secret(rabbitmq.url(vhost))), Exchange(NAME, durable=value[1] == "true"))


def test_a_job_is_told_of_its_own_options(rabbitmq, vhost, channel):
    channel.exchange_declare(NAME, exchange_type="direct", durable=True)
    where = Exchange(NAME, mandatory=True)
    assert "is of type direct, not topic; give --exchange-type direct, or delete" in refusal(
        rabbitmq, vhost, where, Audience.RECOVER
    )
    durable = where._replace(kind="direct", durable=False)
    assert "is durable; give --durable, or delete" in refusal(rabbitmq, vhost, durable, Audience.RECOVER)


def test_names_that_a_shell_would_take_apart_are_quoted(rabbitmq, vhost, channel):
    odd = "it's; a `name` in vhost 'x'"
    channel.exchange_declare(odd, exchange_type="topic", durable=True)
    said = refusal(rabbitmq, vhost, Exchange(odd, durable=False))
    assert f"exchange {odd} exists in vhost {vhost} and is durable" in said
    assert shlex.quote(f"name={odd}") in said


@pytest.mark.parametrize(
    ("stands", "options", "says"),
    [
        ({"durable": True}, {"exchange_durable": False}, "is durable; give exchange_durable=True, or delete"),
        ({"durable": False}, {}, "is not durable; give exchange_durable=False, or delete it once"),
        ({"exchange_type": "fanout"}, {}, "is of type fanout, not topic; name another with exchange, or delete"),
    ],
    ids=["durable", "transient", "type"],
)
def test_a_consumer_is_told_the_same(rabbitmq, vhost, channel, redis_server, stands, options, says):
    channel.exchange_declare(NAME, **({"exchange_type": "topic", "durable": True} | stands))
    with pytest.raises(ServerRefused) as refused:
        FrameConsumer(rabbitmq.url(vhost), redis_server.url, print, **options).run(signals=False)
    assert says in str(refused.value)
    assert "PRECONDITION" not in str(refused.value)


def test_a_queue_that_stands_otherwise(rabbitmq, vhost, channel, redis_server):
    channel.queue_declare("mine", durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 8})
    with pytest.raises(ServerRefused) as refused:
        FrameConsumer(rabbitmq.url(vhost), redis_server.url, print, queue="mine").run(signals=False)
    assert f"queue mine exists in vhost {vhost} with x-delivery-limit 8, not 2; attempts and dead_letter" in str(
        refused.value
    )
    assert f"(`rabbitmqctl -p {vhost} delete_queue mine`)" in str(refused.value)


@pytest.mark.parametrize(
    "text", ["PRECONDITION_FAILED - something else", "PRECONDITION_FAILED - inequivalent arg 'durable' for exch", ""]
)
def test_where_the_text_reads_otherwise_the_code_counts(text):
    refused = connection_error(parse_amqp_url("amqp://h/v"), pika.exceptions.ChannelClosedByBroker(406, text))
    assert refused.cause is Cause.PRECONDITION
    assert refused.fact == f"RabbitMQ at h:5672 closed the channel: {text} (406)"


def test_a_connection_that_is_reset_at_once_is_a_broker_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """pika asks for the peer's name right after it connected, and raises ValueError when there is none any more."""

    def reset(*_: object) -> None:
        raise ValueError("Expected connected socket, but getpeername() failed")

    broker = Broker(AmqpSection(Secret("amqp://u:p@127.0.0.1:1/x")), Exchange("x", True))
    broker.open()
    assert broker._loop is not None
    monkeypatch.setattr(broker._loop, "poll", reset)
    with pytest.raises(BrokerUnavailable):
        broker.pump(0)
    monkeypatch.undo()
    broker.close()
    monkeypatch.setattr(pika, "BlockingConnection", reset)
    with pytest.raises(ConnectionResetError):
        open_blocking(pika.ConnectionParameters())


@pytest.mark.parametrize("frame", ["003c ffff ce", "003c 0050 00"], ids=["unknown method", "wrong end"])
def test_bytes_that_are_no_amqp_end_the_connection(
    rabbitmq: RabbitMQ, vhost: str, monkeypatch: pytest.MonkeyPatch, frame: str
) -> None:
    """Whatever pika raises when it decodes them."""
    broker = Broker(AmqpSection(Secret(rabbitmq.url(vhost))), Exchange(NAME))
    broker.open()
    while not broker.ready:
        broker.pump(0.1)
    ours, theirs = socket.socketpair()
    with ours, theirs, monkeypatch.context() as replaced:
        ours.setblocking(False)
        theirs.send(bytes.fromhex("01 0001 00000004" + frame))
        replaced.setattr(broker._connection, "_plain_socket", lambda: ours)
        replaced.setattr(broker, "_loop_at", float("inf"))
        assert not broker._connection.exchange()
    with pytest.raises(BrokerUnavailable, match="127"):
        wait_until(lambda: broker.pump(0.1), 30, "the connection has ended")
    broker.close()
