"""Resources that are checked, and opened anew when they are broken."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from linepool import App, RequestTimeout, ServerError, SetupError

INTERNAL = b"SERVER_ERROR internal error, id "


class Server:
    """What a database connects to."""

    def __init__(self) -> None:
        self.is_up = True
        self.started = 0
        self.log: list[str] = []

    def restart(self) -> None:
        """End all connections."""
        self.started += 1


class Database:
    """A connection to a server."""

    def __init__(self, server: Server) -> None:
        server.log.append("connect" if server.is_up else "refused")
        if not server.is_up:
            raise ConnectionRefusedError("the database is down")
        self.server = server
        self.opened_for = server.started

    @property
    def is_alive(self) -> bool:
        """Whether the server has not been restarted since."""
        return self.server.is_up and self.opened_for == self.server.started

    def query(self) -> str:
        """Answer."""
        if not self.is_alive:
            raise ConnectionResetError("gone")
        return "answer"

    def close(self) -> None:
        """Note that."""
        self.server.log.append("close")


class Table:
    """What takes a database."""

    def __init__(self, database: Database) -> None:
        self.database = database


def is_alive(database: Database) -> bool:
    """Check a database."""
    database.server.log.append("check")
    return database.is_alive


@pytest.fixture
def server() -> Server:
    """Give a server of databases."""
    return Server()


def app_of(server: Server, scope: str = "worker", check: Any = is_alive, after: float = 0.0) -> App:
    """Return an app whose handlers use a database, and a table of it."""
    app = App()

    @app.resource(scope=scope, check=check, check_after=after)
    def database() -> Iterator[Database]:
        database = Database(server)
        yield database
        database.close()

    @app.resource(scope=scope)
    def table(database: Database) -> Iterator[Table]:
        yield Table(database)
        server.log.append("table closed")

    @app.handler
    def query(database: Database) -> str:
        return database.query()

    @app.handler
    def through(table: Table) -> str:
        return table.database.query()

    @app.handler
    def down() -> None:
        server.is_up = False
        server.restart()

    @app.handler
    def up() -> None:
        server.is_up = True
        server.restart()

    @app.handler
    def restart() -> None:
        server.restart()

    @app.handler
    def fail() -> None:
        raise KeyError

    @app.handler
    def give_up() -> None:
        raise ServerError("no database")

    return app


def ask(app: App, script: str) -> list[bytes]:
    """Return the reply to each word; errors without their ids."""
    said = app.ask("".join(f"{word}\n" for word in script.split()).encode()).splitlines()
    return [INTERNAL.strip() if line.startswith(INTERNAL) else line for line in said]


FAILED = INTERNAL.strip()


@pytest.mark.parametrize("scope", ["worker", "connection"])
def test_a_broken_one_is_opened_anew_with_those_that_take_it(server, scope):
    app = app_of(server, scope)
    said = ask(app, "through query restart query query through")
    assert said == [b"answer", b"answer", b"OK", FAILED, b"answer", b"answer"]
    assert server.log == [
        *("connect", "check", "table closed", "close", "connect"),
        *("table closed", "close"),
    ]


def test_what_takes_a_broken_one_is_not_used_before_it_is_opened_anew(server):
    assert ask(app_of(server), "through restart through through") == [
        *(b"answer", b"OK", FAILED, b"answer")
    ]


@pytest.mark.parametrize("failure", ["fail", "give_up"])
def test_it_is_checked_after_each_server_error_and_kept_if_it_is_well(server, failure):
    ask(app_of(server), f"query {failure} query query")
    assert server.log == ["connect", "check", "table closed", "close"]


def test_it_is_not_checked_otherwise(server):
    ask(app_of(server), "query query fro")
    assert server.log == ["connect", "table closed", "close"]


def test_a_check_that_returns_none_says_that_it_is_well(server):
    ask(app_of(server, check=lambda _: None), "query fail query")
    assert server.log == ["connect", "table closed", "close"]


def test_a_check_that_raises_says_that_it_is_broken(server, caplog):
    def check(database: Database) -> None:
        raise OSError("no answer")

    caplog.set_level(logging.INFO)
    ask(app_of(server, check=check), "query fail query")
    assert server.log == ["connect", "table closed", "close", "connect", "close"]
    assert "resource is broken: closed resource=database why='OSError: no answer'" in caplog.text


def test_a_check_that_exceeds_the_time_of_the_request_has_failed(server):
    def check(database: Database) -> None:
        server.log.append("slow")
        raise RequestTimeout("too late")

    said = ask(app_of(server, check=check), "query fail query query")
    assert said == [b"answer", FAILED, b"SERVER_ERROR too late", b"answer"]
    assert server.log[:4] == ["connect", "slow", "table closed", "close"]


def test_it_is_not_tried_too_often_while_it_cannot_be_opened(server, caplog, monkeypatch):
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO)
    app = app_of(server)

    @app.handler
    def wait() -> None:
        now[0] += 0.15

    ok, answer = b"OK", b"answer"
    said = ask(app, "query down query query query wait query up query wait wait query")
    assert said[:2] == [answer, ok]
    assert said[2:7] == [
        FAILED,
        FAILED,
        FAILED,
        ok,
        FAILED,
    ]  # it breaks, is tried, not tried; tried
    assert said[7:] == [ok, FAILED, ok, ok, answer]  # the pause is longer after the second failure
    assert server.log.count("refused") == 2
    assert "resource database could not be opened: ConnectionRefusedError: the database is" in (
        caplog.text
    )
    assert "resource opened again resource=database failures=2" in caplog.text


def test_it_is_checked_when_its_time_has_come(server, monkeypatch):
    app = app_of(server, after=60.0)
    now_ns = [10**9]
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns[0])
    with app.worker() as resources:
        for seconds in (0, 59, 2, 1):
            now_ns[0] += int(seconds * 1e9)
            resources.look_if_due()
            resources["table"]
    assert server.log == ["connect", "check", "table closed", "close"]


def test_resources_of_an_open_batch_are_not_cut_off_from_what_they_take(server):
    app = app_of(server)

    @app.resource(scope="batch")
    def transaction(database: Database) -> Iterator[list[int]]:
        yield []
        server.log.append(f"commit {database.is_alive}")

    @app.handler
    def write(transaction: list[int]) -> int:
        transaction.append(1)
        return len(transaction)

    assert ask(app, "write fail query write") == [b"1", FAILED, b"answer", b"2"]
    assert server.log == ["connect", "commit True", "table closed", "close"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "batch", "check": is_alive}, "check is for the scopes worker and connection"),
        ({"check": lambda: True}, r"check <lambda> at .* must take \(value\)"),
        ({"check": "text"}, "'text' is not a function"),
        ({"check": is_alive, "check_after": -1}, "check_after must be seconds, 0 or more, not -1"),
    ],
)
def test_what_cannot_check_is_refused(options, message):
    with pytest.raises(SetupError, match=message):

        @App().resource(**options)
        def database() -> Iterator[Database]:
            yield Database(Server())
