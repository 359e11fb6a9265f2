"""Publish/subscribe across machines: messages/s and latency beside one machine; an engine is killed.

Two servers and a redis-server on this machine. Run it with ``./dev bench bridge``.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

_APP = "from linepool import App, Resp\n\napp = App('bench', protocol=Resp())\n"
_SILENCE = 3.0  # seconds after which nothing more comes


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until a port is listened on."""
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)


@contextlib.contextmanager
def running(*command: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sys.stderr) as process:
        try:
            wait_for(port)
            yield process
        finally:
            process.terminate()


def engine(port: int) -> Any:
    """Run the engine."""
    command = ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    return running(*command, port=port)


class Reader:
    """A subscriber in a thread: how late each message came."""

    def __init__(self, port: int) -> None:
        self.late_s: list[float] = []
        self.last_at = 0.0
        self._pubsub = redis.Redis(port=port, protocol=2).pubsub()
        self._pubsub.subscribe("c")
        self._pubsub.get_message(timeout=5)
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _read(self) -> None:
        while found := self._pubsub.get_message(timeout=_SILENCE):
            self.last_at = time.monotonic()
            self.late_s.append(self.last_at - float(found["data"].split()[0]))


def publish(port: int, count: int, rate: float, batch: int) -> tuple[float, float]:
    """Publish messages of 100 bytes; return when that began and ended."""
    began = time.monotonic()
    with redis.Redis(port=port, protocol=2) as client:
        for start in range(0, count, batch):
            if rate:
                time.sleep(max(0.0, began + start / rate - time.monotonic()))
            with client.pipeline(transaction=False) as pipe:
                for _ in range(batch):
                    pipe.publish("c", f"{time.monotonic():<100}")
                pipe.execute()
    return began, time.monotonic()


def measure(name: str, reader_port: int, port: int, count: int, rate: float, batch: int) -> None:
    """Print one row."""
    with Reader(reader_port) as reader:
        began, ended = publish(port, count, rate, batch)
    late = sorted(reader.late_s)
    p50, p99 = (late[int(len(late) * part)] * 1e3 for part in (0.5, 0.99))
    speed = len(late) / (reader.last_at - began)
    print(
        f"{name:<34} published {count / (ended - began):7.0f}/s  received {speed:7.0f}/s"
        f"  p50 {p50:7.2f} ms  p99 {p99:7.2f} ms  lost {count - len(late)}",
        flush=True,
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="./dev bench bridge", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="in each measurement")
    options = parser.parse_args()
    count = options.messages
    ports = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        app = Path(directory) / "bench.py"
        app.write_text(_APP)
        killable = stack.enter_context(contextlib.ExitStack())
        process = killable.enter_context(engine(ports[2]))
        for port in ports[:2]:
            command = [sys.executable, "-m", "linepool", "run", str(app), "--workers", "2"]
            command += [
                "--bind",
                f"127.0.0.1:{port}",
                "--bridge",
                f"redis://127.0.0.1:{ports[2]}/0",
            ]
            stack.enter_context(running(*command, "--log-level", "warning", port=port))
        time.sleep(2)  # the bridges have connected
        for rate, batch, what in ((2000, 1, "2,000/s"), (0, 100, "full speed")):
            used = count if not rate else min(count, 10_000)
            measure(f"one machine, {what}", ports[0], ports[0], used, rate, batch)
            measure(f"across machines, {what}", ports[1], ports[0], used, rate, batch)

        def restart() -> None:
            time.sleep(2)
            process.kill()
            process.wait()
            time.sleep(1)
            killable.enter_context(engine(ports[2]))

        thread = threading.Thread(target=restart)
        thread.start()
        name = "engine killed, back after 1 s"
        measure(name, ports[1], ports[0], 10_000, 1000, 1)
        thread.join()


if __name__ == "__main__":
    main()
