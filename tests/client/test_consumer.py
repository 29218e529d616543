"""FrameConsumer and a real RabbitMQ: deliveries, verdicts, outages, stops."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest

from engine import Frame, FrameConsumer
from engine.client import subscription
from engine.errors import ConfigError, InputError, ServerRefused
from engine.servers.overrides.pika import close_at_once
from engine.wire import metadata
from engine.wire.metadata import FrameEvent, GopEvent, StatusEvent
from tests.client.consuming import (
    DEAD,
    EVENT_KEY,
    QUEUE,
    Seen,
    Tenant,
    both_queues,
    consume,
    declared,
    encoded,
    join,
    running,
)
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import ROOT, Site
from tests.wire.test_metadata import GOP_EXAMPLE, STATUS

logging.getLogger("pika").setLevel(logging.CRITICAL)
#: What they do with the broker is the same for each kind of Redis.
pytestmark = pytest.mark.one_server


@pytest.fixture
def process(tenant: Tenant, shared_redis: RedisServer) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts consumers as processes; what still runs after the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(mode: str, *more: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "tests.client.consumer_process", tenant.url, shared_redis.url, mode, *more]
        started.append(subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.communicate()


def test_changes_of_state_are_called_where_they_are_wanted(make, tenant):
    statuses: list[StatusEvent] = []
    with running(consumer := make(Seen(), on_status=statuses.append)):
        tenant.publish(metadata.encode_event(STATUS), key=f"{EVENT_KEY}.status")
        wait_until(lambda: statuses, 20, "a status came")
        wait_until(lambda: consumer.counts.statuses == 1, 20, "it is counted")
    assert statuses == [STATUS]


def test_finished_gops_are_called_where_they_are_wanted(make, tenant):
    gops: list[GopEvent] = []
    with running(consumer := make(Seen(), on_gop=gops.append)):
        tenant.publish(GOP_EXAMPLE, key=f"{EVENT_KEY}.video")
        wait_until(lambda: consumer.counts.gops == 1, 20, "it is counted")
    assert gops == [metadata.decode_event(GOP_EXAMPLE)]


@both_queues
def test_events_for_others_are_accepted_and_called_for_nobody(make, tenant, queue):
    """A queue that is bound to all keys gets events that its consumer did not ask for, and events of other programs."""
    event = tenant.event()
    seen = Seen()
    with running(consumer := make(seen, queue=queue, dead_letter=DEAD, routing_keys=["camera.metadata.#"])):
        tenant.publish(
            GOP_EXAMPLE, metadata.encode_event(STATUS), b'{"event_type":"door_opened","width":"wide"}', event
        )
        seen.has(1)
        wait_until(lambda: consumer.counts.frames == 1, 20, "it is counted")
        counts = consumer.counts
        assert (counts.gops, counts.statuses, counts.others, counts.malformed) == (1, 1, 1, 0)
    assert seen.events == [event]
    assert tenant.waiting(DEAD) == 0


def test_a_message_is_acknowledged_only_when_its_callback_has_returned(make, tenant, process):
    declared(make, tenant, dead_letter=DEAD)
    event = tenant.event()
    tenant.publish(event)
    first = process("hang")
    assert first.stdout is not None
    assert first.stdout.readline() == "1\n"
    assert tenant.waiting() == 0
    first.kill()
    seen = Seen()
    with running(consumer := make(seen, queue=QUEUE, dead_letter=DEAD)):
        seen.has(1)
    assert seen.events == [event]
    assert consumer.counts.redelivered == 1
    assert (tenant.waiting(), tenant.waiting(DEAD)) == (0, 0)


@both_queues
@pytest.mark.parametrize("attempts", [1, 3])
def test_a_callback_that_raises_gets_the_message_so_many_times_and_then_it_is_dead_lettered(
    make, tenant, queue, attempts
):
    bad, good = tenant.event(), tenant.event()
    seen = Seen(lambda event: event == bad)
    with running(consumer := make(seen, queue=queue, attempts=attempts, dead_letter=DEAD)):
        tenant.publish(bad, good)
        wait_until(lambda: tenant.waiting(DEAD), 20, "it is dead-lettered")
        wait_until(lambda: good in seen.events, 20, "the other one came")
    assert seen.events.count(bad) == attempts
    assert seen.events.count(good) == 1
    assert tenant.take_all() == [encoded(bad)]
    counts = consumer.counts
    assert (counts.failed, counts.redelivered) == (attempts, attempts - 1)
    assert (counts.frames, counts.dead_lettered, counts.dropped) == (1, 1, 0)


def test_a_message_comes_again_after_the_pause(make, tenant):
    times: list[float] = []

    def callback(*_: object) -> None:
        times.append(time.monotonic())
        raise ValueError

    with running(make(callback, queue=QUEUE, retry_seconds=0.3)):
        tenant.publish(tenant.event())
        wait_until(lambda: len(times) == 3, 20, "three tries")
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.3


@both_queues
def test_without_a_dead_letter_queue_it_is_dropped_and_counted(make, tenant, queue):
    bad, good = tenant.event(), tenant.event()
    seen = Seen(lambda event: event == bad)
    with running(consumer := make(seen, queue=queue)):
        tenant.publish(bad, good)
        wait_until(lambda: consumer.counts.dropped, 20, "it is dropped")
    assert (seen.events.count(bad), seen.events.count(good)) == (3, 1)
    assert consumer.counts.dead_lettered == 0
    if queue:
        assert tenant.waiting() == 0


@both_queues
def test_what_is_no_event_is_dead_lettered_at_once_and_the_next_one_comes(make, tenant, queue):
    event = tenant.event()
    bodies = [
        b"", b"\xff\xfe", b"{", b"[1]", b"{}", b"[" * 50_000, encoded(event).replace(b"640", b"-1"),
        b"[" + encoded(event) + b',{"camera_id":"x"}]',
    ]  # fmt: skip
    seen = Seen()
    with running(consumer := make(seen, queue=queue, dead_letter=DEAD)):
        tenant.publish(*bodies, event)
        seen.has(1)
        wait_until(lambda: tenant.waiting(DEAD) == len(bodies), 20, "all are dead-lettered")
    assert sorted(tenant.take_all()) == sorted(bodies)
    assert seen.events == [event]
    counts = consumer.counts
    assert (counts.malformed, counts.dead_lettered, counts.redelivered) == (len(bodies), len(bodies), 0)


@both_queues
def test_of_a_batch_only_what_failed_is_called_again(make, tenant, queue):
    events = tenant.events(40)
    seen = Seen(lambda event: event == events[35] and seen.events.count(event) < 3)
    with running(consumer := make(seen, queue=queue, dead_letter=DEAD)):
        tenant.publish(events)
        seen.has(42)
        wait_until(lambda: consumer.counts.frames == 40, 20, "all are accepted")
    assert seen.events == [*events, events[35], events[35]]
    assert tenant.waiting(DEAD) == 0
    assert (consumer.counts.failed, consumer.counts.redelivered) == (2, 2)


def test_a_message_that_kills_its_consumer_is_dead_lettered_and_takes_no_neighbour_along(make, tenant, process):
    declared(make, tenant, attempts=3, dead_letter=DEAD)
    events = tenant.events(6)
    tenant.publish(*events)
    called: list[int] = []
    for _ in range(3):
        child = process("poison")
        assert child.wait(30) == -signal.SIGKILL
        called += [int(line) for line in child.stdout]
    wait_until(lambda: tenant.waiting(DEAD) == 1, 20, "it is dead-lettered")
    seen = Seen()
    with running(make(seen, queue=QUEUE, attempts=3, dead_letter=DEAD)):
        wait_until(lambda: set(called) | set(seen.numbers) == {1, 2, 3, 4, 5, 6}, 20, "all else is done")
    assert tenant.waiting() == 0
    assert tenant.take_all() == [encoded(events[1])]
    assert (called + seen.numbers).count(2) == 3


def test_a_connection_that_the_broker_closes_is_made_anew_and_nothing_is_called_twice(make, tenant):
    """The callback that runs meanwhile ends after the break: its tag means nothing on the next connection."""
    entered, may_return = threading.Event(), threading.Event()
    seen = Seen()

    def callback(event: FrameEvent, frame: Frame | None) -> None:
        seen(event, frame)
        entered.set()
        assert may_return.wait(30)

    consumer = make(callback, queue=QUEUE, dead_letter=DEAD)
    with running(consumer):
        events = tenant.events(3)
        tenant.publish(*events)
        assert entered.wait(30)
        tenant.cut()
        wait_until(lambda: consumer.counts.reconnects == 1, 20, "it has connected again")
        more = tenant.events(3)
        tenant.publish(*more)
        may_return.set()
        wait_until(lambda: len(seen.calls) == 6, 20, "all came")
        wait_until(lambda: consumer.counts.received >= 7, 20, "the first came again, and was not called")
    assert seen.events == [*events, *more]
    assert (tenant.waiting(), tenant.waiting(DEAD)) == (0, 0)


def test_what_was_accepted_of_a_batch_before_its_connection_broke_is_not_called_again(make, tenant):
    entered, may_return = threading.Event(), threading.Event()
    seen, events = Seen(), tenant.events(50)

    def callback(event: FrameEvent, frame: Frame | None) -> None:
        seen(event, frame)
        if event == events[40]:
            entered.set()
            assert may_return.wait(30)

    consumer = make(callback, queue=QUEUE, dead_letter=DEAD)
    with running(consumer):
        tenant.publish(events)
        assert entered.wait(30)
        tenant.cut()
        wait_until(lambda: consumer.counts.reconnects == 1, 20, "it has connected again")
        may_return.set()
        wait_until(lambda: events[-1] in seen.events, 20, "the rest is called")
    assert seen.events == events


def test_a_broker_that_hangs_when_it_is_met_again_is_left_for_another(tenant, shared_redis, monkeypatch):
    """It does not count as one that works, though the try takes as long as a connection that does."""
    connect, hosts = subscription.open_blocking, []

    def open_blocking(settings: pika.ConnectionParameters) -> pika.BlockingConnection:
        hosts.append(settings.host)
        if len(hosts) > 1 and settings.host == hosts[0]:
            time.sleep(0.3)
            raise pika.exceptions.AMQPConnectionError("no answer")
        return connect(settings)

    monkeypatch.setattr(subscription, "_SETTLED_SECONDS", 0.2)
    monkeypatch.setattr(subscription, "open_blocking", open_blocking)
    urls = [tenant.url, tenant.url.replace("127.0.0.1", "localhost")]
    seen = Seen()
    with running(FrameConsumer(urls, shared_redis.url, seen, queue=QUEUE)):
        tenant.publish(tenant.event())
        seen.has(1)
        tenant.cut()
        tenant.publish(tenant.event())
        seen.has(2)
    assert hosts == ["127.0.0.1", "127.0.0.1", "localhost"]


def test_an_exclusive_queue_is_made_anew_with_its_connection(make, tenant):
    seen = Seen()
    with running(consumer := make(seen)):
        tenant.publish(tenant.event())
        seen.has(1)
        tenant.cut()
        wait_until(lambda: consumer.counts.reconnects == 1, 20, "it has connected again")
        tenant.publish(tenant.event())
        seen.has(2)
    assert seen.numbers == [1, 2]


def test_a_queue_that_is_deleted_under_a_consumer_is_made_anew(make, tenant):
    seen = Seen()
    with running(consumer := make(seen, queue=QUEUE)):
        tenant.publish(tenant.event())
        seen.has(1)
        with tenant.channel() as channel:
            channel.queue_delete(QUEUE)
        wait_until(lambda: consumer.counts.reconnects == 1, 20, "it has connected again")
        tenant.publish(tenant.event())
        seen.has(2)


def test_a_broker_that_is_killed_and_comes_back_loses_nothing(make, tenant, rabbitmq):
    events = tenant.events(60)
    seen = Seen()
    with running(consumer := make(seen, queue=QUEUE, dead_letter=DEAD)):
        tenant.publish(*events[:30])
        seen.has(30)
        # What a quorum queue is made of goes to the disk up to a second late, unlike its messages.
        rabbitmq.eval("[dets:sync(Table) || Table <- dets:all()]")
        rabbitmq.kill()
        rabbitmq.start()
        wait_until(lambda: consumer.counts.reconnects >= 1, 60, "it has connected again")
        tenant.publish(*events[30:])
        wait_until(lambda: set(seen.numbers) == set(range(1, 61)), 30, "all came")
    assert tenant.waiting(DEAD) == 0
    assert consumer.counts.failed == 0


def test_a_consumer_waits_for_a_broker_that_is_away_at_first(make, tenant, shared_redis, caplog):
    from tests.servers.wait import free_port

    port = free_port()
    url = f"amqp://user:geheim@127.0.0.1:{port}/x"
    consumer = FrameConsumer(url, shared_redis.url, Seen())
    with running(consumer):
        wait_until(lambda: caplog.text.count("; retrying") >= 2, 20, "it tries again")
    assert "geheim" not in caplog.text
    assert f"RabbitMQ at 127.0.0.1:{port} refused the connection; retrying" in caplog.text


@both_queues
def test_no_more_than_the_prefetch_is_held(make, tenant, queue):
    entered, may_return = threading.Event(), threading.Event()
    seen = Seen()

    def callback(event: FrameEvent, frame: Frame | None) -> None:
        seen(event, frame)
        entered.set()
        assert may_return.wait(30)

    with running(make(callback, queue=queue, prefetch=7)):
        tenant.publish(*tenant.events(20))
        assert entered.wait(30)
        if queue:
            wait_until(lambda: tenant.waiting() == 13, 20, "7 are held")
        else:
            wait_until(lambda: tenant.held() == 7, 20, "7 are held")
        may_return.set()
        seen.has(20)
    assert seen.numbers == list(range(1, 21))


def test_stop_in_a_callback_ends_after_it_and_the_rest_goes_back(make, tenant):
    seen = Seen()

    def callback(event: FrameEvent, frame: Frame | None) -> None:
        seen(event, frame)
        if len(seen.calls) == 3:
            consumer.stop()

    consumer = make(callback, queue=QUEUE)
    thread = threading.Thread(target=consumer.run)
    thread.start()
    tenant.publish(*tenant.events(10))
    join([thread])
    assert seen.numbers == [1, 2, 3]
    wait_until(lambda: tenant.waiting() == 7, 60, "seven are back")
    rest = Seen()
    with running(make(rest, queue=QUEUE)):
        rest.has(7)
    assert sorted(rest.numbers) == list(range(4, 11))


def test_the_end_of_a_connection_costs_each_message_one_delivery(tenant):
    """Also messages that pika has received and not passed on, of two consumers as a subscription has them."""
    connection = tenant.broker.connect(tenant.vhost)
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    for _ in range(20):
        channel.basic_publish("", QUEUE, b"")
    for prefetch in (1, 63):
        channel.basic_qos(prefetch_count=prefetch)
        channel.basic_consume(QUEUE, lambda *_: None)
    # Its answer comes behind messages, and nothing is passed on meanwhile.
    wait_until(lambda: channel.queue_declare(QUEUE, passive=True).method.message_count == 0, 20, "all are under way")
    close_at_once(connection)
    wait_until(lambda: tenant.waiting() == 20, 60, "all are back")
    with tenant.channel() as channel:
        found = [channel.basic_get(QUEUE, auto_ack=True)[1].headers for _ in range(20)]
    assert [headers["x-delivery-count"] for headers in found] == [1] * 20


def test_stop_within_a_batch_ends_there_and_the_batch_goes_back(make, tenant):
    events = tenant.events(5)
    seen = Seen(lambda event: event == events[1] and consumer.stop())
    consumer = make(seen, queue=QUEUE)
    with running(consumer):
        tenant.publish(events)
        seen.has(2)
    assert seen.events == events[:2]
    wait_until(lambda: tenant.waiting() == 1, 20, "the batch is back")


def test_stop_before_run_is_kept(make):
    consumer = make(Seen())
    consumer.stop()
    consumer.run()


def test_a_consumer_runs_once_and_says_so(make):
    consumer = make(Seen())
    consumer.stop()
    consumer.stop()
    consumer.run()
    consumer.stop()
    with pytest.raises(InputError, match="has run already; make another one"):
        consumer.run()
    with pytest.raises(InputError, match="has run already; make another one"):
        asyncio.run(consumer.run_async())


@pytest.mark.parametrize("options", [{}, {"callback": print, "on_status": "x"}])
def test_a_callback_that_cannot_be_called_is_refused_before_it_costs_a_message(options):
    with pytest.raises(InputError, match="must be functions"):
        FrameConsumer("amqp://box/v", "box", **({"callback": None} | options))


def test_a_consumer_is_shown_without_its_password():
    consumer = FrameConsumer("amqp://user:geheim@box/v", "redis://:geheim@box", print, queue="mine")
    assert repr(consumer) == "FrameConsumer('amqp://***@box/v', queue='mine')"
    assert "geheim" not in str(consumer)


def test_sigterm_ends_a_process_after_its_callback_and_the_rest_goes_back(make, tenant, process, short_path: Path):
    declared(make, tenant, dead_letter=DEAD)
    tenant.publish(*tenant.events(5))
    go_on = short_path / "go-on"
    child = process("wait", str(go_on))
    assert child.stdout is not None
    assert child.stdout.readline() == "1\n"
    child.terminate()
    # Only once the process stands still for this one is it known to have seen the signal.
    wait_until(lambda: not _pending(child.pid, signal.SIGTERM), 20, "the signal is taken")
    assert child.poll() is None
    go_on.touch()
    assert child.wait(30) == 0
    assert child.stdout.read() == ""
    wait_until(lambda: tenant.waiting() == 4, 20, "four are back")


def _pending(pid: int, number: int) -> bool:
    lines = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return bool((int(lines["SigPnd"], 16) | int(lines["ShdPnd"], 16)) >> (number - 1) & 1)


def test_signals_stop_it_in_the_main_thread_and_their_handlers_are_put_back(make, tenant):
    before = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    for number in (signal.SIGINT, signal.SIGTERM):
        consumer = make(lambda *_, number=number: os.kill(os.getpid(), number), queue=QUEUE)
        publisher = threading.Thread(target=tenant.publish, args=(tenant.event(),))
        publisher.start()
        consumer.run()
        publisher.join(30)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
        assert consumer.counts.frames == 1
    assert tenant.waiting() == 0


def test_a_second_interrupt_ends_a_callback_that_does_not_return(make, tenant):
    def callback(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it was not interrupted")

    publisher = threading.Thread(target=tenant.publish, args=(tenant.event(),))
    publisher.start()
    with pytest.raises(KeyboardInterrupt):
        make(callback, queue=QUEUE).run()
    publisher.join(30)
    wait_until(lambda: tenant.waiting() == 1, 20, "the message is back")


def test_a_callback_slower_than_the_heartbeat_keeps_its_connection(make, tenant):
    """A broker gives up a connection that was silent for two heartbeats, of a second each here."""
    seen = Seen()

    def callback(event: FrameEvent, frame: Frame | None) -> None:
        seen(event, frame)
        if len(seen.calls) == 1:
            threading.Event().wait(4)

    with running(consumer := make(callback, queue=QUEUE, heartbeat_seconds=1)):
        tenant.publish(*tenant.events(2))
        seen.has(2)
        wait_until(lambda: consumer.counts.frames == 2, 20, "both are done")
    assert (consumer.counts.reconnects, consumer.counts.redelivered) == (0, 0)
    assert tenant.waiting() == 0


def test_one_that_always_fails_takes_nothing_from_another(make, tenant):
    healthy, broken = Seen(), Seen(lambda _: True)
    stuck = threading.Event()
    consumers = [
        make(healthy, queue="healthy"), make(broken, queue="broken"), make(lambda *_: stuck.wait(30), prefetch=1),
    ]  # fmt: skip
    with running(*consumers):
        wait_until(lambda: tenant.bound() == 6, 20, "all listen")
        tenant.publish(*tenant.events(100))
        healthy.has(100)
        stuck.set()
        wait_until(lambda: consumers[1].counts.dropped == 100, 20, "the other one has dropped them")
    assert healthy.numbers == list(range(1, 101))
    assert consumers[0].counts.redelivered == 0
    assert len(broken.calls) == 300


def test_refusals_end_it_with_advice_and_without_secrets(make, tenant, rabbitmq, shared_redis, vhost):
    rabbitmq.add_user(f"reader-{vhost}", "geheim", vhost, configure="nothing")
    with tenant.channel() as channel:
        channel.queue_declare("classic", durable=True)
    cases = [
        (rabbitmq.url(vhost, password="geheim2"), {}, "user and password"),
        (rabbitmq.url(f"no-{vhost}"), {}, "vhost"),
        (rabbitmq.url(vhost, f"reader-{vhost}", "geheim"), {}, "permission"),
        (tenant.url, {"exchange_durable": False}, "exchange_durable"),
        (tenant.url, {"queue": "classic"}, "queue classic exists .* with x-queue-type none, not quorum"),
    ]
    for url, options, advice in cases:
        with pytest.raises(ServerRefused, match=advice) as refused:
            FrameConsumer(url, shared_redis.url, Seen(), **options).run()
        assert "geheim" not in str(refused.value)
        assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"prefetch": 0}, "prefetch"),
        ({"prefetch": 70_000}, "prefetch"),
        ({"attempts": 0}, "attempts"),
        ({"retry_seconds": -1}, "retry_seconds"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"dead_letter": ""}, "dead_letter"),
        ({"dead_letter": "q", "queue": "q"}, "dead_letter"),
        ({"routing_keys": "a.b"}, "routing_keys"),
        ({"routing_keys": ()}, "routing_keys"),
        ({"amqp_url": "http://u:geheim@host/"}, "AMQP URL"),
        ({"amqp_url": "amqp://u:geheim@host/?nonsense=1"}, "AMQP URL"),
        ({"redis_url": "embedded"}, "embedded"),
        ({"redis_url": "http://host"}, "redis"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_connected(options, part):
    given = {"amqp_url": "amqp://u:geheim@127.0.0.1:1/", "redis_url": "127.0.0.1:1", **options}
    with pytest.raises(InputError, match=part) as refused:
        FrameConsumer(given.pop("amqp_url"), given.pop("redis_url"), Seen(), **given)
    assert "geheim" not in str(refused.value)


def test_a_site_without_a_broker_announces_nothing(site: Site):
    site.write(cameras=[{"id": "cam1", "url": "test://"}])
    with pytest.raises(ConfigError, match="amqp_url"):
        FrameConsumer.from_site(site.file, Seen())


def test_a_coroutine_function_is_awaited_in_its_own_loop(make, tenant):
    seen = Seen()

    async def callback(event: FrameEvent, frame: Frame | None) -> None:
        await asyncio.sleep(0)
        seen(event, frame)

    async def main() -> None:
        consumer = make(callback, queue=QUEUE)
        task = asyncio.create_task(consumer.run_async())
        await asyncio.to_thread(tenant.publish, *tenant.events(3))
        await asyncio.to_thread(seen.has, 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert consumer.counts.frames == 3

    asyncio.run(main())
    assert seen.numbers == [1, 2, 3]
    with pytest.raises(InputError, match="run_async"):
        make(callback).run()


class TestCommand:
    """``edge-video consume``."""

    def test_listens_until_sigterm_shows_states_and_hides_its_passwords(self, site, tenant, shared_redis):
        site.write(
            cameras=[{"id": "cam1", "url": "test://"}], redis={"address": shared_redis.address}, amqp_url="amqp://x/"
        )
        with consume("-c", str(site.file), "--status", "--dead-letter", DEAD, AMQP_URL=tenant.url) as child:
            wait_until(lambda: tenant.bound() == 3, 20, "it listens")
            tenant.publish(b"no event", tenant.event())
            tenant.publish(metadata.encode_event(STATUS), key=f"{EVENT_KEY}.status")
            assert child.stdout is not None
            assert child.stdout.readline().endswith("there\n")
            assert child.stdout.readline() == f"cam4  {STATUS.timestamp}  stalled  3 failures  sent nothing\n"
            # The broker's URL stands in its environment, which the title covers as well.
            for name in ("cmdline", "environ"):
                assert "guest" not in Path(f"/proc/{child.pid}/{name}").read_text()
            child.terminate()
            _, errors = child.communicate(timeout=30)
        assert child.returncode == 0
        assert "not an event" in errors
        assert tenant.take_all() == [b"no event"]

    def test_a_reader_that_leaves_ends_it_and_costs_nothing(self, tenant, shared_redis):
        arguments = ["--redis", shared_redis.url, "--queue", QUEUE]
        with consume(*arguments, AMQP_URL=tenant.url) as child:
            wait_until(lambda: tenant.bound() == 2, 20, "it listens")
            assert child.stdout is not None
            assert child.stderr is not None
            child.stdout.close()
            tenant.publish(tenant.event())
            child.wait(30)
            assert child.stderr.read() == ""
        wait_until(lambda: tenant.waiting() == 1, 20, "the message is back")

    @pytest.mark.parametrize(
        ("arguments", "part"),
        [
            (["--redis", "127.0.0.1:1"], "--amqp"),
            (["--amqp", "amqp://u:geheim@127.0.0.1:1/"], "site.toml"),
            (["--redis", "127.0.0.1:1", "--amqp", "http://u:geheim@127.0.0.1:1/"], "AMQP URL"),
            (["--redis", "127.0.0.1:1", "--queue", QUEUE, "--offset", "first"], "add --stream"),
            (["--redis", "127.0.0.1:1", "--stream"], "--stream needs --queue"),
        ],
    )
    def test_refuses_what_cannot_be(self, arguments, part):
        with consume(*arguments, AMQP_URL="") as child:
            _, errors = child.communicate(timeout=30)
        assert child.returncode == 2
        assert part in errors
        assert "geheim" not in errors
