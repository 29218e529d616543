"""Which messages count as confirmed, whatever order and grouping the broker's confirms have."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pika.spec import Basic

from engine.config import AmqpSection, Secret
from engine.servers.amqp.broker import Broker
from engine.servers.amqp.parameters import Exchange


@pytest.mark.parametrize(
    ("confirms", "confirmed", "nacked"),
    [
        pytest.param(["ack 3 multiple", "ack 4"], 4, 0, id="all accepted"),
        pytest.param(["ack 2", "ack 1"], 2, 0, id="out of order"),
        # The broker has done with message 3: its next multiple confirm is of 4 and 5 alone.
        pytest.param(["ack 2 multiple", "nack 3", "ack 5 multiple"], 2, 1, id="accepted behind a refused one"),
        pytest.param(["nack 3", "ack 2 multiple", "ack 4 multiple"], 2, 1, id="accepted before a refused one"),
        pytest.param(["ack 1", "nack 3 multiple", "ack 6 multiple"], 1, 2, id="several refused"),
        pytest.param(["nack 4", "nack 2", "ack 6 multiple"], 1, 2, id="refused out of order"),
        pytest.param(["ack 3", "nack 2", "ack 4 multiple"], 1, 1, id="accepted early, behind a refused one"),
    ],
)
def test_a_message_counts_once_it_and_all_before_it_are_accepted(
    confirms: list[str], confirmed: int, nacked: int
) -> None:
    broker = Broker(AmqpSection(Secret("amqp://localhost")), Exchange("camera.metadata"))
    broker._tokens.extend(range(1, 9))
    for confirm in confirms:
        kind, tag, *multiple = confirm.split()
        method = (Basic.Ack if kind == "ack" else Basic.Nack)(int(tag), bool(multiple))
        broker._on_confirm(SimpleNamespace(method=method))
    assert broker.take_confirmed() == list(range(1, confirmed + 1))
    assert broker.nacked == nacked
