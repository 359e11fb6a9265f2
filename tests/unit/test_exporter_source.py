"""What the exporter asks the master: a reply that comes late is not taken for that of the next request."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from linepool.exporter import source as module
from linepool.exporter.source import Source
from linepool.ipc.figures import Figures
from tests.examples.pictures import STATE


def test_a_reply_that_comes_late_is_not_that_of_the_next_request(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    state, incident = json.dumps(STATE).encode(), b'[{"number": 1, "change": 4}]'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/control")
        listener.listen()
        source = Source(f"{tmp_path}/control", Figures(), lambda: 0)
        master, _ = listener.accept()
        with master, master.makefile("rb") as asked:
            master.sendall(state + b"\n")
            with pytest.raises(TimeoutError):  # at EVENTS
                source.ask()
            with pytest.raises(TimeoutError):  # nothing more is asked meanwhile
                source.ask()
            assert asked.readline() == b"STATUS json\n"
            assert asked.readline() == b"EVENTS json 0\n"

            master.sendall(incident + b"\n" + state + b"\n" + incident + b"\n")
            snapshot = source.ask()

            assert snapshot.state["name"] == STATE["name"]
            assert snapshot.incidents == [{"number": 1, "change": 4}]
            assert [asked.readline() for _ in range(2)] == [b"STATUS json\n", b"EVENTS json 0\n"]
            master.sendall(state + b"\n[]\n")
            assert source.ask().incidents == [{"number": 1, "change": 4}]
            source.close()
