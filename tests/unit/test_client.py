"""Clients and servers that misbehave: what a call then does, on both clients."""

import asyncio
import contextlib
import os
import socket
import threading
import time

import pytest

from linepool import App, AsyncClient, Client, ServerError
from linepool.client import CallTimeout, ConnectionFailed, endpoint
from linepool.client.core import arguments_text
from linepool.client.endpoint import Endpoint, choose
from linepool.client.request import prepare

REPLY = b'@1 *\n= {"a":[1]}\n$ 3\na\nb\n.\n'
VALUE = [{"a": [1]}, b"a\nb"]
FOREVER = None


class FakeServer:
    """A server that sends each connection the next of some texts when a line has come, and closes it.

    Args:
        texts: What it sends. FOREVER: nothing, until the client leaves.
        greeting: What it sends to each connection at once.

    Attributes:
        lines: How many lines it has read.
    """

    def __init__(self, *texts, greeting=b""):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._texts = list(texts)
        self._greeting = greeting
        self.address = "127.0.0.1:{1}".format(*self._listener.getsockname())
        self.lines = 0
        self._closed = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def until_closed(self):
        """Wait until it has closed a connection more."""
        self._closed.acquire()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._answer(connection)
            self._closed.release()

    def _answer(self, connection):
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
            connection.sendall(self._greeting)
            if not stream.readline():
                return
            self.lines += 1
            text = self._texts.pop(0)
            if text is FOREVER:
                stream.read()
            else:
                connection.sendall(text)


class BlockingCalls:
    """The blocking client, as the tests use both."""

    def __init__(self, *addresses, idempotent=False, **options):
        self.client = Client(*addresses, **options).with_options(idempotent=idempotent)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def call(self, *words):
        return self.client.call(*words)

    def stream(self, *words):
        return list(self.client.stream(*words))

    def pipeline(self, count):
        with self.client.pipeline() as pipeline:
            return [pipeline.call("f") for _ in range(count)]


class AsyncCalls:
    """The client for asyncio, one call after the other."""

    def __init__(self, *addresses, idempotent=False, **options):
        self._runner = asyncio.Runner()
        self.client = AsyncClient(*addresses, **options).with_options(idempotent=idempotent)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        async def close():
            self.client.close()

        self._runner.run(close())
        self._runner.run(asyncio.sleep(0))
        self._runner.close()

    def call(self, *words):
        return self._runner.run(self.client.call(*words))

    def stream(self, *words):
        async def values():
            return [value async for value in self.client.stream(*words)]

        return self._runner.run(values())

    def pipeline(self, count):
        async def send():
            async with self.client.pipeline() as pipeline:
                return [pipeline.call("f") for _ in range(count)]

        return self._runner.run(send())


@pytest.fixture(params=[BlockingCalls, AsyncCalls], ids=["blocking", "asyncio"])
def open_client(request):
    with contextlib.ExitStack() as stack:
        yield lambda *given, **options: stack.enter_context(request.param(*given, **options))


def unused_address():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return "127.0.0.1:{1}".format(*listener.getsockname())


def test_a_server_that_dies_at_any_byte_of_its_reply_is_reported(open_client):
    cuts = [REPLY[:at] for at in range(len(REPLY))]
    with FakeServer(*cuts) as server:
        client = open_client(server.address)
        for _ in cuts:
            with pytest.raises(ConnectionFailed, match="the connection was closed") as error:
                client.call("f")
            assert error.value.was_sent
        assert server.lines == len(cuts)


def test_an_idempotent_call_is_sent_again_wherever_its_reply_was_cut(open_client):
    for at in range(len(REPLY)):
        with FakeServer(REPLY[:at], REPLY) as server:
            assert open_client(server.address, idempotent=True).call("f") == VALUE
            assert server.lines == 2


def test_a_call_of_a_function_may_be_repeated_if_its_handler_is_idempotent(open_client):
    app = App()

    @app.handler
    def f():
        pass

    with FakeServer(b"", b"", REPLY, b"", b"") as server:
        client = open_client(server.address, idempotent=None)
        with pytest.raises(ConnectionFailed):
            client.call(f)
        App().handler(idempotent=True)(f)
        assert client.call(f) == VALUE
        assert server.lines == 3
        with pytest.raises(ConnectionFailed):
            client.call("f")
        client.client = client.client.with_options(idempotent=False)
        with pytest.raises(ConnectionFailed):
            client.call(f)


def test_a_budget_ends_the_retries(open_client):
    with FakeServer(*[b""] * 50) as server:
        client = open_client(server.address, idempotent=True)
        for _ in range(20):
            with pytest.raises(ConnectionFailed):
                client.call("f")
        assert 25 <= server.lines <= 28  # 5 of 10 tokens, and a tenth of one for each call


def test_without_retries_nothing_is_sent_again(open_client):
    with FakeServer(b"", REPLY) as server:
        client = open_client(server.address, idempotent=True, retries=False)
        with pytest.raises(ConnectionFailed):
            client.call("f")
        assert server.lines == 1


def test_a_stream_that_ends_early_is_an_error(open_client):
    with FakeServer(*(REPLY[:at] for at in range(len(REPLY)))) as server:
        client = open_client(server.address)
        for _ in range(len(REPLY)):
            with pytest.raises(ConnectionFailed):
                client.stream("f")


def test_a_pipeline_keeps_the_replies_that_came(open_client):
    with FakeServer(b"@1 = 5\n@2 - " + b'{"error":"CLIENT_ERROR","text":"no"}\n@3 =') as server:
        first, second, *others = open_client(server.address).pipeline(4)
        assert first.result() == 5
        with pytest.raises(Exception, match="no"):
            second.result()
        for pending in others:
            with pytest.raises(ConnectionFailed) as error:
                pending.result()
            assert error.value.was_sent


@pytest.mark.parametrize("text", [b"@2 = 5\n", b"5\n", b"@1 = 5\n@1 = 5\n"])
def test_a_connection_that_has_slipped_is_not_used_again(open_client, text):
    with FakeServer(text, REPLY) as server:
        client = open_client(server.address)
        if text.count(b"\n") == 1:
            with pytest.raises(ConnectionFailed, match=r"came|framed"):
                client.call("f")
        else:
            assert client.call("f") == 5
        server.until_closed()
        assert client.call("f") == VALUE


def test_a_refusal_is_raised_with_its_own_type(open_client):
    with (
        FakeServer(
            b"ERROR never sent", greeting=b"SERVER_ERROR too many connections\r\n"
        ) as server,
        pytest.raises(ServerError, match=r"^too many connections$"),
    ):
        open_client(server.address).call("f")


def test_a_reply_that_does_not_come_is_a_timeout(open_client):
    with FakeServer(FOREVER, REPLY) as server:
        client = open_client(server.address, timeout=0.05)
        with pytest.raises(CallTimeout, match="did not reply in time") as error:
            client.call("f")
        assert error.value.was_sent
        assert isinstance(error.value, TimeoutError)


def test_connections_that_the_server_has_closed_are_replaced(open_client):
    with FakeServer(REPLY, REPLY, REPLY) as server:
        client = open_client(server.address)
        for _ in range(3):
            assert client.call("f") == VALUE
            server.until_closed()


def test_no_server_is_an_error_that_names_the_address(open_client):
    address = unused_address()
    client = open_client(address, connect_timeout=0.05)
    with pytest.raises(ConnectionFailed, match=f"^cannot connect to {address}: ") as error:
        client.call("f")
    assert not error.value.was_sent
    assert isinstance(error.value, ConnectionError)


def test_the_reason_of_a_failure_is_kept_though_a_wait_takes_longer_than_it_should(
    open_client, monkeypatch
):
    sleep, async_sleep = time.sleep, asyncio.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds + 0.2))
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: async_sleep(seconds + 0.2))
    address = unused_address()
    client = open_client(address, connect_timeout=0.1)
    with pytest.raises(ConnectionFailed, match=f"^cannot connect to {address}: Connection refused"):
        client.call("f")


def test_a_server_that_does_not_answer_is_named(open_client):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as busy:
        address = busy.getsockname()
        with contextlib.ExitStack() as full:
            for _ in range(2):
                sock = full.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(address)
            client = open_client("{}:{}".format(*address), connect_timeout=0.1)
            with pytest.raises(ConnectionFailed, match=r": (timed out|no answer in time)$"):
                client.call("f")


def test_a_server_that_is_refused_is_replaced_by_another(open_client):
    with FakeServer(*[REPLY] * 8) as server:
        client = open_client(unused_address(), server.address, retries=False)
        for _ in range(8):
            assert client.call("f") == VALUE
            server.until_closed()


def test_a_closed_client_makes_no_calls(open_client):
    client = open_client("127.0.0.1:7000")
    client.client.close()
    with pytest.raises(ConnectionFailed, match="the client is closed"):
        client.call("f")


@pytest.mark.parametrize(
    ("addresses", "options", "text"),
    [
        ([], {}, "a client needs an address"),
        (["nowhere"], {}, "address must be with a port: nowhere:7000; it is HOST:PORT, PORT"),
        (["fd://3"], {}, "for servers only"),
        (["7000"], {"timeout": 0}, "timeout must be seconds, more than 0, not 0"),
        (["7000"], {"connect_timeout": -1}, "connect_timeout must be seconds"),
        (["7000"], {"max_connections": 0}, "max_connections must be 1 or more"),
        (["7000"], {"hooks": print}, "hooks must be a list of generator functions"),
    ],
)
def test_what_a_client_cannot_be_made_with_is_refused(addresses, options, text):
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match=text):
            kind(*addresses, **options)


@pytest.mark.parametrize("name", ["", "a b", "@add", "a\nb", "a\tb"])
def test_a_name_that_cannot_be_one_of_a_command_is_refused(name):
    with pytest.raises(ValueError, match="cannot be the name of a command"):
        Client("7000").call(name)


def test_arguments_of_the_functions_own_types_are_words_and_others_json():
    def pay(amount: int, to: str = "", *more: int, note: str = "") -> None:
        pass

    def lines(*given, **named):
        return prepare(pay, given, named)[0][:2]

    assert lines(5) == (b"pay 5", False)
    assert lines(-5, "ann") == (b"pay -5 ann", False)
    for given in [
        (5, ""),
        (5, "a b"),
        (5, "'a'"),
        (5, "\xe9"),
        (5, "a\n"),
        (True,),
        ("5",),
        (5, "a", 1),
    ]:
        assert lines(*given) == (b"pay " + arguments_text(given, {}), True)
    assert lines(5, note="x") == (b'pay {"amount":5,"note":"x"}', True)
    assert prepare("pay", (5,), {})[0][:2] == (b"pay [5]", True)


def test_addresses_of_clients():
    targets = [
        Endpoint(name, 1).target for name in ("7000", ":7000", "[::1]:7", "unix:/a", "unix:@a")
    ]
    assert targets == [("127.0.0.1", 7000), ("127.0.0.1", 7000), ("::1", 7), "/a", "\0a"]


def test_the_less_loaded_of_two_is_chosen_and_a_refused_one_avoided_for_longer_each_time(
    monkeypatch,
):
    now = 0.0
    monkeypatch.setattr(endpoint, "monotonic", lambda: now)
    busy, idle = Endpoint("1", 4), Endpoint("2", 4)
    held = busy.take()
    assert held is not None
    assert {choose([busy, idle], set()) for _ in range(20)} == {idle}
    for wait in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0):
        idle.refused()
        now += wait - 0.01
        assert choose([busy, idle], set()) is busy
        now += 0.02
        assert choose([busy, idle], set()) is idle
    busy.refused()
    idle.refused()
    assert choose([busy, idle], {busy}) is idle
    idle.accepted()
    assert choose([busy, idle], set()) is idle


def test_a_process_that_is_forked_leaves_the_connections_to_its_parent():
    with FakeServer(b"@1 = 1\n", REPLY) as server, Client(server.address) as client:
        (endpoint,) = client._flow._endpoints
        held = endpoint.take()
        assert held is not None
        lock = endpoint._lock
        with lock:  # as if another thread held it
            pid = os.fork()
            if pid == 0:
                os._exit(
                    bool(
                        client._flow._endpoints[0]._places
                        or lock is client._flow._endpoints[0]._lock
                    )
                )
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert client.call("f") == 1
