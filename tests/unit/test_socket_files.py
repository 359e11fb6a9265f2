"""The files of unix sockets, which other programs may remove."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from linepool.kernel.listeners import Listener
from linepool.operate.socket_files import SocketFiles


def messages(watched: SocketFiles, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what a look logs."""
    caplog.clear()
    watched.due_at = 0.0
    watched.turn()
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("harm", ["removed", "replaced"])
def test_a_file_that_is_gone_is_told_once(tmp_path: Path, caplog, harm):
    caplog.set_level(logging.ERROR)
    path = str(tmp_path / "socket")
    sockets = [socket.socket(socket.AF_UNIX), socket.create_server(("127.0.0.1", 0))]
    with contextlib.ExitStack() as stack:
        for sock in sockets:
            stack.enter_context(sock)
        sockets[0].bind(path)
        sockets[0].listen()
        master: Any = SimpleNamespace(listeners=[Listener(sockets[0], path), Listener(sockets[1])])
        watched = SocketFiles(master)
        assert messages(watched, caplog) == []

        os.rename(path, path + ".old")
        if harm == "replaced":
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(path)

        gone = f"the file of a listener is gone; start the server again address=unix:{path}"
        assert messages(watched, caplog) == [gone]
        assert messages(watched, caplog) == []
        os.rename(path + ".old", path)
        assert messages(watched, caplog) == []


def test_nothing_is_looked_at_without_a_unix_socket():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        master: Any = SimpleNamespace(listeners=[Listener(sock)])
        assert SocketFiles(master).due_at == float("inf")
