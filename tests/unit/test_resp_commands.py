"""RESP: commands with subcommands, COMMAND, HELP, and replies that a client does not want."""

from __future__ import annotations

import io

import pytest

from linepool import App, Resp, SetupError
from linepool.protocols.resp import OK, Status, read_facts
from linepool.testing import assert_split_invariant
from tests.clients.redis_twin import Reader
from tests.unit.tiny_redis import tiny_redis

HELP_END = ["HELP", "    Print this help."]


def asked(app, sent):
    """Return the reply to a request as Python values; bulk strings and simple strings are text."""
    return _plain(Reader(io.BytesIO(app.ask(sent))).reply())


def _plain(reply):
    kind, value = reply
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if kind == b":":
        return int(value)
    return None if value == b"-1" and kind in b"$*" else value.decode("latin-1")


@pytest.fixture
def app():
    app = App(protocol=Resp(transactions=True))

    @app.handler("SHELF|PUT", flags="write", keys=(2, 2, 1))
    def put(key: bytes, value: bytes) -> Status:
        """Put something on it."""
        return OK

    @app.handler("SHELF|CLEAR", "SHELF|EMPTY")
    def clear(*words: bytes) -> Status:
        """Take all off."""
        return OK

    @app.handler("BOX", "CRATE", flags="readonly fast")
    def box(numkeys: int, *words: bytes) -> Status:
        """Open boxes."""
        return OK

    @app.handler(flags="readonly fast", keys=(1, -1, 1))
    def mget(key: bytes, *keys: bytes) -> None:
        """Get several."""

    return app


def test_a_subcommand_is_a_command_of_its_own(app):
    assert app.ask(b"SHELF PUT k v\r\nshelf empty\r\n") == b"+OK\r\n+OK\r\n"
    assert app.ask(b"MULTI\r\nshelf put k v\r\nEXEC\r\n").endswith(b"+QUEUED\r\n*1\r\n+OK\r\n")


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"SHELF\r\n", "wrong number of arguments for 'shelf' command"),
        (b"SHELF Burn x\r\n", "unknown subcommand 'Burn'. Try SHELF HELP."),
        (b"Shelf Put x\r\n", "wrong number of arguments for 'shelf|put' command"),
        (b"CLIENT ID x\r\n", "wrong number of arguments for 'client|id' command"),
        (b"SHELF HELP x\r\n", "wrong number of arguments for 'shelf|help' command"),
        (b"COMMAND GETKEYS\r\n", "wrong number of arguments for 'command|getkeys' command"),
        (b"COMMAND GETKEYS nosuch a\r\n", "Invalid command specified"),
        (b"COMMAND GETKEYS ping x\r\n", "The command has no key arguments"),
        (b"COMMAND GETKEYS shelf put a\r\n", "Invalid number of arguments specified for command"),
        (b"COMMAND GETKEYS box 3 a\r\n", "Invalid arguments specified for command"),
        (b"COMMAND LIST FILTERBY x y\r\n", "syntax error"),
    ],
)
def test_errors_are_those_of_redis(app, sent, error):
    assert app.ask(sent) == f"-ERR {error}\r\n".encode()


def test_a_wrong_subcommand_in_a_transaction_makes_it_fail(app):
    said = app.ask(b"MULTI\r\nSHELF BURN\r\nEXEC\r\n")
    assert said.endswith(b"-EXECABORT Transaction discarded because of previous errors.\r\n")


def test_help_lists_the_subcommands(app):
    assert asked(app, b"shelf help\r\n") == [
        "SHELF <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        *("PUT <key> <value>", "    Put something on it."),
        *("CLEAR [<words> ...]", "    Take all off."),
        *("EMPTY [<words> ...]", "    Take all off."),
        *HELP_END,
    ]
    assert asked(app, b"CLIENT HELP\r\n")[-2:] == HELP_END
    assert asked(app, b"COMMAND HELP\r\n")[1] == "(no subcommand)"


def test_command_describes_each_name(app):
    listed = asked(app, b"COMMAND LIST\r\n")
    assert "shelf|put" in listed
    names = [name for name in listed if "|" not in name]
    assert {"box", "crate", "shelf", "client", "command", "mget"} <= set(names)
    assert asked(app, b"COMMAND COUNT\r\n") == len(names) == len(asked(app, b"COMMAND\r\n"))
    assert asked(app, b"COMMAND LIST FILTERBY PATTERN shelf*\r\n") == [
        *("shelf", "shelf|put", "shelf|clear", "shelf|empty", "shelf|help"),
    ]
    assert asked(app, b"COMMAND LIST FILTERBY ACLCAT write\r\n") == ["shelf|put"]


def test_command_info_has_what_clients_read(app):
    mget, shelf, nothing, crate = asked(app, b"COMMAND INFO mget shelf nosuch crate\r\n")
    assert nothing is None
    assert mget[:6] == ["mget", -2, ["readonly", "fast"], 1, -1, 1]
    assert mget[6] == ["@keyspace", "@read", "@fast"]
    assert mget[8][0][:2] == ["flags", ["RO", "access"]]
    assert shelf[:2] == ["shelf", -2]
    assert [sub[:6] for sub in shelf[9]] == [
        ["shelf|put", 4, ["write"], 2, 2, 1],
        ["shelf|clear", -2, [], 0, 0, 0],
        ["shelf|empty", -2, [], 0, 0, 0],
    ]
    assert crate[:6] == ["crate", -2, ["readonly", "fast", "movablekeys"], 0, 0, 0]
    assert asked(app, b"COMMAND INFO shelf|put\r\n")[0] == shelf[9][0]


def test_getkeys_finds_keys(app):
    assert asked(app, b"COMMAND GETKEYS mget a \xff\r\n") == ["a", "\xff"]
    assert asked(app, b"COMMAND GETKEYS box 2 a b c\r\n") == ["a", "b"]
    assert asked(app, b"COMMAND GETKEYSANDFLAGS shelf put a b\r\n") == [["a", ["RW", "update"]]]


def test_command_docs_has_the_docstrings(app):
    docs = asked(app, b"COMMAND DOCS mget SHELF nosuch\r\n")
    assert [docs[0], docs[1][:4], docs[2]] == [
        *("mget", ["summary", "Get several.", "group", "generic"], "shelf"),
    ]
    assert asked(app, b"COMMAND DOCS nosuch\r\n") == []


def test_a_table_of_facts_counts_before_options():
    facts = read_facts(
        [
            "# name group since flags keys",
            "READ stream 5.0.0 readonly,blocking STREAMS>1..-1%2:RO.access",
            "MOVE list - write,movablekeys 1:RW.delete #2:RO",
            "",
        ]
    )
    app = App(protocol=Resp(facts=facts))

    @app.handler(flags="write")
    def read(*words: bytes) -> Status:
        return OK

    @app.handler
    def move(*words: bytes) -> Status:
        return OK

    assert asked(app, b"COMMAND GETKEYS read COUNT 1 STREAMS a b 0 0\r\n") == ["a", "b"]
    assert asked(app, b"COMMAND GETKEYS move x 1 y z\r\n") == ["x", "y"]
    read_info, move_info = asked(app, b"COMMAND INFO read move\r\n")
    assert read_info[2:6] == [["readonly", "blocking"], 0, 0, 0]
    assert read_info[6] == ["@read", "@stream", "@slow", "@blocking"]
    assert move_info[3:6] == [1, 1, 1]
    assert "5.0.0" in asked(app, b"COMMAND DOCS read\r\n")[1]


@pytest.mark.parametrize("keys", ["x", "1..x", (1, 2), 7, None])
def test_wrong_positions_of_keys_are_refused_at_the_start(keys):
    app = App(protocol=Resp())

    @app.handler(keys=keys)
    def get(key: bytes) -> None:
        """Get."""

    with pytest.raises(SetupError, match="keys"):
        app.freeze()


def test_an_own_command_replaces_one_that_has_subcommands():
    app = App(protocol=Resp())

    @app.handler
    def client(*words: bytes) -> Status:
        return Status("mine")

    assert app.ask(b"CLIENT ID\r\nCLIENT\r\n") == b"+mine\r\n+mine\r\n"
    assert "client|id" not in str(asked(app, b"COMMAND\r\n"))


def test_replies_can_be_switched_off():
    app = tiny_redis()
    script = (
        b"CLIENT REPLY SKIP\r\nSET a 1\r\nGET a\r\nCLIENT REPLY OFF\r\nGET a\r\nNOSUCH\r\nMULTI\r\nGET a\r\n"
        b"EXEC\r\nCLIENT REPLY SKIP\r\nGET a\r\nCLIENT REPLY ON\r\nGET a\r\n"
    )
    assert app.ask(script) == b"$1\r\n1\r\n+OK\r\n$1\r\n1\r\n"
    assert_split_invariant(app, script)
    assert app.ask(b"CLIENT REPLY x\r\n") == b"-ERR syntax error\r\n"
