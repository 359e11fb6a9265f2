"""Our clients at servers whose clients have to log in."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import pytest

from linepool import (
    App,
    AsyncClient,
    Client,
    ClientError,
    JsonRpc,
    Line,
    Resp,
    Secret,
    ServerError,
    Session,
    cli,
)
from linepool.client import ConnectionFailed, LoginRefused
from linepool.testing import async_client, client, serve

PASSWORD = "r\u00e9 \"x'"


def check(user: str, password: Secret) -> str | None:
    if user == "broken":
        raise OSError("no database")
    return user.upper() if password == PASSWORD else None


def _whoami(session: Session) -> str:
    return str(session.user)


whoami: Any = _whoami  # which clients call without a session
whoami.__name__ = "whoami"


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def vault(protocol: Any = None) -> App:
    app = App("vault", protocol=protocol)
    app.authenticate(check)
    app.handler(whoami)
    app.handler(crash)
    return app


PROTOCOLS = pytest.mark.parametrize(
    "protocol", [Line(), JsonRpc(), Resp()], ids=["line", "jsonrpc", "resp"]
)


@PROTOCOLS
def test_a_client_logs_in_on_each_connection(protocol):
    with serve(vault(protocol), workers=2) as server:
        ann = server.client(user="ann", password=PASSWORD, retries=False)
        assert ann.call(whoami) == "ANN"
        with ann.pipeline() as block:
            found = [block.call(whoami) for _ in range(3)]
        assert [one.result() for one in found] == ["ANN"] * 3
        with pytest.raises(ConnectionFailed):
            ann.call(crash)
        assert ann.call(whoami) == "ANN"
        assert list(ann.stream(whoami)) in (["ANN"], [b"ANN"])


@PROTOCOLS
def test_a_refused_log_in_is_an_error_of_its_own(protocol):
    with serve(vault(protocol), workers=1) as server:
        wrong = server.client(user="ann", password="hush")
        for attempt in (lambda: wrong.call(whoami), lambda: next(wrong.stream(whoami))):
            with pytest.raises(LoginRefused, match="refuses the log-in of 'ann'") as caught:
                attempt()
            assert "hush" not in repr(caught.value)
        with pytest.raises(LoginRefused), wrong.pipeline() as block:
            block.call(whoami)
        with pytest.raises(ServerError, match="internal error"):
            server.client(user="broken", password="x").call(whoami)
        with pytest.raises(ClientError, match=r"(?i)authentication required"):
            server.client().call(whoami)
        assert "hush" not in repr(vars(wrong)) + repr(vars(wrong._flow))


def test_a_client_of_asyncio_logs_in():
    async def call(address: str, **options: Any) -> str:
        async with AsyncClient(address, **options) as calls:
            return "".join(await asyncio.gather(*(calls.call(whoami) for _ in range(3))))

    with serve(vault(), workers=2) as server:
        assert asyncio.run(call(server.address, user="ann", password=PASSWORD)) == "ANN" * 3
        with pytest.raises(LoginRefused):
            asyncio.run(call(server.address, user="ann", password="x"))


@PROTOCOLS
def test_a_client_in_the_same_process_logs_in(protocol):
    app = vault(protocol)
    with client(app, user="ann", password=PASSWORD) as calls:
        assert calls.call(whoami) == "ANN"
    with client(app, user="ann", password="x") as calls, pytest.raises(LoginRefused):
        calls.call(whoami)

    async def call() -> Any:
        async with async_client(app, user="bob", password=PASSWORD) as calls:
            return await calls.call(whoami)

    assert asyncio.run(call()) == "BOB"


def test_a_server_without_log_ins_refuses_one():
    app = App()
    app.handler(whoami)
    refused = pytest.raises(LoginRefused, match="unknown command 'AUTH'")
    with client(app, user="ann", password="x") as calls, refused:
        calls.call(whoami)


@pytest.mark.parametrize(
    "options", [{"user": "ann"}, {"password": "x"}, {"user": 3, "password": "x"}]
)
def test_user_and_password_belong_together(options):
    with pytest.raises(ValueError, match="user and password belong together"):
        Client("7000", **options)


def test_a_password_of_redis_needs_no_user():
    app = App(protocol=Resp(password="open"))
    app.handler(whoami)
    with client(app, password="open") as calls:
        assert calls.call(whoami) == "default"


def test_commands_log_in(monkeypatch, capfd):
    def run(*words: str) -> tuple[Any, str, str]:
        try:
            status: Any = cli.main([*words])
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
        return status, *capfd.readouterr()

    monkeypatch.delenv("LINEPOOL_PASSWORD", raising=False)
    with serve(vault(), workers=1) as server:
        at = server.address
        status, _, error = run("call", at, "whoami")
        assert (status, "authentication required" in error) == (1, True)
        with open(os.devnull) as nothing:
            monkeypatch.setattr("sys.stdin", nothing)
            status, _, error = run("call", "--user", "ann", at, "whoami")
            assert (status, "LINEPOOL_PASSWORD" in error) == (2, True)
        monkeypatch.setenv("LINEPOOL_PASSWORD", PASSWORD)
        assert run("call", "--user", "ann", at, "whoami")[:2] == (0, "ANN\n")
        assert "def whoami(" in run("stub", "--user", "ann", at)[1]
        monkeypatch.setenv("LINEPOOL_PASSWORD", "hush")
        status, _, error = run("call", "--user", "ann", at, "whoami")
        assert (status, "refuses the log-in of 'ann'" in error, "hush" in error) == (1, True, False)
