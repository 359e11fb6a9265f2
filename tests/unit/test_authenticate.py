"""Clients that have to log in: what they may do before that, and what the app's function decides."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from linepool import (
    App,
    ClientError,
    Connection,
    Dialogue,
    JsonRpc,
    Limits,
    Line,
    Login,
    Memcache,
    Protocol,
    Request,
    Resp,
    Secret,
    Session,
    SetupError,
    body,
)
from linepool.batch import answers
from linepool.conversation import Conversation
from linepool.resources import Resources
from linepool.testing import assert_split_invariant

REQUIRED = "CLIENT_ERROR authentication required: AUTH USER PASSWORD"


def vault(protocol: Protocol | None = None) -> App:
    """Return an app with a user, handlers for him, and one for everybody."""
    app = App("vault", protocol=protocol)

    @app.authenticate
    def check(user: str, password: Secret) -> bool:
        return (user, password) == ("ann", "right")

    @app.handler
    def whoami(session: Session) -> str:
        return str(session.user)

    @app.handler
    def put(size: int, data: bytes = body("size")) -> int:
        return len(data)

    @app.handler(public=True)
    def motd() -> str:
        return "welcome"

    @app.handler
    def log_out(session: Session) -> str:
        session.user = None
        return "bye"

    return app


def without_blocks(protocol: Protocol) -> App:
    app = App("vault", protocol=protocol)
    app.authenticate(lambda user, password: (user, password) == ("ann", "right"))
    app.handler("whoami")(whoami)
    app.handler("motd", public=True)(motd)
    app.handler("log_out")(log_out)
    return app


def whoami(session: Session) -> str:
    return str(session.user)


def motd() -> str:
    return "welcome"


def log_out(session: Session) -> str:
    session.user = None
    return "bye"


LINES = (
    "WHOAMI\nNOPE\nHELP\nPUT 14\nAUTH ann right\nMOTD\nWHOAMI 'x\nAUTH ann\nAUTH ann wrong\n"
    "AUTH ann right\nWHOAMI\nPUT 3\nabc\nNOPE\nAUTH bob right\nWHOAMI\nLOG_OUT\nWHOAMI\nMOTD\nQUIT\n"
)
LINE_REPLIES = [
    *[REQUIRED] * 4,
    "welcome",
    REQUIRED,
    "CLIENT_ERROR password is missing. Usage: AUTH user:str password:str",
    "CLIENT_ERROR authentication failed",
    "OK",
    "ann",
    "3",
    "ERROR unknown command 'NOPE'. HELP lists the commands.",
    "CLIENT_ERROR authentication failed",
    "ann",
    "bye",
    REQUIRED,
    "welcome",
    "OK",
]


def test_a_client_of_the_line_protocol_has_to_log_in():
    assert vault().ask(LINES).splitlines() == LINE_REPLIES


def test_a_framed_request_logs_in():
    sent = '@j WHOAMI []\n@j AUTH {"user": "ann", "password": "right"}\n@j WHOAMI []'
    required = '- {"error":"CLIENT_ERROR","text":"authentication required: AUTH USER PASSWORD"}'
    assert vault().ask(sent).splitlines() == [required, "= null", '= "ann"']


def test_a_client_of_redis_has_to_log_in():
    sent = (
        b"WHOAMI\r\nNOPE\r\nEXEC\r\nHELLO 3\r\nMOTD\r\nAUTH right\r\nAUTH ann wrong\r\n"
        b"AUTH ann right\r\nWHOAMI\r\nMULTI\r\nWHOAMI\r\nEXEC\r\nEXEC\r\nRESET\r\nWHOAMI\r\nQUIT\r\n"
    )
    wrong = "-WRONGPASS invalid username-password pair or user is disabled."
    required = "-NOAUTH Authentication required."
    assert without_blocks(Resp(transactions=True)).ask(sent).decode().split("\r\n") == [
        required,
        required,
        "-EXECABORT Transaction discarded because of: NOAUTH Authentication required.",
        "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH"
        " <user> <pass> option can be used to authenticate the client and select the RESP protocol"
        " version at the same time",
        *("$7", "welcome"),
        *(wrong, wrong),
        *("+OK", "$3", "ann"),
        *("+OK", "+QUEUED", "*1", "$3", "ann", "-ERR EXEC without MULTI"),
        *("+RESET", required, "+OK", ""),
    ]


def test_hello_logs_in():
    app = without_blocks(Resp())
    assert app.ask(b"HELLO 2 AUTH ann wrong\r\n").startswith(b"-WRONGPASS ")
    assert app.ask(b"HELLO 2 AUTH ann right\r\nWHOAMI\r\n").endswith(b"$3\r\nann\r\n")
    assert app.ask(b"HELLO 2 AUTH ann \xff\r\n").startswith(b"-WRONGPASS ")


MEMCACHE = (
    b"whoami\r\nversion\r\n\r\nget\r\nnope\r\nset k 0 0 x\r\nadd k 0 0 24\r\nset k 0 0 9\r\nann right\r\n\r\n"
    b"set k 0 0 9 noreply\r\nann wrong\r\nset k 0 0 3\r\nann\r\nset k 0 0 9\r\nann right\r\n"
    b"whoami\r\nset k 0 0 3\r\nabc\r\nlog_out\r\n"
    b"set k 0 0 3\r\nabc\r\nset k 0 0 11\r\n ann  right\r\nquit\r\n"
)
MEMCACHE_REPLIES = [
    *["CLIENT_ERROR unauthenticated"] * 7,
    "CLIENT_ERROR authentication failure",
    "CLIENT_ERROR bad authentication token format",
    "STORED",
    "ann",
    "ERROR",
    "ERROR",
    "bye",
    "CLIENT_ERROR bad authentication token format",
    "STORED",
]


def test_a_client_of_memcached_has_to_log_in():
    app = without_blocks(Memcache())

    @app.handler("set")
    def set_(key: str, flags: int, exptime: int, size: int, data: bytes = body("size")) -> bool:
        return True

    replies = [*MEMCACHE_REPLIES]
    replies[replies.index("ERROR") : replies.index("bye")] = ["STORED"]
    assert app.ask(MEMCACHE).decode().splitlines() == replies


RPC = (
    '{"jsonrpc":"2.0","id":1,"method":"whoami"}\n'
    '[{"jsonrpc":"2.0","id":2,"method":"nope"},'
    '{"jsonrpc":"2.0","id":3,"method":"rpc.authenticate","params":["ann","wrong"]},'
    '{"jsonrpc":"2.0","method":"whoami"},'
    '{"jsonrpc":"2.0","id":4,"method":"rpc.authenticate","params":{"user":"ann","password":"right"}},'
    '{"jsonrpc":"2.0","id":5,"method":"whoami"},{"jsonrpc":"2.0","id":6,"method":"log_out"},'
    '{"jsonrpc":"2.0","id":7,"method":"whoami"}]\n{"jsonrpc":"2.0","id":8,"method":"motd"}\n'
)


def test_the_calls_of_a_batch_log_in_in_their_order():
    text = "authentication required: call rpc.authenticate with user and password"
    required = '"error":{"code":-32001,"message":"' + text + '"}'
    failed = '"error":{"code":-32002,"message":"authentication failed"}'
    parts = [
        *((2, required), (3, failed), (4, '"result":true'), (5, '"result":"ann"')),
        *((6, '"result":"bye"'), (7, required)),
    ]
    assert without_blocks(JsonRpc()).ask(RPC).splitlines() == [
        '{"jsonrpc":"2.0",' + required + ',"id":1}',
        "[" + ",".join(f'{{"jsonrpc":"2.0",{what},"id":{number}}}' for number, what in parts) + "]",
        '{"jsonrpc":"2.0","result":"welcome","id":8}',
    ]


def test_a_batch_cannot_try_any_number_of_passwords():
    tried = []
    app = App(protocol=JsonRpc())

    @app.authenticate
    def check(user: str, password: Secret) -> None:
        tried.append(password.reveal())

    call = '{"jsonrpc":"2.0","id":1,"method":"rpc.authenticate","params":["ann","%d"]}'
    app.ask("[" + ",".join(call % number for number in range(100)) + "]\n")
    assert tried == [str(number) for number in range(10)]


def mail() -> App:
    app = App(protocol=Dialogue.smtp(max_errors=4))

    @app.authenticate
    def check(user: str, password: Secret) -> bool:
        return (user, password) == ("ann", "right")

    @app.handler("AUTH", public=True, to="known")
    def auth(user: str, password: Secret, login: Login) -> tuple[int, str]:
        login(user, password)
        return 235, "welcome"

    @app.handler
    def data(text: bytes = body()) -> str:
        return str(len(text))

    return app


MAIL = "NOOP\r\nDATA\r\nAUTH ann wrong\r\nAUTH ann right\r\nDATA\r\n..x\r\n.\r\nQUIT\r\n"


def test_handlers_of_a_dialogue_log_in():
    assert mail().ask(MAIL).splitlines() == [
        *("220 ready", "250 OK", "530 Authentication required", "535 authentication failed"),
        *("235 welcome", "354 Go ahead", "250 4", "221 Bye"),
    ]
    assert mail().ask("DATA\r\n" * 9).splitlines()[1:] == [
        *["530 Authentication required"] * 4,
        "421 Too many errors",
    ]
    mailbox = App(protocol=Dialogue.pop3())
    mailbox.authenticate(lambda user, password: False)
    mailbox.handler("PASS", public=True)(pass_)
    assert mailbox.ask("STAT\r\nPASS x\r\nQUIT\r\n").splitlines()[1:] == [
        *("-ERR log in first", "-ERR [AUTH] authentication failed", "+OK bye"),
    ]


def pass_(password: Secret, login: Login) -> None:
    login("ann", password)


class Bare(Protocol):
    """A protocol of a user's own: a request is a byte."""

    def start(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> None:
        self._data += data

    def next_request(self) -> Request | None:
        byte, self._data = self._data[:1], self._data[1:]
        return Request(byte, [], self.commands.get(byte.upper())) if byte else None

    def eof(self) -> None:
        return None

    @property
    def at_boundary(self) -> bool:
        return not self._data

    def encode(self, value: object, request: Request) -> bytes:
        return f"{value} ".encode()

    def encode_error(self, error: Exception, request: Request | None) -> bytes:
        return f"[{error}] ".encode()

    def dump(self) -> bytes:
        return self._data

    def load(self, blob: bytes) -> None:
        self._data = blob


def test_a_protocol_of_the_app_s_own_has_the_lock_too():
    app = without_blocks(Bare())

    @app.handler("L", public=True)
    def log_in(session: Session) -> str:
        session.user = "me"
        return "in"

    app.handler("W")(whoami)
    assert app.ask(b"WXLW") == b"[authentication required] [authentication required] in me "
    assert_split_invariant(app, b"WXLW")


@pytest.mark.parametrize(
    ("app", "script"),
    [
        (vault(), LINES.encode()),
        (without_blocks(Memcache()), MEMCACHE),
        (without_blocks(JsonRpc()), RPC.encode()),
        (mail(), MAIL.encode()),
        (
            without_blocks(Resp()),
            b"*1\r\n$6\r\nWHOAMI\r\n*3\r\n$4\r\nAUTH\r\n$3\r\nann\r\n$5\r\nright\r\n"
            b"*1\r\n$6\r\nWHOAMI\r\n*1\r\n$7\r\nLOG_OUT\r\nWHOAMI\r\n",
        ),
    ],
    ids=["line", "memcache", "jsonrpc", "dialogue", "resp"],
)
def test_cuts_change_nothing(app, script):
    assert_split_invariant(app, script)


# -- limits


def asked(app: App, *parts: bytes, limits: Limits | None = None) -> bytes:
    """Return the replies to what is sent on one connection."""
    conversation = Conversation(app.freeze(limits), Session("1", "peer", "here"), Resources())
    replies = [conversation.greet()]
    for part in parts:
        conversation.feed(part)
        replies += answers(conversation)
    return b"".join(replies)


def test_the_limits_of_lines_and_blocks_are_small_before_a_log_in():
    log_in, long = b"AUTH ann right\n", b"WHOAMI" + 5000 * b" " + b"\n"
    block = b"PUT 17000\n" + bytes(17000) + b"\n"
    assert b"may hold 4096 bytes at most" in asked(vault(), long + log_in)
    assert asked(vault(), log_in, long).splitlines() == [b"OK", b"ann"]
    assert asked(vault(), log_in + long).splitlines() == [b"OK", b"ann"]
    assert b"may hold 16384 bytes at most" in asked(vault(), block + log_in)
    assert asked(vault(), log_in, block).splitlines() == [b"OK", b"17000"]
    after = asked(vault(), log_in, b"LOG_OUT\n", long)
    assert after.splitlines()[2] == b"CLIENT_ERROR a line may hold 4096 bytes at most"


def test_the_limits_are_never_above_those_of_the_settings():
    limits = Limits(max_line_bytes=20, max_body_bytes=10)
    assert b"may hold 20 bytes" in asked(vault(), b"x" * 30 + b"\n", limits=limits)
    assert b"may hold 10 bytes" in asked(vault(), b"PUT 11\n", limits=limits)


def test_the_limits_of_other_protocols_are_small_before_a_log_in():
    resp = without_blocks(Resp())
    many = b"*11\r\n" + b"$1\r\na\r\n" * 11
    assert asked(resp, many) == b"-ERR Protocol error: unauthenticated multibulk length\r\n"
    large = b"*1\r\n$17000\r\n"
    assert asked(resp, large) == b"-ERR Protocol error: unauthenticated bulk length\r\n"
    assert asked(resp, b"AUTH ann right\r\n", large) == b"+OK\r\n"
    call = b'{"jsonrpc":"2.0","id":1,"method":"motd"' + b" " * 17000 + b"}\n"
    assert b"16384 bytes at most" in asked(without_blocks(JsonRpc()), call)
    memcache = without_blocks(Memcache())
    refused = b"CLIENT_ERROR unauthenticated\r\n"
    assert asked(memcache, b"set k 0 0 17000\r\n", bytes(17000), b"\r\nversion\r\n") == refused * 2
    assert asked(memcache, b"get " + b"k " * 2000) == b""  # and it is closed


# -- the function


class Store(list[str]):
    """A resource of the worker."""


class Once(list[str]):
    """A resource of the request."""


def app_with(function) -> App:
    app = App()
    app.authenticate(function)
    app.handler(whoami)
    return app


def test_the_function_may_return_the_name_of_the_user():
    assert app_with(lambda user, password: "Ann").ask("AUTH ann x\nWHOAMI") == "OK\nAnn"
    assert app_with(lambda user, password: Secret("a")).ask("AUTH ann x\nWHOAMI") == "OK\na"
    assert app_with(lambda user, password: True).ask("AUTH ann x\nWHOAMI") == "OK\nann"


@pytest.mark.parametrize("answer", [False, None])
def test_false_and_none_refuse(answer):
    assert app_with(lambda user, password: answer).ask("AUTH a b\nWHOAMI").splitlines() == [
        "CLIENT_ERROR authentication failed",
        REQUIRED,
    ]


def test_the_text_of_a_client_error_is_the_reply():
    def check(user: str, password: Secret) -> bool:
        raise ClientError(f"{user} is locked out")

    assert app_with(check).ask("AUTH a b") == "CLIENT_ERROR a is locked out"


@pytest.mark.parametrize("answer", [1, 0, b"ann", []])
def test_another_answer_is_a_failure_of_the_app(answer, caplog):
    replies = app_with(lambda user, password: answer).ask("AUTH a b\nWHOAMI").splitlines()
    assert replies[0].startswith("SERVER_ERROR internal error, id ")
    assert replies[1] == REQUIRED
    assert "authenticate must return True, False, None or the user's name" in caplog.text


def test_what_the_function_raises_is_a_failure_of_the_app(caplog):
    def check(user: str, password: Secret) -> bool:
        raise OSError("no database")

    replies = app_with(check).ask("AUTH ann hush\n" * 11 + "WHOAMI").splitlines()
    assert len(replies) == 12, "it does not count as a wrong password"
    assert replies[0].startswith("SERVER_ERROR internal error, id ")
    assert "no database" in caplog.text
    assert "hush" not in caplog.text


def test_what_the_function_takes_besides_is_injected():
    opened = []
    app = App()

    @app.resource
    def store() -> Iterator[Store]:
        yield Store(["ann"])

    @app.resource(scope="request")
    def once() -> Iterator[Once]:
        opened.append("opened")
        yield Once()
        opened.append("closed")

    @app.authenticate
    def check(
        user: str, password: Secret, session: Session, store: Store, *, once: Once, live: Connection
    ) -> bool:
        opened.append(f"checked {session.peer} {live.peer} {once}")
        return user in store

    app.handler(whoami)
    assert app.ask("AUTH bob x\nAUTH ann x\nWHOAMI").splitlines()[1:] == ["OK", "ann"]
    assert opened == ["opened", "checked ask ask []", "closed"] * 2


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda: True, r"must take \(user, password\)"),
        (lambda user: True, r"must take \(user, password\)"),
        (lambda user, password, more: True, r"must take \(user, password\)"),
        (3, "3 is not a function"),
    ],
    ids=range(4),
)
def test_a_function_that_cannot_be_called_is_refused_at_once(function, text):
    with pytest.raises(SetupError, match=text):
        App().authenticate(function)


def test_a_function_that_cannot_be_called_with_what_there_is_is_refused():
    def of_int(user: str, password: int) -> bool:
        return True

    def of_store(user: str, password: Secret, store: Iterator[int]) -> bool:
        return True

    def stream(user: str, password: Secret) -> Iterator[bool]:
        yield True

    async def late(user: str, password: Secret) -> bool:
        return True

    with pytest.raises(SetupError, match=r"of_int at .*: the password is a str or linepool.Secret"):
        app_with(of_int).freeze()
    with pytest.raises(SetupError, match=r"of_store at .*: parameter store: nothing provides"):
        app_with(of_store).freeze()
    with pytest.raises(SetupError, match="must not be a generator function"):
        app_with(stream)
    with pytest.raises(SetupError, match=r"late at .* is async"):
        app_with(late)


def test_there_is_one_function_at_most():
    app = app_with(lambda user, password: True)
    with pytest.raises(SetupError, match=r"there is one already: <lambda> at .*test_authenticate"):
        app.authenticate(lambda user, password: False)


@pytest.mark.parametrize(
    "resp", [Resp(password="x"), Resp(authenticate=lambda user, password: True)], ids=range(2)
)
def test_a_protocol_with_a_password_needs_no_function(resp):
    app = App(protocol=resp)
    app.authenticate(lambda user, password: True)
    with pytest.raises(SetupError, match=r"authenticate <lambda> at .*: Resp\(\) has been given"):
        app.freeze()


def test_a_login_needs_a_function():
    app = App()
    app.handler(pass_)
    with pytest.raises(SetupError, match="a Login needs a function that checks log-ins"):
        app.freeze()


def test_public_is_true_or_false():
    with pytest.raises(SetupError, match="public must be True or False, not 'yes'"):
        App().handler(public="yes")  # type: ignore[call-overload]
    assert app_with(lambda user, password: True).freeze().table[b"AUTH"].is_public
    assert "AUTH" not in App().ask("HELP")


# -- other ways to be logged in, and out


def test_whatever_sets_the_user_opens_the_connection():
    app = app_with(lambda user, password: False)

    @app.on_connect
    def known(session: Session) -> None:
        session.user = f"of {session.peer}"

    assert app.ask("WHOAMI") == "of ask"


def test_app_ask_may_be_a_user():
    assert vault().ask("WHOAMI") == REQUIRED
    assert vault().ask("WHOAMI", user="bob") == "bob"
    assert vault().ask(b"WHOAMI\n", user="bob") == b"bob\n"


def test_middleware_and_the_handler_of_unknown_commands_come_after_the_log_in():
    seen = []
    app = vault()

    @app.middleware
    def note(request: Request, session: Session, call_next):
        seen.append(request.verb)
        return call_next(request)

    app.unknown(lambda: "what?")
    assert app.ask("WHOAMI\nNOPE\nAUTH ann right\nNOPE").splitlines() == [
        *(REQUIRED, REQUIRED, "OK", "what?"),
    ]
    assert seen == [b"AUTH", b"NOPE"]


def test_included_handlers_stay_public():
    app = App()
    app.authenticate(lambda user, password: True)
    app.include(vault(), prefix="V.")
    assert app.ask("V.MOTD\nV.WHOAMI").splitlines() == ["welcome", REQUIRED]


def test_a_command_of_the_app_s_own_replaces_the_built_in_one():
    app = vault()
    app.builtins = False
    assert app.ask("QUIT\nAUTH ann right\nQUIT").splitlines()[1:] == [
        "OK",
        "ERROR unknown command 'QUIT'.",
    ]

    @app.handler("AUTH", public=True)
    def auth(token: Secret, session: Session) -> str:
        session.user = "token"
        return "hello"

    assert app.ask("AUTH x\nWHOAMI") == "hello\ntoken"


# -- failures


def test_ten_wrong_passwords_end_a_connection():
    assert (
        vault().ask("AUTH ann wrong\n" * 12 + "MOTD").splitlines()
        == ["CLIENT_ERROR authentication failed"] * 10
    )
    again = "AUTH ann wrong\n" * 9 + "AUTH ann right\n"
    assert vault().ask(again * 2 + "WHOAMI").splitlines()[-2:] == ["OK", "ann"]


def test_failures_move_along_with_a_session():
    session = Session("1", "peer", "here")
    session.failed_logins = 9
    moved = Session.load(session.dump())
    assert moved.failed_logins == 9
    assert moved.user is None
    conversation = Conversation(vault().freeze(), moved, Resources())
    conversation.feed(b"AUTH ann wrong\nMOTD\n")
    assert b"".join(answers(conversation)) == b"CLIENT_ERROR authentication failed\n"


def test_the_log_has_failed_log_ins_without_passwords(caplog):
    with caplog.at_level(logging.WARNING):
        vault().ask('AUTH "a\\nb" hush\nAUTH ann hush')
    assert [one.message for one in caplog.records] == [
        r"log-in refused peer=ask listener=ask user='a\nb' failures=1",
        "log-in refused peer=ask listener=ask user='ann' failures=2",
    ]


def test_the_log_of_requests_has_no_password():
    for protocol, line in [
        (Line(), b"AUTH ann hush"),
        (Line(), b'@! AUTH {"user":"a","password":"hush"}'),
        (JsonRpc(), b'{"method":"rpc.authenticate","params":["ann","hush"]}'),
    ]:
        app = App(protocol=protocol)
        app.authenticate(lambda user, password: True)
        service = app.freeze()
        entry = service.logged(line).entry
        assert entry is not None
        assert entry.is_secret
    requests = without_blocks(JsonRpc()).freeze().open_protocol()
    requests.feed(
        b'[{"jsonrpc":"2.0","method":"motd"},'
        b'{"jsonrpc":"2.0","method":"rpc.authenticate","params":["ann","hush"]}]\n'
    )
    batch = requests.next_request()
    assert isinstance(batch, Request)
    assert batch.line == b'[{"method": "rpc.authenticate"}]'
