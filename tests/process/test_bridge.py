"""Publish and subscribe across machines: two servers, and a real Redis between them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

from linepool import cli
from tests.clients.harness import TIMEOUT, redis_client
from tests.servers import run_server

APP = "from linepool import App, Resp\n\napp = App('shop', protocol=Resp())\n"


class Engine:
    """A Redis that can be killed and started again on its port."""

    def __init__(self, directory, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._directory = directory
        self._options = options
        self._process = None

    def start(self):
        command = ["redis-server", "--port", str(self.port), "--save", "", "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(
            [*command, *self._options],
            # The same binary as redis-server, in redis-tools.
            executable=shutil.which("redis-check-rdb"),
            cwd=self._directory,
            stdout=subprocess.DEVNULL,
        )

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait(TIMEOUT)
            self._process = None

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"


@pytest.fixture
def engine(tmp_path):
    found = Engine(tmp_path)
    yield found
    found.kill()


@contextlib.contextmanager
def machine(directory, url, *options):
    """Run a server with a bridge."""
    directory.mkdir(exist_ok=True)
    app = directory / "shop.py"
    app.write_text(APP)
    with run_server(app, directory, "--workers", "2", "--bridge", url, *options) as server:
        yield server


@contextlib.contextmanager
def subscribed(server, *channels, pattern=None):
    """Give a subscriber."""
    with redis_client(server, decode_responses=False) as client, client.pubsub() as found:
        if channels:
            found.subscribe(*channels)
        if pattern:
            found.psubscribe(pattern)
        for _ in (*channels, *([pattern] if pattern else [])):
            assert found.get_message(timeout=TIMEOUT)["type"].endswith("subscribe")
        yield found


def publish(server, channel, data):
    with redis_client(server) as client:
        return client.publish(channel, data)


def received(subscriber):
    """Return channel and data of the next message."""
    found = subscriber.get_message(timeout=TIMEOUT)
    assert found, "no message has come"
    return found["channel"], found["data"]


def until_bridged(server, subscriber):
    """Publish until a subscriber of another machine gets it."""
    give_up_at = time.monotonic() + TIMEOUT
    while not (found := subscriber.get_message(timeout=0.1)):
        assert time.monotonic() < give_up_at, "no message came"
        publish(server, "ready", "x")
    while found:
        found = subscriber.get_message(timeout=0.3)


def test_messages_reach_the_other_machine_in_both_directions(tmp_path, engine):
    engine.start()
    with (
        machine(tmp_path / "a", engine.url) as one,
        machine(tmp_path / "b", engine.url) as two,
        subscribed(one, "news", "ready") as at_one,
        subscribed(two, "news", "ready", pattern="n*[s]") as at_two,
    ):
        one.wait_for("bridge: connected to ")
        two.wait_for("bridge: connected to ")
        data = bytes(range(256)) + b"\r\n" * 3
        assert publish(one, "news", data) == 1  # the receivers of its own machine
        assert received(at_one) == (b"news", data)
        assert [received(at_two) for _ in range(2)] == [(b"news", data)] * 2
        long = os.urandom(300_000)
        assert publish(two, "news", long) == 2
        assert [received(at_two) for _ in range(2)] == [(b"news", long)] * 2
        assert received(at_one) == (b"news", long)
        publish(two, "other", "x")
        publish(two, "news", "last")
        assert received(at_one) == (b"news", b"last")  # nothing twice, nothing of other channels
        publish(one, b"n\xff s", b"")
        assert [received(at_two) for _ in range(3)][2] == (b"n\xff s", b"")
        pid = one.status()["processes"]["bridge"]
        os.kill(pid, signal.SIGKILL)
        one.wait_for("bridge died signal=SIGKILL")
        one.until(lambda state: state["processes"]["bridge"] not in (None, pid))
        until_bridged(one, at_two)
        again = one.status()["processes"]["bridge"]
        assert one.stop() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(again, 0)


def test_an_engine_that_is_gone_leaves_one_machine(tmp_path, engine):
    with (
        machine(tmp_path / "a", engine.url) as one,
        machine(tmp_path / "b", engine.url) as two,
        subscribed(one, "news") as at_one,
        subscribed(two, "news", "ready") as at_two,
    ):
        one.wait_for(f"bridge: no connection to {engine.url}, messages stay on this machine: ")
        assert publish(one, "news", "alone") == 1
        assert received(at_one) == (b"news", b"alone")
        one.wait_for("bridge: messages of this machine did not reach others messages=1")
        engine.start()
        one.wait_for("bridge: connected to ")
        two.wait_for("bridge: connected to ")
        until_bridged(one, at_two)
        engine.kill()
        one.wait_for("bridge: no connection to ")
        assert publish(one, "news", "lost") == 1
        engine.start()
        one.wait_for("bridge: connected to ")
        until_bridged(one, at_two)
        two.wait_for("bridge: messages of other machines were missed messages=")
    assert sum("bridge: no connection to " in line for line in one.log) == 2


def test_reload_and_upgrade_keep_the_bridge(tmp_path, engine):
    engine.start()
    with (
        machine(tmp_path / "a", engine.url) as one,
        machine(tmp_path / "b", engine.url) as two,
        subscribed(two, "news", "ready") as at_two,
    ):
        two.wait_for("bridge: connected to ")
        one.wait_for("bridge: connected to ")
        before = one.status()["processes"]["bridge"]
        one.order("RELOAD")
        until_bridged(one, at_two)
        assert one.status()["processes"]["bridge"] == before
        one.order("UPGRADE")
        one.until(lambda state: state["processes"]["bridge"] not in (None, before))
        until_bridged(one, at_two)


def test_the_password_is_not_shown(tmp_path, capsys):
    engine = Engine(tmp_path, "--requirepass", "hush-hush")
    engine.start()
    url = f"redis://:hush-hush@127.0.0.1:{engine.port}/0"
    try:
        with machine(tmp_path / "a", url) as one:
            one.wait_for(f"bridge: connected to redis://***@127.0.0.1:{engine.port}/0")
            assert "hush" not in str(one.status())
        wrong = url.replace("hush-hush", "hush-hush2")
        with machine(tmp_path / "b", wrong) as two:
            two.wait_for("bridge: no connection to redis://***@")
        assert "hush" not in "".join([*one.log, *two.log])
    finally:
        engine.kill()
    assert cli.main(["check", "--settings", "--bridge", url]) == 0
    assert cli.main(["check", "--settings", "--bridge", "redis://:hush/hush@x"]) == 2
    told = capsys.readouterr()
    assert "hush" not in told.out + told.err
    assert "***@127.0.0.1" in told.out
