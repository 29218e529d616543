"""Messages as AMQP frames: the bytes that pika makes of the same message."""

from __future__ import annotations

import pika
import pika.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika.spec import Basic

from engine.wire.amqp import ACK_BYTES, FRAME_OVERHEAD_BYTES, Ack, MessageFraming, leading_acks
from tests.examples import examples

#: What fits a short string of AMQP.
short = st.text(max_size=60).filter(lambda text: len(text.encode()) <= 255)


def pikas(channel: int, exchange: str, key: str, content_type: str, body: bytes, *, mandatory: bool) -> bytes:
    properties = pika.BasicProperties(content_type=content_type, delivery_mode=2)
    return b"".join(
        part.marshal()
        for part in (
            pika.frame.Method(channel, Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)),
            pika.frame.Header(channel, len(body), properties),
            pika.frame.Body(channel, body),
        )
    )


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(1, 65_535), short, short, short.filter(bool), st.binary(min_size=1, max_size=500), st.booleans())
def test_messages_are_framed_as_pika_frames_them(channel, exchange, key, content_type, body, mandatory):
    framing = MessageFraming(channel, exchange, key, content_type, mandatory=mandatory)
    expected = pikas(channel, exchange, key, content_type, body, mandatory=mandatory)
    assert framing.frame(body) == expected
    assert framing.frame(body) == expected, "the second message of a framing"


def test_a_message_is_framed_as_the_specification_says():
    framing = MessageFraming(1, "x", "k", "application/json", mandatory=True)
    assert framing.frame(b"{}").hex(" ") == (
        "01 00 01 00 00 00 0b 00 3c 00 28 00 00 01 78 01 6b 01 ce "
        "02 00 01 00 00 00 20 00 3c 00 00 00 00 00 00 00 00 00 02 90 00 "
        "10 61 70 70 6c 69 63 61 74 69 6f 6e 2f 6a 73 6f 6e 02 ce "
        "03 00 01 00 00 00 02 7b 7d ce"
    )


def test_a_frame_around_a_body_takes_what_is_said():
    assert len(pika.frame.Body(1, b"body").marshal()) == len(b"body") + FRAME_OVERHEAD_BYTES


def test_a_name_that_no_short_string_holds_is_an_error():
    with pytest.raises(ValueError, match=r"range\(0, 256\)"):
        MessageFraming(1, "x" * 256, "k", "application/json", mandatory=False)


acks = st.lists(st.builds(Ack, st.integers(1, 2**64 - 1), st.booleans()), max_size=5)


def pikas_ack(ack: Ack, channel: int = 1) -> bytes:
    return pika.frame.Method(channel, Basic.Ack(delivery_tag=ack.tag, multiple=ack.multiple)).marshal()


@settings(max_examples=examples(200), deadline=None)
@given(acks, st.data())
def test_confirms_are_found_up_to_the_first_other_or_partial_frame(found: list[Ack], data: st.DataObject):
    others = [
        b"",
        pikas_ack(Ack(5, False), channel=2),
        pikas_ack(Ack(5, False))[: data.draw(st.integers(0, ACK_BYTES - 1))],
        pika.frame.Method(1, Basic.Nack(delivery_tag=5)).marshal(),
        pika.frame.Heartbeat().marshal(),
    ]
    behind = data.draw(st.sampled_from(others)) + data.draw(st.sampled_from([b"", pikas_ack(Ack(6, False))]))
    if behind[:ACK_BYTES] == pikas_ack(Ack(6, False)):
        found = [*found, Ack(6, False)]
        behind = behind[ACK_BYTES:]
    assert leading_acks(b"".join(map(pikas_ack, found)) + behind, 1) == found


def test_a_confirm_is_what_the_specification_says():
    frame = bytes.fromhex("01 0001 0000000d 003c 0050 0000000000000007 01 ce")
    assert leading_acks(frame, 1) == [Ack(7, True)]
    assert leading_acks(frame[:-1] + b"\x00", 1) == []
