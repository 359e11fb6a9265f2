"""Publish and subscribe across workers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

import pytest

import linepool
from linepool import App, ClientError, Connection, Resp
from linepool.pubsub.bus import Bus
from linepool.testing import serve
from tests.clients.harness import TIMEOUT, redis_client
from tests.servers import children_of


@pytest.fixture(scope="module")
def server():
    with serve(App(protocol=Resp(transactions=True)), workers="6:8", idle_timeout=0.3) as running:
        yield running


@pytest.mark.parametrize("version", [2, 3])
def test_redis_py_gets_what_another_worker_publishes(server, version):
    with (
        redis_client(server, protocol=version) as publisher,
        redis_client(server, protocol=version) as reader,
    ):
        with reader.pubsub() as subscriber:
            subscriber.subscribe("news", "other")
            subscriber.psubscribe("n*s")
            kinds = [subscriber.get_message(timeout=TIMEOUT) for _ in range(3)]
            assert [(kind["type"], kind["data"]) for kind in kinds] == [
                ("subscribe", 1),
                ("subscribe", 2),
                ("psubscribe", 3),
            ]
            assert publisher.pubsub_channels() == ["news", "other"]
            assert publisher.pubsub_numsub("news", "none") == [("news", 1), ("none", 0)]
            assert publisher.pubsub_numpat() == 1
            assert publisher.publish("news", "hello") == 2
            first, second = (subscriber.get_message(timeout=TIMEOUT) for _ in range(2))
            assert (first["type"], first["channel"], first["data"]) == ("message", "news", "hello")
            assert (second["type"], second["pattern"]) == ("pmessage", "n*s")
            subscriber.unsubscribe("news")
            assert subscriber.get_message(timeout=TIMEOUT)["type"] == "unsubscribe"
            assert publisher.publish("news", "again") == 1
        while publisher.pubsub_channels():  # until the worker has seen the end of the connection
            pass


def test_a_subscriber_is_never_idle(server):
    with server.connect() as quiet:
        quiet.send(b"SUBSCRIBE c\r\n")
        for _ in range(6):
            quiet.line()
        quiet.socket.settimeout(0.6)
        with pytest.raises(TimeoutError):  # longer than idle_timeout
            quiet.line()


def test_messages_keep_their_order(server):
    count = 10_000
    with redis_client(server) as reader, reader.pubsub() as subscriber:
        subscriber.subscribe("c")
        subscriber.get_message(timeout=TIMEOUT)
        pid = os.fork()
        if pid == 0:
            try:
                with redis_client(server) as other:
                    for start in range(0, count, 100):
                        with other.pipeline(transaction=False) as pipe:
                            for number in range(start, start + 100):
                                pipe.publish("c", number)
                            pipe.execute()
            finally:
                os._exit(0)
        seen = [int(subscriber.get_message(timeout=TIMEOUT)["data"]) for _ in range(count)]
        os.waitpid(pid, 0)
    assert seen == list(range(count))


def test_a_large_message_arrives_whole(server):
    text = "x" * 1_000_000
    with (
        redis_client(server) as reader,
        reader.pubsub() as subscriber,
        redis_client(server) as publisher,
    ):
        subscriber.subscribe("large")
        subscriber.get_message(timeout=TIMEOUT)
        assert publisher.publish("large", text) == 1
        assert subscriber.get_message(timeout=TIMEOUT)["data"] == text


def test_a_dead_worker_leaves_no_subscription():
    with (
        serve(App(protocol=Resp()), workers=3) as server,
        redis_client(server) as reader,
        reader.pubsub() as subscriber,
    ):
        subscriber.subscribe("c")
        subscriber.get_message(timeout=TIMEOUT)
        with redis_client(server) as publisher:
            assert publisher.publish("c", "x") == 1
        for pid in children_of(server.pid):  # loader and parker too
            os.kill(pid, signal.SIGKILL)
        with redis_client(server) as other:
            while other.pubsub_numsub("c") != [("c", 0)]:
                pass
            assert other.publish("c", "x") == 0


def test_the_commands_that_a_subscriber_may_send_in_version_2(server):
    with server.connect() as peer:
        peer.send(b"SUBSCRIBE c\r\nGET a\r\nPING\r\nPING x\r\nRESET\r\nPING\r\n")
        lines = [peer.line() for _ in range(19)]
    assert lines[:6] == ["*3", "$9", "subscribe", "$1", "c", ":1"]
    assert lines[6] == (
        "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET"
        " are allowed in this context"
    )
    assert lines[7:] == [
        "*2",
        "$4",
        "pong",
        "$0",
        "",
        "*2",
        "$4",
        "pong",
        "$1",
        "x",
        "+RESET",
        "+PONG",
    ]


def test_unsubscribing_from_everything_and_from_nothing(server):
    with server.connect() as peer:
        peer.send(b"UNSUBSCRIBE\r\nSUBSCRIBE a b\r\nUNSUBSCRIBE\r\n")
        lines = [peer.line() for _ in range(29)]
    assert lines[:5] == ["*3", "$11", "unsubscribe", "$-1", ":0"]
    assert lines[-1] == ":0"


def test_a_line_protocol_can_publish_too():
    class Shouting(linepool.Line):
        publishes = True

    app = App(protocol=Shouting())

    @app.handler
    def listen(channel: str, connection: Connection) -> None:
        connection.subscribe(channel.encode())

    @app.handler
    def say(channel: str, text: linepool.Rest, pubsub: linepool.PubSub) -> int:
        return pubsub.publish(channel.encode(), text.encode())

    with serve(app, workers=2) as server, server.connect() as one, server.connect() as other:
        assert one.ask("listen news") == "OK"
        assert other.ask("say news hello all") == "1"
        assert one.line() == "hello all"


def test_a_pool_can_be_larger_than_the_usual_limit_of_descriptors():
    with serve(App(protocol=Resp()), workers="2:600") as server, server.connect() as peer:
        peer.send(b"SUBSCRIBE c\r\n")
        assert [peer.line() for _ in range(6)][-1] == ":1"
        with server.connect() as other:
            other.send(b"PUBLISH c x\r\n")
            assert other.line() == ":1"
        assert peer.line() == "*3"


def test_a_protocol_that_does_not_publish_says_so():
    app = App()

    @app.handler
    def listen(connection: Connection) -> None:
        connection.subscribe(b"x")

    with serve(app) as server:
        assert server.ask("listen") == "CLIENT_ERROR this server does not publish messages"


def test_a_subscriber_that_does_not_read_is_cut_off_and_the_others_get_their_messages():
    with (
        serve(App(protocol=Resp()), workers=4, write_timeout=0.2) as server,
        server.connect() as deaf,
        redis_client(server) as reader,
        reader.pubsub() as subscriber,
    ):
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.send(b"SUBSCRIBE c\r\n")
        deaf.line()
        subscriber.subscribe("c")
        subscriber.get_message(timeout=TIMEOUT)
        with redis_client(server) as publisher:
            sent = 0
            while publisher.pubsub_numsub("c") != [("c", 1)]:
                publisher.publish("c", "x" * 50_000)
                sent += 1
                assert len(subscriber.get_message(timeout=TIMEOUT)["data"]) == 50_000
            assert sent > 1


def test_subscriptions_are_read_whole_while_another_process_writes_them():
    bus = Bus(2)
    endpoint = bus.endpoint(0)
    assert endpoint is not None
    pid = os.fork()
    if pid == 0:
        for number in range(5000):
            bus.write(0, [(False, b"%d" % number * 200), (True, b"%d" % number * 200)])
        os._exit(0)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        for _, topics in bus.topics():
            assert len({name for _, name in topics}) == 1
    bus.close()


def test_subscriptions_that_are_too_large_are_refused():
    with contextlib.closing(Bus(2)) as bus:
        assert bus.endpoint(0) is not None

        with pytest.raises(ClientError, match="too long"):
            bus.write(0, [(False, b"x" * 70_000)])


def test_a_slot_beyond_the_last_has_no_end_of_the_bus():
    with contextlib.closing(Bus(2)) as bus:
        assert bus.endpoint(2) is None
