"""``FrameConsumer`` on streams and on classic queues, with a real broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine import FrameConsumer
from engine.client import stream_check, subscription
from engine.client.stream_position import StreamPosition
from engine.errors import InputError, ServerRefused
from engine.wire.metadata import FrameEvent
from tests.client.consuming import EVENT_KEY, EXCHANGE, QUEUE, Seen, Tenant, running
from tests.servers.cluster_client import AnyServer
from tests.servers.wait import wait_until

#: What they do with the broker is the same for each kind of Redis.
pytestmark = pytest.mark.one_server


@pytest.fixture
def make(tenant: Tenant, shared_redis: AnyServer) -> Callable[..., FrameConsumer]:
    def make_(callback: Callable[..., Any], **options: Any) -> FrameConsumer:
        options = {"queue": QUEUE, "stream": True, "retry_seconds": 0.05, **options}
        return FrameConsumer(tenant.url, shared_redis.address, callback, **options)

    return make_


@pytest.fixture
def stream(tenant: Tenant) -> Tenant:
    """The tenant, with a stream bound as the recipe in docs/rabbitmq.md makes it."""
    with tenant.channel() as channel:
        channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "stream", "x-max-age": "7D"})
        channel.queue_bind(QUEUE, EXCHANGE, EVENT_KEY)
    return tenant


@pytest.mark.parametrize(
    ("offset", "numbers"), [("first", range(1, 11)), (4, range(5, 11)), (0, range(1, 11))], ids=["first", "4", "0"]
)
def test_what_a_stream_keeps_is_read_from_an_offset_on(make, stream, offset, numbers):
    stream.publish(*stream.events(10))
    seen = Seen()
    consumer = make(seen, offset=offset)
    offsets = []

    def callback(event: FrameEvent, frame: object) -> None:
        offsets.append(consumer.offset)
        seen(event, frame)

    consumer._callback = callback
    with running(consumer):
        seen.has(len(numbers))
        wait_until(lambda: consumer.next_offset == 10, 20, "all are settled")
    assert seen.numbers == list(numbers)
    assert offsets == [number - 1 for number in numbers]


def test_a_stream_is_read_by_time(make, stream):
    stream.publish(*stream.events(5))
    # A broker keeps its chunks' times in milliseconds, and AMQP a time in seconds.
    begun = int(time.time()) + 1
    wait_until(lambda: time.time() >= begun + 0.1, 5, "another second")
    stream.publish(*stream.events(5))
    seen = Seen()
    with running(make(seen, offset=datetime.fromtimestamp(begun, UTC))):
        seen.has(5)
    assert seen.numbers == [6, 7, 8, 9, 10]


def test_next_is_what_comes_after(make, stream):
    stream.publish(*stream.events(5))
    seen = Seen()
    with running(make(seen)):
        # It may be under way to its stream: events go on until one is met.
        wait_until(lambda: stream.publish(*stream.events(1)) or seen.calls, 20, "one is met")
        assert seen.numbers[0] > 5


def test_a_missing_stream_is_made_and_bound(make, tenant):
    seen = Seen()
    with running(make(seen, offset="first")):
        tenant.publish(*tenant.events(3))
        seen.has(3)
    again = Seen()
    with running(make(again, offset="first")):
        again.has(3)
    assert again.numbers == [1, 2, 3]


def test_after_lost_connections_each_event_is_accepted_once(make, stream):
    """One event fails for as long as the connections break: what was accepted behind it does not come again."""
    stream.publish(*stream.events(40))
    broken = [True]
    seen = Seen(lambda event: broken[0] and event.sequence == "00011")
    consumer = make(seen, offset="first", prefetch=10, attempts=100_000)
    with running(consumer):
        for cuts in range(1, 3):
            wait_until(lambda cuts=cuts: seen.numbers.count(11) > 3 * cuts, 20, "the event fails")
            stream.cut()
            wait_until(lambda cuts=cuts: consumer.counts.reconnects == cuts, 20, "it has connected again")
            assert consumer.next_offset == 10
        broken[0] = False
        wait_until(lambda: consumer.next_offset == 40, 20, "all are settled")
    accepted = [number for number in seen.numbers if number != 11]
    assert sorted(accepted) == [number for number in range(1, 41) if number != 11], "each one once"
    assert consumer.counts.frames == 40


def test_a_stream_that_is_deleted_is_made_again_and_read_from_its_beginning(make, stream):
    seen = Seen()
    consumer = make(seen, offset="first")
    with running(consumer):
        stream.publish(*stream.events(20))
        seen.has(20)
        with stream.channel() as channel:
            channel.queue_delete(QUEUE)
        # Its offsets begin at 0 again.
        stream.publish(*stream.events(5))
        seen.has(25)
        wait_until(lambda: consumer.next_offset == 5, 20, "all are settled")
    assert seen.numbers == list(range(1, 26))


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is cleared, no consumer connects."""
    reachable = threading.Event()
    reachable.set()
    connect = subscription.open_blocking

    def open_blocking(*given: Any) -> Any:
        assert reachable.wait(60)
        return connect(*given)

    monkeypatch.setattr(subscription, "open_blocking", open_blocking)
    return reachable


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that brings nothing is looked at soon."""
    monkeypatch.setattr(subscription, "_TURN_SECONDS", 0.1)
    monkeypatch.setattr(stream_check, "_QUIET_SECONDS", 0.2)
    monkeypatch.setattr(stream_check, "_BEHIND_SECONDS", 1.0)


def remake(stream: Tenant) -> None:
    with stream.channel() as channel:
        channel.queue_delete(QUEUE)
        channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "stream"})
        channel.queue_bind(QUEUE, EXCHANGE, EVENT_KEY)


@pytest.mark.parametrize("count", [5, 20, 40], ids=["shorter", "as long", "longer"])
def test_a_stream_that_others_made_again_is_read_from_its_beginning(make, stream, away, soon, caplog, count):
    """Its consumer finds a stream under the same name, and would go on at the offset that it had reached."""
    seen = Seen()
    consumer = make(seen, offset="first")
    with running(consumer):
        stream.publish(*stream.events(20))
        seen.has(20)
        away.clear()
        remake(stream)
        stream.publish(*stream.events(count))
        away.set()
        seen.has(20 + count)
        wait_until(lambda: consumer.next_offset == count, 20, "all are settled")
    assert seen.numbers == list(range(1, 21 + count)), "each one once"
    assert [record.message for record in caplog.records].count(
        f"the stream {QUEUE} was deleted and is made again; it is read from its beginning"
    ) == 1


def test_a_stream_that_is_empty_after_it_was_made_again_is_read_from_its_first_message(make, stream, away, soon):
    seen = Seen()
    consumer = make(seen, offset="first")
    with running(consumer):
        stream.publish(*stream.events(3))
        seen.has(3)
        away.clear()
        remake(stream)
        away.set()
        wait_until(lambda: consumer.counts.reconnects == 1, 20, "it has connected again")
        stream.publish(*stream.events(1))
        seen.has(4)
    assert seen.numbers == [1, 2, 3, 4]


def test_an_offset_behind_the_end_is_one_of_a_stream_that_is_gone(make, stream, soon):
    stream.publish(*stream.events(3))
    seen = Seen()
    with running(make(seen, offset=100)):
        seen.has(3)
    assert seen.numbers == [1, 2, 3]


def test_an_offset_at_the_end_brings_what_comes_next(make, stream, soon, monkeypatch):
    stream.publish(*stream.events(3))
    looks: list[bool] = []
    look = stream_check.StreamCheck.look

    def watched(check: Any) -> None:
        look(check)
        looks.append(check._done)

    monkeypatch.setattr(stream_check.StreamCheck, "look", watched)
    seen = Seen()
    with running(make(seen, offset=3)):
        wait_until(lambda: any(looks), 20, "the end of the stream was met")
        stream.publish(*stream.events(2))
        seen.has(2)
    assert seen.numbers == [4, 5]


def test_what_failed_to_the_last_is_given_up_and_the_stream_goes_on(make, stream):
    stream.publish(*stream.events(3), b"no event", *stream.events(3))
    seen = Seen(lambda event: event.sequence == "00002")
    consumer = make(seen, offset="first", attempts=2, prefetch=1)
    with running(consumer):
        wait_until(lambda: consumer.next_offset == 7, 20, "all are settled")
    assert seen.numbers == [1, 2, 2, 3, 4, 5, 6]
    counts = consumer.counts
    assert (counts.dropped, counts.malformed, counts.failed) == (2, 1, 2)


def test_a_queue_that_is_no_stream_is_refused(make, tenant):
    with tenant.channel() as channel:
        channel.queue_declare(QUEUE, durable=True)
        channel.queue_bind(QUEUE, EXCHANGE, EVENT_KEY)
    tenant.publish(*tenant.events(1))
    with pytest.raises(ServerRefused, match=f"queue {QUEUE} exists in vhost .* is no stream"):
        make(Seen(), offset="first").run()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"offset": "begin"}, "offset 'begin' must be"),
        ({"offset": -1}, "offset -1 is not in"),
        ({"offset": True}, "offset True must be"),
        ({"offset": datetime(2026, 1, 1)}, "has no time zone"),
        ({"offset": datetime.now(UTC) - timedelta(days=36_500)}, "is before 1970"),
        ({"queue": ""}, "needs queue"),
        ({"dead_letter": "dead"}, "no dead_letter"),
        ({"stream": False, "offset": "first"}, "set stream=True"),
        ({"stream": False, "queue_type": "stream"}, "queue_type 'stream' must be"),
    ],
    ids=["word", "negative", "bool", "naive", "old", "unnamed", "dead letters", "no stream", "type"],
)
def test_what_a_stream_cannot_be_asked_is_refused(make, options, part):
    with pytest.raises(InputError, match=part):
        make(Seen(), **options)


def test_a_classic_queue_collects_and_its_failures_are_tried_again(make, tenant):
    seen = Seen(lambda event: event.sequence == "00002")
    options = {"stream": False, "queue_type": "classic", "dead_letter": "dead", "attempts": 3}
    with running(make(Seen(), **options)):
        tenant.publish(b"[]")
    tenant.publish(*tenant.events(4))
    with running(consumer := make(seen, **options)):
        wait_until(lambda: consumer.counts.dead_lettered == 1, 20, "one is given up")
        seen.has(6)
    assert sorted(seen.numbers) == [1, 2, 2, 2, 3, 4]
    assert len(tenant.take_all("dead")) == 1


def test_a_position_reads_on_at_the_first_message_that_is_not_settled():
    position = StreamPosition("next")
    assert position.argument() == "next"
    assert isinstance(position.argument(), datetime), "nothing that came during an outage is passed over"
    for offset in (5, 6, 9):
        assert position.admit(offset, 1)
    position.settle(6)
    assert position.argument() == 5
    assert [position.admit(offset, 2) for offset in (5, 6, 9, 10)] == [True, False, True, True]
    # The stream has dropped its oldest messages: 5 will not come again.
    assert position.admit(9, 3)
    assert position.argument() == 9
    for offset in (9, 10):
        position.settle(offset)
    assert position.next_offset == 11
    assert position.argument() == 10, "a message that is known tells whether the stream is the same"
