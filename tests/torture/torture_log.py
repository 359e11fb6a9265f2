"""No fault writes more than 6 lines a minute into the log, on the whole server.

Each fault goes on for some seconds, as fast as a few clients can cause it; lines are counted by what they
have in common, the stacks and tracebacks below them not.
"""

from __future__ import annotations

import contextlib
import re
import resource
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from linepool.testing import Peer
from tests.servers import ServerProcess
from tests.torture.table import show_table

_APP = Path(__file__).with_name("log_app.py")
_MOST = 6
_SECONDS = 5.0
_CLIENTS = 4
_EVENT = re.compile(r"\d{4}-\d\d-\d\dT\S+ (WARNING|ERROR) +([^=]*?)(?: \S+=.*|: .*|$)")
_FEW_FILES = 40

_FAULTS = {
    "handler that fails": b"FAIL x\n" * 500 + b"QUIT\n",
    "reply that is no line": b'FAIL "a\\nb"\n' * 500 + b"QUIT\n",
    "bad requests": b'"\n\r\n*0\nNOTHING\n"x"y\n' * 200 + b"QUIT\n",
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "worker that dies": b"DIE\n",
    "request that hangs": b"HANG\n",
    "boot that fails": b"DIE\n",
    "too many connections": b"",
    "no descriptors": b"",
}
_OPTIONS = {
    "request that hangs": ("--request-timeout", "0.1", "--kill-grace", "0.1"),
    "too many connections": ("--max-connections", "4"),
}


def _cause(server: ServerProcess, data: bytes, until: float) -> int:
    """Send data on one connection after the other; without any, keep the connections open."""
    times = 0
    with contextlib.ExitStack() as stack:
        while time.monotonic() < until:
            with contextlib.suppress(OSError, TimeoutError):
                peer = Peer(server.address)
                times += 1
                if not data:
                    stack.enter_context(peer)
                    time.sleep(0.01)
                    continue
                with peer:
                    peer.send(data)
                    peer.rest()
    return times


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_fault_writes_few_lines(fault, tmp_path):
    options = ("--workers", "4", "--log-limit", str(_MOST), *_OPTIONS.get(fault, ()))
    few_files = fault == "no descriptors"

    def limit_files() -> None:
        if few_files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (_FEW_FILES, _FEW_FILES))

    environment = {"FAULT": "boot"} if fault.startswith("boot") else {}
    workers = ("--workers", "1") if environment else ()
    with ServerProcess(
        tmp_path, _APP, *options, *workers, environment=environment, preexec_fn=limit_files
    ) as server:
        until = time.monotonic() + _SECONDS
        threads = [
            threading.Thread(target=_cause, args=(server, _FAULTS[fault], until))
            for _ in range(_CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.stop()
        kinds = Counter(found[2] for line in server.log if (found := _EVENT.match(line)))
    left_out = sum(int(n) for n in re.findall(r"left out count=(\d+)", server.text))
    kinds.pop("lines left out", None)
    show_table(
        [f"log: {fault}", "lines"],
        [[kind, str(count)] for kind, count in kinds.items()] + [["left out", str(left_out)]],
    )
    assert all(count <= _MOST for count in kinds.values()), kinds
