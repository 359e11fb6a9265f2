"""The app: registration, HELP, hooks, middleware, resources and unknown commands."""

import functools
import logging
from collections.abc import Callable, Generator, Iterator
from typing import Annotated, Any

import pytest

import linepool
from linepool import (
    App,
    ClientError,
    Connection,
    Limits,
    Range,
    Reply,
    Request,
    Resp,
    Rest,
    Session,
    SetupError,
    Verb,
)


def ping() -> str:
    """Check the connection.

    Nothing else happens.
    """
    return "pong"


class Store(dict[str, str]):
    """What a resource yields."""


# -- registration


def test_a_handler_is_named_after_its_function():
    app = App()

    @app.handler
    def ping() -> str:
        return "pong"

    assert ping() == "pong"
    assert app.ask(b"ping\n") == b"pong\n"


def test_one_trailing_underscore_of_the_function_is_dropped():
    app = App()

    @app.handler
    def set_() -> str:
        return "one"

    @app.handler
    def del__() -> str:
        return "two"

    assert app.ask(b"set\ndel_\n") == b"one\ntwo\n"
    assert app.ask(b"set_\n").startswith(b"ERROR unknown command 'set_'")


def test_a_handler_may_have_an_explicit_name_and_aliases():
    app = App()
    app.handler("Say", "TALK")(ping)

    assert app.ask(b"say\ntalk\nSAY\n") == b"pong\n" * 3
    assert app.ask(b"ping\n").startswith(b"ERROR unknown command 'ping'")


def test_one_function_may_be_registered_as_two_separate_commands():
    app = App()
    app.handler("ONE")(ping)
    app.handler("TWO", timeout=1.0)(ping)

    assert app.ask(b"one\ntwo\n") == b"pong\npong\n"
    assert [e.timeout for e in app.freeze().commands[:2]] == [None, 1.0]


def test_a_decorator_call_without_names_uses_the_function_name():
    app = App()
    app.handler()(ping)
    app.handler(timeout=2.5)(help_me)
    entries = {entry.names: entry.timeout for entry in app.freeze().commands}

    assert entries[("PING",)] is None
    assert entries[("HELP_ME",)] == 2.5


def help_me() -> None: ...


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "soon"])
def test_an_invalid_timeout_is_refused(timeout):
    with pytest.raises(SetupError, match="timeout must be seconds, 0 or more, not "):
        App().handler(timeout=timeout)


def test_a_function_stays_as_it_is_with_options_and_without_a_decorator():
    app = App()
    assert app.handler(help_me, timeout=2.5) is help_me  # type: ignore[call-overload]
    assert app.handler("ABS", idempotent=True)(abs) is abs  # which takes no attributes

    assert [entry.timeout for entry in app.freeze().commands][:2] == [2.5, None]
    assert [entry.is_idempotent for entry in app.freeze().commands][:2] == [False, True]


def test_idempotent_is_true_or_false():
    with pytest.raises(SetupError, match="idempotent must be True or False, not 'yes'"):
        App().handler(idempotent="yes")  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["", "a b", "a\tb", "a\nb", "a\0", 5, b"x"])
def test_an_invalid_command_name_is_refused(name):
    with pytest.raises(
        SetupError, match="cannot be the name of a command: it must be one word without blanks"
    ):
        App().handler("FINE", name)


def test_non_ascii_names_are_case_sensitive_beyond_ascii():
    app = App()

    @app.handler
    def größe(*, über: int = 1) -> int:  # noqa: PLC2401 - the names are the claim
        return über

    assert app.ask("größe\nGRößE über 2\n".encode()) == b"1\n2\n"
    assert app.ask("help größe\n".encode()).startswith(b"GR")


def test_two_handlers_for_one_command_are_refused_with_both_locations():
    app = App()

    @app.handler
    def first() -> None: ...

    with pytest.raises(SetupError) as refusal:

        @app.handler("OTHER", "First")
        def second() -> None: ...

    here = r"tests/unit/test_app.py"
    assert str(refusal.value) == (
        f"command FIRST has two handlers: first at {here}:{first.__code__.co_firstlineno}"
        f" and second at {here}:{first.__code__.co_firstlineno + 5}"
    )


def test_an_app_may_replace_a_built_in_command():
    app = App()
    app.handler("HELP")(lambda: "mine")

    assert app.ask(b"help\nquit\nhelp\n") == b"mine\nOK\n"


def test_built_in_commands_can_be_disabled():
    app = App(builtins=False)
    app.handler(ping)

    assert app.ask(b"help\nquit\nping\n") == (
        b"ERROR unknown command 'help'.\nERROR unknown command 'quit'.\npong\n"
    )


def test_an_unknown_setting_is_refused_at_once():
    with pytest.raises(SetupError, match="unknown setting 'workes'; did you mean 'workers'"):
        App(workes=4)  # type: ignore[call-arg]


def test_apps_do_not_share_handlers():
    one, two = App(), App()
    one.handler(ping)

    assert one.has_handlers
    assert not two.has_handlers
    assert two.ask(b"ping\n").startswith(b"ERROR unknown command")


def test_the_module_level_decorators_act_on_the_default_app():
    from linepool.app import default

    names = ("handler", "unknown", "middleware", "resource", "on_start", "on_worker_start")

    for name in (*names, "on_worker_exit", "on_connect", "on_disconnect"):
        assert getattr(linepool, name).__self__ is default


# -- HELP and QUIT


@pytest.fixture
def helped() -> App:
    app = App()
    app.handler(ping)

    @app.handler("ADD", "PLUS")
    def add(a: int, b: Annotated[int, Range(1, 9)] = 1) -> int:
        """Add two whole numbers."""
        return a + b

    @app.handler
    def bare() -> None: ...

    return app


def test_help_lists_every_command_once_with_the_first_line_of_its_docstring(helped):
    assert helped.ask(b"help\n").decode().splitlines() == [
        "PING                     Check the connection.",
        "ADD a:int [b:int(1..9)]  Add two whole numbers.",
        "BARE",
        "HELP [command:str]       List the commands, or explain one.",
        "QUIT                     Close the connection.",
        "END",
    ]


def test_help_for_one_command_shows_its_whole_docstring(helped):
    assert helped.ask(b"help ping\n") == (
        b"PING\nReturns: str\nCheck the connection.\n\nNothing else happens.\nEND\n"
    )
    assert helped.ask(b"HELP plus\n") == (
        b"ADD a:int [b:int(1..9)]\nAlso: PLUS\nReturns: int\nAdd two whole numbers.\nEND\n"
    )
    assert helped.ask(b"help bare\n") == b"BARE\nReturns: OK\nEND\n"


def test_help_for_an_unknown_command_is_a_client_error(helped):
    assert (
        helped.ask(b"help fro\n")
        == b"CLIENT_ERROR unknown command 'fro'. HELP lists the commands.\n"
    )
    assert helped.ask(b'help "a\\nb"\n').count(b"\n") == 1


def test_a_long_usage_moves_only_its_own_description():
    app = App()
    app.handler(ping)

    @app.handler
    def long(aaaaaaaaaaaa: int, bbbbbbbbbbbb: int, cccccccccccc: int, d: int) -> None:
        """Do it."""

    lines = app.ask(b"help\n").decode().splitlines()

    assert lines[0] == "PING".ljust(40) + "  Check the connection."
    assert lines[1].endswith("cccccccccccc:int d:int  Do it.")


def test_a_docstring_line_that_says_end_does_not_end_the_help():
    app = App()

    @app.handler
    def f() -> None:
        """Start.

        END
        """

    assert app.ask(b"help f\n") == b'F\nReturns: OK\nStart.\n\n"END"\nEND\n'


def test_no_request_after_quit_is_executed():
    calls: list[str] = []
    app = App()
    app.handler("RUN")(lambda: calls.append("run"))

    assert app.ask(b"run\nquit\nrun\nru\n") == b"OK\nOK\n"
    assert calls == ["run"]


# -- unknown commands


def test_an_unknown_command_gets_a_one_line_error_and_the_connection_stays_open():
    app = App()
    app.handler(ping)

    assert app.ask(b"fro 1 2\nping\n") == (
        b"ERROR unknown command 'fro'. HELP lists the commands.\npong\n"
    )


def test_the_unknown_handler_gets_commands_without_a_handler():
    app = App()
    app.handler(ping)

    @app.unknown
    def other(verb: Verb, *words: str) -> str:
        return f"{verb} {words}"

    assert app.has_handlers
    assert app.ask(b"fro a b\nping\nx\n") == b"FRO ('a', 'b')\npong\nX ()\n"


def test_an_unknown_handler_alone_is_enough_to_serve():
    app = App(builtins=False)
    app.unknown(ping)

    assert app.has_handlers
    assert app.ask(b"fro\n") == b"pong\n"


def test_the_unknown_handler_may_get_a_verb_that_is_not_utf8():
    app = App()

    @app.unknown
    def other(verb: Verb) -> int:
        return len(verb)

    assert not app.ask(b"\xe9t\xe9\n").startswith(b"SERVER_ERROR")


def test_quoted_words_reach_the_unknown_handler_without_their_quotes():
    app = App()

    @app.unknown
    def other(*words: str) -> str:
        return repr(words)

    assert app.ask(b'fro "a b" c\n') == b"('a b', 'c')\n"


def test_the_unknown_handler_may_take_the_rest_of_the_line():
    app = App()

    @app.unknown
    def other(verb: Verb, text: Rest) -> str:
        return f"{verb}<{text}>"

    assert app.ask(b'fro a  b "c\n') == b'FRO<a  b "c>\n'


def test_the_unknown_handler_may_take_a_data_block():
    app = App()
    app.handler(ping)

    @app.unknown
    def other(verb: Verb, size: int, data: bytes = linepool.body("size")) -> bytes:
        return data

    assert app.ask(b"fro 4\nping\nping\n") == b"ping\npong\n"


# -- middleware

Next = Callable[[Request], Any]


def test_the_first_middleware_registered_is_the_outermost():
    seen: list[str] = []
    app = App()
    app.handler(ping)

    @app.middleware
    def outer(request: Request, session: Session, call_next: Next) -> object:
        seen.append(f"outer {request.verb.decode()} {session.peer}")
        value = call_next(request)
        seen.append(f"outer got {value}")
        return value.upper()

    @app.middleware
    def inner(request: Request, session: Session, call_next: Next) -> object:
        seen.append("inner")
        return f"<{call_next(request)}>"

    assert app.ask(b"ping\n") == b"<PONG>\n"
    assert seen == ["outer ping ask", "inner", "outer got <pong>"]


def test_middleware_may_reply_itself_refuse_or_call_the_handler_twice():
    app = App()
    app.handler(ping)

    @app.middleware
    def guard(request: Request, session: Session, call_next: Next) -> object:
        if request.words == [b"no"]:
            raise ClientError("not you")
        if request.words == [b"mine"]:
            return Reply("mine", close=True)
        return [call_next(request), call_next(request)]

    assert app.ask(b"ping no\nping\nping mine\nping\n") == (
        b"CLIENT_ERROR not you\npong\npong\nEND\nmine\n"
    )


def test_middleware_sees_unknown_commands_and_the_errors_of_handlers():
    seen: list[str] = []
    app = App()

    @app.handler
    def fail() -> None:
        raise KeyError("x")

    @app.middleware
    def watch(request: Request, session: Session, call_next: Next) -> object:
        try:
            return call_next(request)
        except Exception as error:
            seen.append(type(error).__name__)
            raise

    app.ask(b"fro\nfail\nfail 1\n")
    assert seen == ["UnknownCommand", "KeyError", "UsageError"]


def test_failing_middleware_affects_one_request_only():
    app = App()
    app.handler(ping)

    @app.middleware
    def broken(request: Request, session: Session, call_next: Next) -> object:
        if request.words:
            raise ValueError
        return call_next(request)

    reply = app.ask(b"ping x\nping\n")

    assert reply.startswith(b"SERVER_ERROR internal error, id ")
    assert reply.endswith(b"\npong\n")


# -- connection hooks


def test_the_return_value_of_on_connect_greets_the_client():
    app = App()
    app.handler(ping)
    app.on_connect(lambda: None)

    @app.on_connect
    def greet(session: Session) -> str:
        session["greeted"] = True
        return f"hello {session.peer}"

    @app.on_connect
    def rules() -> list[str]:
        return ["be", "kind"]

    @app.handler
    def greeted(session: Session) -> bool:
        return bool(session["greeted"])

    assert app.ask(b"ping\ngreeted\n") == b"hello ask\r\nbe\r\nkind\r\nEND\r\npong\ntrue\n"


def test_on_connect_may_refuse_and_then_no_request_is_executed():
    calls: list[str] = []
    app = App()
    app.handler("RUN")(lambda: calls.append("run"))

    @app.on_connect
    def refuse() -> None:
        raise ClientError("not today")

    @app.on_connect
    def never() -> None:
        calls.append("second hook")

    app.on_disconnect(lambda: calls.append("gone"))

    assert app.ask(b"run\n") == b"CLIENT_ERROR not today\r\n"
    assert calls == ["gone"]


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(3)])
def test_a_failing_on_connect_closes_only_its_connection(error, caplog):
    calls: list[str] = []
    app = App()
    app.handler("RUN")(lambda: calls.append("run"))

    @app.on_connect
    def broken() -> None:
        raise error

    reply = app.ask(b"run\n")

    assert reply.startswith(b"SERVER_ERROR internal error, id ")
    assert reply.count(b"\n") == 1
    assert calls == []
    assert type(error).__name__ in caplog.text


def test_a_greeting_may_be_a_reply_with_full_control():
    app = App()
    app.handler(ping)
    app.on_connect(lambda: Reply(raw=b"220 ready\r\n"))

    assert app.ask(b"ping\n") == b"220 ready\r\npong\n"


def test_on_disconnect_is_called_once_however_the_connection_ends():
    calls: list[object] = []
    app = App()
    app.handler(ping)

    @app.on_disconnect
    def gone(session: Session, connection: Connection) -> None:
        calls.append((session.peer, connection.peer))

    for script in (b"", b"ping\n", b"quit\nping\n", b"pin", b"GET / HTTP/1.1\r\n"):
        app.ask(script)
        assert calls.pop() == ("ask", "ask")
        assert calls == []


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(3)])
def test_a_failing_on_disconnect_is_logged_and_the_others_are_called(error, caplog):
    calls: list[str] = []
    app = App()
    app.handler(ping)

    @app.on_disconnect
    def broken() -> None:
        raise error

    app.on_disconnect(lambda: calls.append("second"))

    assert app.ask(b"ping\n") == b"pong\n"
    assert calls == ["second"]
    assert "on_disconnect failed" in caplog.text


# -- master and worker hooks


def test_on_start_is_called_once_and_worker_hooks_for_each_worker():
    calls: list[str] = []
    app = App()
    app.handler("RUN")(lambda: calls.append("run"))
    app.on_start(lambda: calls.append("start"))
    app.on_worker_start(lambda: calls.append("worker start"))
    app.on_worker_exit(lambda: calls.append("worker exit"))
    app.ask(b"run\n")
    app.ask(b"")

    assert calls == [
        "start",
        *("worker start", "run", "worker exit"),
        *("worker start", "worker exit"),
    ]


def takes_a_word(word: str) -> None: ...
def takes_all_words(*words: str) -> None: ...
def takes_an_option(*, flag: bool = False) -> None: ...
def takes_the_rest(text: Rest) -> None: ...
def takes_a_session(session: Session) -> None: ...
def takes_a_verb(verb: Verb) -> None: ...
def takes_an_undefined_type(thing: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def takes_kwargs(**options: str) -> None: ...


@pytest.mark.parametrize(
    ("moment", "function"),
    [
        *[
            (moment, function)
            for moment in ("on_connect", "on_disconnect", "on_worker_start", "on_worker_exit")
            for function in (
                *(takes_a_word, takes_all_words, takes_an_option),
                *(takes_the_rest, takes_an_undefined_type, takes_kwargs),
            )
        ],
        ("on_worker_start", takes_a_session),
        ("on_worker_exit", takes_a_verb),
    ],
)
def test_a_hook_with_a_parameter_that_cannot_be_injected_is_refused_with_its_location(
    moment, function
):
    app = App()
    getattr(app, moment)(function)

    with pytest.raises(SetupError) as refusal:
        app.freeze()
    line = function.__code__.co_firstlineno
    assert f"{moment} {function.__name__} at tests/unit/test_app.py:{line}: " in str(refusal.value)


def _lying(**attributes: object) -> Callable[[], None]:
    def plain() -> None: ...

    vars(plain).update(attributes)
    return plain


_itself = _lying()
vars(_itself)["__wrapped__"] = _itself
_two_words = _lying()
_two_words.__name__ = "two words"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_itself, "wrapper loop when unwrapping"),
        (_lying(__signature__=5), "unexpected object 5 in __signature__ attribute"),
        (_two_words, "'two words' cannot be the name of a command"),
    ],
)
def test_a_function_that_lies_about_itself_is_refused(function, message):
    def load() -> None:
        app = App()
        app.handler(function)
        app.freeze()

    with pytest.raises(SetupError, match=message):
        load()


async def late() -> None: ...


@pytest.mark.parametrize("moment", ["on_connect", "on_start", "on_worker_start", "unknown"])
def test_an_async_hook_is_refused_when_it_is_registered(moment):
    with pytest.raises(SetupError, match=r"late at .* is async"):
        getattr(App(), moment)(late)


# -- resources


def test_a_resource_is_open_for_the_life_of_a_worker_and_injected_by_type():
    events: list[str] = []
    app = App()

    @app.resource
    def database() -> Iterator[Store]:
        events.append("open")
        yield Store(a="1")
        events.append("close")

    @app.on_worker_start
    def ready(store: Store) -> None:
        events.append(f"ready {store}")

    @app.on_worker_exit
    def leaving(store: Store) -> None:
        events.append("leaving")

    @app.on_connect
    def connected(store: Store) -> None:
        events.append("connected")

    @app.handler
    def get(key: str, store: Store) -> str:
        return store[key]

    @app.handler
    def put(store: Store, key: str, value: str) -> None:
        store[key] = value

    assert app.ask(b"get a\nput b 2\nget b\n") == b"1\nOK\n2\n"
    assert events == ["open", "ready {'a': '1'}", "connected", "leaving", "close"]


def test_resources_of_one_type_are_distinguished_by_name():
    app = App()

    @app.resource
    def red() -> Iterator[Store]:
        yield Store(name="red")

    @app.resource
    def blue() -> Generator[Store, None, None]:
        yield Store(name="blue")

    @app.handler
    def both(blue: Store, red: Store) -> str:
        return f"{blue['name']} {red['name']}"

    assert app.ask(b"both\n") == b"blue red\n"

    @app.handler
    def either(store: Store) -> None: ...

    with pytest.raises(SetupError, match=r"either at .*store matches several resources: red, blue"):
        app.freeze()


def test_an_open_resource_is_closed_if_a_later_one_fails_to_open():
    events: list[str] = []
    app = App()

    @app.resource
    def first() -> Iterator[Store]:
        try:
            yield Store()
        finally:
            events.append("closed")

    @app.resource
    def second() -> Iterator[int]:
        yield from _no_database()

    with pytest.raises(OSError, match="no database"):
        app.ask(b"")
    assert events == ["closed"]


def test_two_resources_of_one_name_are_refused():
    app = App()

    def register(value: str) -> None:
        @app.resource
        def store() -> Iterator[Store]:
            yield Store(value=value)

    register("one")
    with pytest.raises(SetupError, match="store"):
        register("two")


def _no_database() -> Iterator[int]:
    raise OSError("no database")


def not_a_generator() -> Iterator[Store]:
    return iter([Store()])


def not_annotated():
    yield Store()


def annotated_with_nothing() -> Iterator:  # type: ignore[type-arg]
    yield Store()


def nowhere() -> "Iterator[Nowhere]":  # type: ignore[name-defined]  # noqa: F821
    yield None


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (not_a_generator, r"resource not_a_generator at .* must be a generator function"),
        (not_annotated, r"resource not_annotated at .* must be annotated with what it yields"),
        (annotated_with_nothing, r"resource annotated_with_nothing at .* must be annotated with"),
        (nowhere, r"resource nowhere: annotation: name 'Nowhere' is not defined"),
    ],
)
def test_a_resource_without_a_type_is_refused(function, why):
    app = App()
    app.resource(function)

    with pytest.raises(SetupError, match=why):
        app.freeze()


def test_a_type_that_is_neither_a_resource_nor_convertible_is_refused():
    app = App()

    @app.handler
    def get(store: Callable[[], None]) -> None: ...

    with pytest.raises(SetupError, match=r"handler get at .*: parameter store: unsupported type"):
        app.freeze()


# -- the live connection


def test_a_handler_may_push_before_its_reply_and_close():
    calls: list[str] = []
    app = App()
    app.handler("RUN")(lambda: calls.append("run"))

    @app.handler
    def work(connection: Connection, session: Session) -> str:
        connection.push("first")
        connection.push(["second", 3])
        connection.extend(5.0)
        connection.close()
        return f"done {connection.peer} {session.peer}"

    assert app.ask(b"work\r\nrun\r\n") == b"first\r\nsecond\r\n3\r\nEND\r\ndone ask ask\r\n"
    assert calls == []


def test_pushing_an_invalid_line_is_an_error_of_the_handler():
    app = App()

    @app.handler
    def work(connection: Connection) -> None:
        connection.push("a\nSECRET")

    reply = app.ask(b"work\n")

    assert reply.startswith(b"SERVER_ERROR")
    assert b"SECRET" not in reply


# -- freezing


def test_limits_passed_to_freeze_apply_to_every_connection():
    service = App().freeze(Limits(16, 4))

    assert service.limits == Limits(16, 4)
    assert service.protocol.open(service.table, service.limits).limits == Limits(16, 4)


def test_handlers_may_be_registered_after_a_first_use():
    app = App()
    app.ask(b"")
    app.handler(ping)

    assert app.ask(b"ping\n") == b"pong\n"


def test_the_log_never_shows_client_bytes_unescaped(caplog):
    app = App()

    @app.handler
    def fail(word: bytes) -> None:
        raise KeyError

    with caplog.at_level(logging.DEBUG):
        app.ask(b"fail x\nGET /\x1b[m HTTP/1.1\n")
    assert "\x1b" not in caplog.text


def _nothing() -> None: ...
def _two(request: object, session: object) -> None: ...
def _four(request, session, call_next, more) -> None: ...
def _by_name(*, request: object, session: object, call_next: object) -> None: ...
def _swapped(session, request, call_next): ...
async def _later(request: object, session: object, call_next: object) -> None: ...
@pytest.mark.parametrize(
    ("register", "function", "message"),
    [
        *(("middleware", one, "must take") for one in (_nothing, _two, _four, _by_name)),
        ("middleware", _later, "is async"),
        (
            "middleware",
            _swapped,
            r"_swapped at .* is given \(request, session, call_next\) in this order",
        ),
        ("handler", classmethod(_swapped), "is not a function"),
        ("handler", functools.partial(_two, 1), "is not a function: define one that calls it"),
        ("middleware", "no function", "'no function' is not a function$"),
        ("on_start", _two, "must take"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_when_it_is_registered(
    register, function, message
):
    with pytest.raises(SetupError, match=message):
        getattr(App(), register)(function)


def test_there_is_one_handler_of_unknown_commands():
    app = App()
    app.unknown(_nothing)

    with pytest.raises(SetupError, match=r"unknown _two at .*: there is one already: _nothing at "):
        app.unknown(_two)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (Resp, r"protocol must be an object, Resp\(\), not the class Resp"),
        ("resp", r"protocol must be an object such as linepool.Resp\(\), not 'resp'"),
        (object, "not <class 'object'>"),
    ],
)
def test_what_is_not_a_protocol_is_refused(protocol, message):
    with pytest.raises(SetupError, match=message):
        App(protocol=protocol)


def test_middleware_may_have_parameters_of_its_own_with_defaults():
    app = App()

    @app.middleware
    def add(request, session, next_one, *more, bonus: int = 1):
        return next_one(request) + bonus

    app.handler("one")(lambda: 1)
    assert app.ask(b"one\n") == b"2\n"
