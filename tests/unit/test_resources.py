"""Resources that take others: their order, their scopes, what replaces them, and what is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Annotated, Any, Protocol, Self

import pytest
from attrs import frozen

from linepool import (
    App,
    Argument,
    ClientError,
    Connection,
    JsonRpc,
    Reply,
    RequestTimeout,
    Resp,
    Session,
    SetupError,
)

Events = list[Any]


class Pool:
    """What a database takes."""

    def __init__(self, name: str = "pool") -> None:
        self.name = name


class Database:
    """What handlers take."""

    def __init__(self, name: str = "database") -> None:
        self.name = name


class SqliteDatabase(Database):
    """A kind of it."""


class Store(Protocol):
    """What some handlers ask for."""

    name: str


class Transaction:
    """Around one request."""

    def __init__(self, name: str = "transaction") -> None:
        self.name = name


@frozen
class Note:
    """What a client could send too."""

    text: str


@frozen
class LongNote(Note):
    """A kind of it."""


@pytest.fixture
def events() -> Events:
    """Give a list for what happens."""
    return []


@pytest.fixture
def app() -> App:
    """Give an app."""
    return App()


def logged(events: Events, name: str, value: Any) -> Generator[Any, None, None]:
    """Yield a resource, and log its life."""
    events.append(f"+{name}")
    try:
        yield value
    except BaseException as error:
        events.append(f"{name} {type(error).__name__}")
        raise
    finally:
        events.append(f"-{name}")


def resource(app: App, events: Events, name: str, value: Any, **options: Any) -> Callable[..., Any]:
    """Register a resource that takes nothing."""

    def make() -> Generator[Any, None, None]:
        yield from logged(events, name, value)

    make.__annotations__["return"] = Iterator[type(value)]  # type: ignore[misc]
    make.__name__ = name
    return app.resource(**options)(make)


# -- the graph


def test_they_are_opened_after_those_that_they_take_and_closed_before_them(app, events):
    @app.resource
    def database(pool: Pool) -> Iterator[Database]:
        yield from logged(events, "database", Database(f"database of {pool.name}"))

    resource(app, events, "pool", Pool())

    @app.handler
    def name(db: Database) -> str:
        return db.name

    assert app.ask(b"name\n") == b"database of pool\n"
    assert events == ["+pool", "+database", "-database", "-pool"]


def test_those_that_take_each_other_are_refused_with_the_cycle(app):
    @app.resource
    def pool(database: Database) -> Iterator[Pool]:
        yield Pool()

    @app.resource
    def database(pool: Pool) -> Iterator[Database]:
        yield Database()

    message = r"resources take each other: pool -> database -> pool \(pool at .*, database at .*\)"
    with pytest.raises(SetupError, match=message):
        app.freeze()


def test_one_may_wrap_another_of_its_type(app):
    @app.resource
    def cached(database: Database) -> Iterator[Database]:
        yield Database(f"cached {database.name}")

    @app.resource
    def plain() -> Iterator[Database]:
        yield Database()

    @app.handler
    def name(cached: Database) -> str:
        return cached.name

    assert app.ask(b"name\n") == b"cached database\n"


def test_a_base_class_is_provided_by_the_one_class_that_is_derived_from_it(app):
    resource(app, [], "sqlite", SqliteDatabase("sqlite"))

    @app.handler
    def name(database: Database) -> str:
        return database.name

    assert app.ask(b"name\n") == b"sqlite\n"
    resource(app, [], "other", SqliteDatabase("other"))
    with pytest.raises(SetupError, match="database matches several resources: sqlite, other"):
        app.freeze()


def test_a_resource_may_have_parameters_with_defaults(app):
    @app.resource
    def database(path: str = "/tmp", pool: Pool | None = None) -> Iterator[Database]:
        yield Database(f"{path} {pool}")

    @app.handler
    def name(database: Database) -> str:
        return database.name

    assert app.ask(b"name\n") == b"/tmp None\n"


def _takes_store(store: Store) -> Iterator[Pool]:
    yield Pool()


def _takes_nothing_known(path: str) -> Iterator[Pool]:
    yield Pool()


def _takes_derived(database: SqliteDatabase) -> Iterator[Pool]:
    yield Pool()


def _takes_misspelt(databaes: dict[str, int]) -> Iterator[Pool]:
    yield Pool()


def _is_not_annotated(database) -> Iterator[Pool]:
    yield Pool()


def _is_positional(database: Database, /) -> Iterator[Pool]:
    yield Pool()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_takes_nothing_known, "parameter path: nothing provides str; register a resource: "),
        (
            _takes_derived,
            r"nothing provides SqliteDatabase; resource database at .*test_resources.py:\d+ provides"
            r" Database: did you mean that\?",
        ),
        (
            _takes_misspelt,
            r"nothing provides dict\[str, int\]; register a resource: @app.resource def",
        ),
        (_is_not_annotated, "parameter database: annotate it with the type of a resource, for"),
        (_is_positional, "parameter database must be one that is given by name"),
    ],
)
def test_what_a_resource_cannot_be_given_is_named(app, function, message):
    resource(app, [], "database", Database())
    app.resource(function)
    with pytest.raises(
        SetupError, match=rf"resource {function.__name__} at .*: {message}|{message}"
    ):
        app.freeze()


def test_one_cannot_take_another_that_ends_before_it(app):
    resource(app, [], "transaction", Transaction(), scope="request")

    @app.resource(scope="connection")
    def database(transaction: Transaction) -> Iterator[Database]:
        yield Database()

    message = (
        r"resource database at .*: parameter transaction: resource transaction of the scope request ends"
        r" before those of the scope connection"
    )
    with pytest.raises(SetupError, match=message):
        app.freeze()


def _handler_of_nothing(database: SqliteDatabase) -> None: ...
def _handler_of_store(store: Store | None) -> None: ...
def _handler_of_derived(note: LongNote) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            _handler_of_nothing,
            r"nothing provides SqliteDatabase; resource database at .* provides Data",
        ),
        (
            _handler_of_store,
            r"nothing provides Store; register a resource: @app.resource def store\(",
        ),
        (
            _handler_of_derived,
            r"nothing provides LongNote; resource note at .* provides Note: did you",
        ),
    ],
)
def test_what_a_handler_cannot_be_given_is_not_asked_of_the_client(app, function, message):
    resource(app, [], "database", Database())
    resource(app, [], "note", Note("text"))
    app.handler(function)
    name = function.__name__
    with pytest.raises(SetupError, match=rf"handler {name} at .*: parameter .*: {message}"):
        app.freeze()


def test_what_is_declared_as_an_argument_is_one(app):
    resource(app, [], "note", Note("a resource"))

    @app.handler
    def same(note: Annotated[Note, Argument]) -> str:
        return note.text

    @app.handler
    def derived(note: Annotated[LongNote, Argument]) -> str:
        return note.text

    @app.handler
    def mine(note: Note) -> str:
        return note.text

    script = b'same {"text":"one"}\nderived {"text":"two"}\nmine\n'
    assert app.ask(script) == b"one\ntwo\na resource\n"


# -- shapes


class Managed:
    """A resource that is a context manager."""

    def __init__(self, pool: Pool) -> None:
        self.events = [pool.name]

    def __enter__(self) -> Self:
        self.events.append("entered")
        return self

    def __exit__(self, *_: object) -> None:
        self.events.append("left")


@frozen
class Plain:
    """A resource without an end."""

    pool: Pool


@contextlib.contextmanager
def managed_function(pool: Pool) -> Iterator[Managed]:
    """Make one."""
    with Managed(pool) as managed:
        yield managed


def returns_manager(pool: Pool) -> contextlib.AbstractContextManager[Managed]:
    """Make one."""
    return Managed(pool)


def returns_plain(pool: Pool) -> Plain:
    """Make one."""
    return Plain(pool)


@pytest.mark.parametrize("shape", [Managed, managed_function, returns_manager])
def test_context_managers_are_entered_and_left(app, shape):
    made: list[Managed] = []
    resource(app, [], "pool", Pool())
    assert app.resource(shape) is shape

    @app.handler
    def keep(managed: Managed) -> list[str]:
        made.append(managed)
        return managed.events

    assert app.ask(b"keep\n") == b"pool\nentered\nEND\n"
    assert made[0].events[-1] == "left"


@pytest.mark.parametrize("shape", [Plain, returns_plain])
def test_what_has_no_end_may_simply_be_returned(app, shape):
    resource(app, [], "pool", Pool())
    app.resource(shape)

    @app.handler
    def name(plain: Plain) -> str:
        return plain.pool.name

    assert app.ask(b"name\n") == b"pool\n"


def test_an_async_resource_is_refused(app):
    async def database() -> Database:
        return Database()

    with pytest.raises(SetupError, match=r"resource database at .* is async"):
        app.resource(database)


# -- connections


def test_a_resource_of_a_connection_is_opened_once_and_closed_at_its_end(app, events):
    @app.resource(scope="connection")
    def database(pool: Pool, session: Session) -> Iterator[Database]:
        yield from logged(events, "database", Database(f"{pool.name} of {session.peer}"))

    resource(app, events, "pool", Pool())

    @app.handler
    def name(database: Database) -> str:
        return database.name

    @app.handler
    def other() -> str:
        return ",".join(events)

    @app.on_disconnect
    def bye(database: Database) -> None:
        events.append("bye")

    assert app.ask(b"other\nname\nname\n") == b"+pool\npool of ask\npool of ask\n"
    assert events == ["+pool", "+database", "bye", "-database", "-pool"]


def test_on_connect_may_open_it_and_its_failure_at_the_end_is_logged(app, events, caplog):
    @app.resource(scope="connection")
    def database() -> Iterator[Database]:
        yield Database()
        raise OSError("cannot be closed")

    @app.on_connect
    def hello(database: Database) -> str:
        return database.name

    assert app.ask(b"") == b"database\r\n"
    assert [one.getMessage() for one in caplog.records] == [
        "resource failed to close resource=database"
    ]


def test_hooks_of_a_worker_cannot_take_it(app):
    resource(app, [], "database", Database(), scope="connection")

    @app.resource(scope="batch")
    def transaction(database: Database) -> Iterator[Transaction]:
        yield Transaction()

    def starting(database: Database) -> None: ...
    def failing(exception, request, session, transaction: Transaction) -> None: ...

    app.on_error(failing)
    with pytest.raises(SetupError, match="transaction of the scope batch is made for requests"):
        app.freeze()
    app.on_worker_start(starting)
    with pytest.raises(SetupError, match="database of the scope connection is opened for conn"):
        app.freeze()


# -- requests


def breaks(transaction: Transaction) -> Iterator[int]:
    """Fail in the middle of a stream."""
    yield 1
    raise KeyError


@pytest.fixture
def requests(app: App, events: Events) -> App:
    """Give an app with handlers that take a resource of the request."""

    @app.resource(scope="request")
    def transaction(session: Session) -> Iterator[Transaction]:
        yield from logged(events, "tx", Transaction(f"of {session.peer}"))

    @app.handler
    def one(transaction: Transaction) -> int:
        events.append("one")
        return 1

    @app.handler
    def none() -> int:
        return 0

    @app.handler
    def fail(transaction: Transaction) -> None:
        raise KeyError

    @app.handler
    def refuse(transaction: Transaction) -> None:
        raise ClientError("no")

    @app.handler
    def late(transaction: Transaction) -> None:
        raise RequestTimeout("too late")

    @app.handler
    def count(most: int, transaction: Transaction) -> Iterator[int]:
        for number in range(most):
            events.append(number)
            yield number

    app.handler(breaks)

    @app.handler
    def wrapped(transaction: Transaction) -> Reply:
        return Reply(iter([1]), close=True)

    return app


@pytest.mark.parametrize(
    ("script", "happened"),
    [
        (b"none\n", []),
        (b"one\none\n", ["+tx", "one", "-tx", "+tx", "one", "-tx"]),
        (b"one 2\n", []),
        (b"fail\n", ["+tx", "tx KeyError", "-tx"]),
        (b"refuse\n", ["+tx", "tx ClientError", "-tx"]),
        (b"late\n", ["+tx", "tx RequestTimeout", "-tx"]),
        (b"count 2\n", ["+tx", 0, 1, "-tx"]),
        (b"breaks\n", ["+tx", "tx KeyError", "-tx"]),
        (b"wrapped\n", ["+tx", "-tx"]),
    ],
)
def test_a_resource_of_a_request_is_around_its_whole_reply(requests, events, script, happened):
    requests.ask(script)
    assert events == happened


def test_a_request_fails_if_what_is_around_it_cannot_be_ended(app):
    @app.resource(scope="request")
    def transaction() -> Iterator[Transaction]:
        yield Transaction()
        raise ClientError("conflict")

    @app.handler
    def one(transaction: Transaction) -> int:
        return 1

    assert app.ask(b"one\none\n") == 2 * b"CLIENT_ERROR conflict\n"


def test_what_it_raises_in_place_of_an_error_is_the_reply(app):
    @app.resource(scope="request")
    @contextlib.contextmanager
    def transaction() -> Iterator[Transaction]:
        try:
            yield Transaction()
        except KeyError:
            raise ClientError("in other words") from None

    @app.handler
    def fail(transaction: Transaction) -> None:
        raise KeyError

    assert app.ask(b"fail\n") == b"CLIENT_ERROR in other words\n"


def test_those_of_a_request_are_ended_last_first_each_before_what_it_takes(app, events):
    @app.resource(scope="request")
    def outer() -> Iterator[Pool]:
        yield from logged(events, "outer", Pool())

    @app.resource(scope="request")
    def inner(outer: Pool) -> Iterator[Transaction]:
        yield from logged(events, "inner", Transaction(outer.name))

    @app.handler
    def name(transaction: Transaction, pool: Pool) -> str:
        return f"{transaction.name},{pool.name}"

    assert app.ask(b"name\n") == b"pool,pool\n"
    assert events == ["+outer", "+inner", "-inner", "-outer"]


def test_a_savepoint_of_a_request_lies_within_the_transaction_of_its_batch(app, events):
    resource(app, events, "batch", Pool(), scope="batch")

    @app.resource(scope="request")
    def savepoint(batch: Pool) -> Iterator[Transaction]:
        yield from logged(events, "savepoint", Transaction())

    @app.handler
    def write(savepoint: Transaction) -> int:
        return 1

    assert app.ask(b"write\nwrite\n") == b"1\n1\n"
    assert events == ["+batch", *2 * ["+savepoint", "-savepoint"], "-batch"]

    @app.handler
    def stream(savepoint: Transaction) -> Iterator[int]:
        yield 1

    message = (
        "savepoint of the scope request, which takes one of the scope batch, ends before the first"
    )
    with pytest.raises(SetupError, match=message):
        app.freeze()


@pytest.mark.parametrize(
    ("protocol", "script"),
    [
        (
            JsonRpc(),
            b'[{"jsonrpc":"2.0","method":"one","id":1},{"jsonrpc":"2.0","method":"one","id":2}]\n',
        ),
        (Resp(transactions=True), b"MULTI\r\nONE\r\nONE\r\nEXEC\r\n"),
    ],
)
def test_each_part_of_a_request_has_its_own(events, protocol, script):
    app = App(protocol=protocol)
    resource(app, events, "tx", Transaction(), scope="request")

    @app.handler
    def one(tx: Transaction) -> int:
        return 1

    app.ask(script)
    assert events == ["+tx", "-tx", "+tx", "-tx"]


def test_a_hook_cannot_take_it(requests):
    @requests.on_connect
    def hello(transaction: Transaction) -> None: ...

    with pytest.raises(SetupError, match="transaction of the scope request is made for requests"):
        requests.freeze()


# -- middleware


def test_middleware_shares_the_resources_of_the_request(requests, events):
    @requests.middleware
    def audit(request, session, call_next, tx: Transaction):
        value = call_next(request)
        events.append(f"audit {tx.name}")
        return value

    assert requests.ask(b"one\nnone\n") == b"1\n0\n"
    assert events == ["+tx", "one", "audit of ask", "-tx", "+tx", "audit of ask", "-tx"]


def test_generator_middleware_is_given_resources_and_sees_streams_to_their_end(requests, events):
    @requests.middleware
    def around(request, session, tx: Transaction, connection: Connection):
        events.append("begin")
        yield
        events.append(f"end {tx.name} {connection.peer}")

    assert requests.ask(b"count 2\none\n") == b"0\n1\nEND\n1\n"
    assert events == [
        *("+tx", "begin", 0, 1, "end of ask ask", "-tx"),
        *("+tx", "begin", "one", "end of ask ask", "-tx"),
    ]


def test_a_stream_made_by_middleware_shares_them_too(requests, events):
    @requests.middleware
    def doubled(request, session, call_next, tx: Transaction):
        value = call_next(request)
        yield from (value if hasattr(value, "__next__") else [value])

    assert requests.ask(b"count 2\none\n") == b"0\n1\nEND\n1\nEND\n"
    assert events == ["+tx", 0, 1, "-tx", "+tx", "one", "-tx"]


def test_a_handler_that_is_called_a_second_time_has_another_one(requests, events):
    @requests.middleware
    def again(request, session, call_next):
        call_next(request)
        return call_next(request)

    assert requests.ask(b"one\n") == b"1\n"
    assert events == 2 * ["+tx", "one", "-tx"]


def _no_call_next(request, session, pool: Pool): ...
def _unknown(request, session, call_next, database: Database): ...
def _unknown_around(request, session, database: Database):
    yield


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_no_call_next, "the third parameter is call_next, not pool"),
        (_unknown, "parameter database: nothing provides Database; register a resource"),
        (_unknown_around, "parameter database: nothing provides Database; register a resource"),
    ],
)
def test_what_middleware_cannot_be_given_is_named(app, function, message):
    resource(app, [], "pool", Pool())
    app.middleware(function)
    with pytest.raises(SetupError, match=rf"middleware {function.__name__} at .*: {message}"):
        app.freeze()


# -- override


@pytest.fixture
def named(app: App) -> App:
    """Give an app with a handler that names its resource."""

    @app.resource
    def database(pool: Pool) -> Iterator[Database]:
        yield Database(f"of {pool.name}")

    resource(app, [], "pool", Pool())

    @app.handler
    def name(database: Database) -> str:
        return database.name

    return app


def test_a_resource_is_replaced_until_the_block_ends(named):
    with named.override(Database, Database("fake")):
        assert named.ask(b"name\n") == b"fake\n"
        with named.override(Database, Database("inner")):
            assert named.ask(b"name\n") == b"inner\n"
        assert named.ask(b"name\n") == b"fake\n"
    assert named.ask(b"name\n") == b"of pool\n"


def test_a_function_may_make_what_replaces_it(named, events):
    def fake(pool: Pool):
        yield from logged(events, "fake", Database(f"fake-{pool.name}"))

    with named.override(named._resources.functions["database"], fake):
        assert named.ask(b"name\n") == b"fake-pool\n"
    assert events == ["+fake", "-fake"]


def test_what_replaces_one_may_spare_those_that_it_takes(named):
    def unusable() -> Iterator[Pool]:
        raise OSError

    with named.override(Pool, Pool("other")):
        assert b"other" in named.ask(b"name\n")
    with named.override(Pool, None), named.override(Database, Database("fake")):
        assert named.ask(b"name\n") == b"fake\n"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (SqliteDatabase, "SqliteDatabase is neither a resource .* did you mean Database?"),
        (resource, "resource is neither a resource .* the resources are database, pool"),
        (
            "databse",
            "databse is neither a resource of this app nor the type of one; did you mean datab",
        ),
    ],
)
def test_what_is_replaced_must_be_a_resource(named, what, message):
    with pytest.raises(SetupError, match=message), named.override(what, None):
        pass
